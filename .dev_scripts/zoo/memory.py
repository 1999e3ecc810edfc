# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""Memory of a training step, on a real batch of a shipped config."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from tempfile import TemporaryDirectory
from typing import Any

import torch
from mmengine.config import Config
from mmengine.runner import Runner, set_random_seed

from mmfakd.analysis.benchmark.measure import peak_bytes
from mmfakd.model_zoo.find import config_file


def training_bytes(name: str) -> int:
    """Measure how much memory a training step on a CPU takes.

    Args:
        name (str): A shipped config. Data are looked for below the present folder.

    Returns:
        int: Bytes of all tensors at the peak of a step: of models, optimizer,
        gradients and what is computed. Seed and batch are always the same.
    """
    cfg = Config.fromfile(config_file(name))
    cfg.train_dataloader.update(num_workers=0, persistent_workers=False)
    if 'teacher_ckpt' in cfg.model:
        cfg.model.teacher_ckpt = None
    level = logging.root.manager.disable
    with TemporaryDirectory() as folder:
        logging.disable(logging.WARNING)
        try:
            cfg.update(work_dir=folder, randomness=dict(seed=0))
            runner = Runner.from_cfg(cfg)
            optim_wrapper = runner.build_optim_wrapper(runner.optim_wrapper)
            loader = runner.build_dataloader(cfg.train_dataloader, seed=0)
        finally:
            logging.disable(level)
    set_random_seed(0)
    batch = next(iter(loader))
    runner.model.train()
    peak = peak_bytes(lambda: runner.model.train_step(batch, optim_wrapper), 'cpu')
    teacher = getattr(runner.model, 'teacher', None)
    models = [runner.model] if teacher is None else [runner.model, teacher]
    states = [value for model in models for value in model.state_dict().values()]
    states += _tensors(optim_wrapper.optimizer.state_dict())
    return peak + sum(value.numel() * value.element_size() for value in states)


def _tensors(value: Any) -> Iterator[torch.Tensor]:
    if isinstance(value, torch.Tensor):
        yield value
    elif isinstance(value, dict):
        for item in value.values():
            yield from _tensors(item)
