# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""The whole training step: forward, backward and optimizer."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config
from mmengine.model import BaseModel
from mmengine.optim import build_optim_wrapper
from mmengine.registry import MODELS, init_default_scope
from torch import nn
from torch.nn.utils import convert_conv2d_weight_memory_format

from mmfakd.model_zoo.find import config_file
from mmfakd.model_zoo.read_config import read_config
from mmfakd.model_zoo.resolve import resolve_model_cfg
from mmfakd.model_zoo.student_of import student_of
from mmfakd.pairing.input_size import read_input_size

from .measure import Case, Options, Side, count_learned, held_bytes
from .naive_layers import has_naive_version, our_layers, use_naive_layers
from .random_batch import random_batch

FLOOR = "student + teacher's forward"


def step_cases(
    configs: Sequence[Path | str],
    options: Options,
    batch_size: int | None = None,
    image_size: int | None = None,
    overrides: dict | None = None,
) -> list[Case]:
    """Training steps of distillations of one pair, against what none can do without.

    That is the student's own step and the teacher's forward pass. Images are random
    and already on the device; nothing is loaded, neither data nor weights. The rate
    of learning is 0, so that no step differs from the one before; it costs the same.

    Args:
        configs (Sequence[Path | str]): Distillation configs of one pair.
        options (Options): Device and precision.
        batch_size (int, optional): Batch size in place of the first config's.
        image_size (int, optional): Height of the images in pixels, in place of that
            which the first config's transforms end with; the width of a detector's is
            in proportion, a classifier's are square.
        overrides (dict, optional): Settings of the configs, by dotted key.

    Returns:
        list[Case]: One case, with the student alone, the floor, every config, and
        every config of our layers with the naive ones.

    Raises:
        ValueError: If a config has no teacher, or the size of its images is not
            found.
    """
    named = {Path(path).stem: read_distillation(path, overrides) for path in configs}
    name, cfg = next(iter(named.items()))
    batch = batch_size or cfg.train_dataloader.batch_size
    height, width = size = _image_size(name, cfg, image_size)
    pixels = f'{height}' if height == width else f'{height} x {width}'
    return [
        Case(
            f'{name}, batch {batch}, {pixels} px',
            partial(_sides, named, batch, size, options),
            dict(configs=list(named), batch=batch, pixels=height, width=width),
        )
    ]


def _sides(
    configs: dict[str, Config], batch: int, size: tuple[int, int], options: Options
) -> list[Side]:
    cfg = next(iter(configs.values()))
    init_default_scope(cfg.get('default_scope', 'mmpretrain'))
    env_cfg = cfg.get('env_cfg', {})
    torch.backends.cudnn.benchmark = bool(env_cfg.get('cudnn_benchmark'))
    alone = build_part(cfg, 'architecture')
    data = random_batch(cfg, alone, batch, size, options.device)
    step = partial(training_step, data=data, options=options)
    sides = [floor_step(cfg, data, options), step('student alone', alone, cfg)]
    for name, config in configs.items():
        model = build_part(config)
        if count_learned(model.architecture) != count_learned(alone):
            raise ValueError(
                f'{name} has another student than {next(iter(configs))}: give configs '
                'of one pair.'
            )
        sides.append(step(name, model, config))
        layers = our_layers(model)
        if layers and all(map(has_naive_version, layers)):
            naive = build_part(config)
            use_naive_layers(naive.distiller)
            sides.append(step(f'{name}, naive layers', naive, config))
    return sides


def floor_step(cfg: Config, data: dict, options: Options) -> Side:
    """Make a side of what no distillation can do without.

    Args:
        cfg (Config): A distillation config.
        data (dict): A batch as its loader gives it, on the device.
        options (Options): Device and precision.

    Returns:
        Side: The student's training step with the teacher's forward pass.
    """
    student = build_part(cfg, 'architecture')
    teacher = build_part(cfg, 'teacher').to(options.device)
    teacher.eval().requires_grad_(False)

    def run_teacher(student: Any, args: Any, kwargs: dict) -> None:
        with torch.no_grad(), options.autocast():
            # As deep as the features that are distilled.
            teacher.extract_feat(kwargs['inputs'])

    student.register_forward_pre_hook(run_teacher, with_kwargs=True)
    return training_step(FLOOR, student, cfg, data, options, [teacher])


def training_step(
    name: str,
    model: BaseModel,
    cfg: Config,
    data: dict,
    options: Options,
    beside: Sequence[nn.Module] = (),
) -> Side:
    """Make a side of the training step of a model, with a rate of learning of 0.

    Args:
        name (str): Name of the side.
        model (BaseModel): The model, moved to the device.
        cfg (Config): Its config.
        data (dict): A batch as its loader gives it, on the device.
        options (Options): Device and precision.
        beside (Sequence[nn.Module]): What else runs in the step. Defaults to nothing.

    Returns:
        Side: Preprocessing, forward and backward pass, and the optimizer's step.
    """
    model = model.to(options.device).train()
    optim_cfg = copy.deepcopy(cfg.optim_wrapper)
    optim_cfg.optimizer.lr = 0.0
    if options.amp != 'none' and options.device == 'cuda':
        optim_cfg.update(
            type='AmpOptimWrapper', dtype=options.amp, loss_scale='dynamic'
        )
    elif options.amp != 'none':
        # That wrapper wants a GPU.
        model.forward = options.autocast()(model.forward)
    optim_wrapper = build_optim_wrapper(model, optim_cfg)
    train_step = partial(model.train_step, data, optim_wrapper)
    modules = [model, *beside]
    # In the module tree of mmfakd's algorithms it is not.
    teacher = getattr(model, 'teacher', None)
    holders = modules if teacher is None else [*modules, teacher]
    held = partial(held_bytes, holders, optim_wrapper.optimizer)
    return Side(name, train_step, count_learned(model), modules, held)


def read_distillation(path: Path | str, overrides: dict | None = None) -> Config:
    """Read the config of a distillation.

    Args:
        path (Path | str): Its file or name.
        overrides (dict, optional): Settings by dotted key.

    Returns:
        Config: The config.

    Raises:
        ValueError: If its model has no teacher.
    """
    cfg = read_config(config_file(str(path)))
    cfg.merge_from_dict(overrides or {})
    model = cfg.get('model') or {}
    if not {'teacher', 'architecture', 'distiller'} <= set(model):
        raise ValueError(
            f'{path}: its model, {model.get("type")}, has no teacher to learn from; '
            'choose a distillation config, for example '
            'fakd_review_r56_r20_1xb64_cifar100.'
        )
    return cfg


def build_part(cfg: Config, part: str | None = None) -> BaseModel:
    """Build a distillation, or its student or teacher, as in training; no weights.

    Args:
        cfg (Config): The config.
        part (str, optional): ``'architecture'`` or ``'teacher'``.

    Returns:
        BaseModel: The model.
    """
    model_cfg = cfg.model[part] if part else cfg.model
    resolved, _ = resolve_model_cfg(model_cfg, cfg.get('data_preprocessor'))
    model = MODELS.build(student_of(resolved) if part == 'teacher' else resolved)
    if part and cfg.model.get('channels_last'):
        convert_conv2d_weight_memory_format(model, torch.channels_last)
    return model


def _image_size(name: str, cfg: Config, height: int | None) -> tuple[int, int]:
    """Height and width: of a classifier what all of its images have."""
    size = read_input_size(cfg)
    detector = cfg.get('default_scope') == 'mmdet'
    if height and not (detector and size):
        return height, height
    if size is None or not (detector or (size.fixed and size.height == size.width)):
        raise ValueError(
            f'{name}: its transforms say no size of the images, or none that all '
            f'of them have, and square ({size}); give --image-size.'
        )
    width = size.width if height is None else round(height * size.width / size.height)
    return height or size.height, width
