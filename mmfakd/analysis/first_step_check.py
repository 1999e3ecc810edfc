# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""The look at the first step of a training, without training."""

from __future__ import annotations

import copy
import logging
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.logging import MMLogger
from mmengine.model import revert_sync_batchnorm
from mmengine.optim import build_optim_wrapper
from mmengine.registry import HOOKS, LOG_PROCESSORS, MODELS, init_default_scope
from mmengine.runner import LogProcessor, Runner, set_random_seed
from torch import nn
from torch.utils.data import DataLoader

from mmfakd.checkpoints.download import one_try
from mmfakd.checkpoints.fetch import is_at_hand
from mmfakd.compat.running_loop import start_message_hub
from mmfakd.datasets.wrappers import dataset_meta
from mmfakd.engine.check_config import check_training, check_weights
from mmfakd.engine.check_data import check_data, check_length, tell_names
from mmfakd.engine.check_pipelines import check_switches, tell_pad
from mmfakd.engine.check_stream import asks_for_length, check_stream, explain_stream
from mmfakd.engine.devices import find_device
from mmfakd.engine.hooks.first_step_hook import note_optimized
from mmfakd.engine.naming_collate import NamingCollate
from mmfakd.engine.runner_kind import check_runner
from mmfakd.engine.safety import count_epochs, loops_by_epoch
from mmfakd.messages import progress
from mmfakd.model_zoo.type_names import short_name
from mmfakd.models.algorithms import FeatureDistill
from mmfakd.models.algorithms.built_models import drop_pretrained, pretrained_from
from mmfakd.models.algorithms.check_mean_teacher import check_mean_teacher
from mmfakd.models.algorithms.check_one_class import check_later_mixing

from .check_schedule import check_schedule
from .distillation import open_distillation

FINE, BROKEN, DOUBTFUL = 0, 1, 3
_NAME = 'mmfakd-check'
# Pixels of a batch on a CPU: eight images of 224 x 224.
_PIXELS = 8 * 224 * 224
_AMP = ('AmpOptimWrapper', 'CpuAmpOptimWrapper')
# Optimizer wrappers that need nothing but an optimizer.
_PLAIN = ('OptimWrapper', *_AMP)


def check_distillation(
    config: str,
    teacher_ckpt: str | None = None,
    student_ckpt: str | None = None,
    device: str | None = None,
    amp: bool = False,
    cfg_options: Sequence[str] | None = None,
) -> int:
    """Print what the first step of a training would say.

    Args:
        config (str): Path of a config, or its name.
        teacher_ckpt (str, optional): The teacher's weights.
        student_ckpt (str, optional): Weights that the student starts from.
        device (str, optional): Where to compute. Defaults to a GPU where there is one.
        amp (bool): Whether the training is to use automatic mixed precision.
        cfg_options (Sequence[str], optional): Overrides of the config.

    Returns:
        int: 0 if nothing is wrong, 1 if it would teach nothing, 3 for warnings.

    Raises:
        FileNotFoundError: If there is no such config; near names are listed.
        ValueError: If the config describes no distillation that can be looked at,
            something does not fit, or the device is not there.
    """
    check_weights(teacher_ckpt=teacher_ckpt, student_ckpt=student_ckpt)
    place = find_device(device)
    with open_distillation(config, teacher_ckpt, cfg_options) as cfg, _quiet():
        check_training(cfg)
        check_runner(cfg.get('runner_type'))
        if student_ckpt is not None:
            cfg.model.student_ckpt = student_ckpt
        set_random_seed((cfg.get('randomness') or {}).get('seed') or 0)
        init_default_scope(cfg.get('default_scope') or 'mmengine')
        progress('loading one batch of the training set')
        with explain_stream(cfg, within=('build_dataloader',)):
            loader = _loader(cfg)
        batch = _one_batch(loader)
        progress('building student and teacher')
        model = _model(cfg)
        hooks = list(_hooks(cfg))
        check_stream(loader, hooks, asks_for_length(cfg), _log_processor(cfg))
        notes = _check_hooks(hooks, cfg, loader, model)
        warnings = check_schedule(cfg, hooks, model, loader)
        warnings += check_data(loader, model, _iterations(cfg))
        notes += _fill(model, given=teacher_ckpt is not None)
        warnings += filter(None, [tell_names(model, _classes(loader), cfg.model)])
        if place.type == 'cpu':
            batch = _fewer_images(batch, notes)
        if cfg.get('load_from'):
            notes.append(f'load_from={cfg.load_from!r} is not read here.')
        progress('one step, forward and backward')
        return _look(model.to(place), batch, cfg, amp, warnings, notes)


def _loader(cfg: Config) -> DataLoader:
    """The loader of the training, for this process."""
    loader = copy.deepcopy(cfg.get('train_dataloader'))
    if not loader:
        raise ValueError('it has no train_dataloader, so there is no batch to look at.')
    # Processes and what they need would take longer than the batch.
    loader.num_workers = 0
    for key in ('persistent_workers', 'prefetch_factor', 'pin_memory'):
        loader.pop(key, None)
    seed = (cfg.get('randomness') or {}).get('seed') or 0
    loader = Runner.build_dataloader(loader, seed=seed)
    check_length(loader)
    if hasattr(loader, 'collate_fn'):
        loader.collate_fn = NamingCollate(loader.collate_fn)
    return loader


def _log_processor(cfg: Config) -> LogProcessor:
    """What the logger of the training writes with."""
    found = cfg.get('log_processor') or {}
    if isinstance(found, LogProcessor):
        return found
    return LOG_PROCESSORS.build({'type': 'LogProcessor', **found})


def _iterations(cfg: Config) -> float:
    """The batches that the training takes; infinity where it counts epochs."""
    most = (cfg.get('train_cfg') or {}).get('max_iters')
    return math.inf if most is None or loops_by_epoch(cfg) else most


def _classes(loader: DataLoader) -> Sequence[str] | None:
    return dataset_meta(loader.dataset).get('classes')


def _one_batch(loader: DataLoader) -> Any:
    """A batch of the training pipeline."""
    batch = next(iter(loader), None)
    if batch is None:
        raise ValueError('its training set gives no batch: see `batch_size`.')
    return batch


def _hooks(cfg: Config) -> Iterator[Hook]:
    """Build the hooks of the training that need no runner for that."""
    # The runner's own, unless the config says None.
    named = {'logger': dict(type='LoggerHook'), **(cfg.get('default_hooks') or {})}
    defaults = filter(None, named.values())
    own = [hook for hook in defaults if not isinstance(hook, dict) or _is_known(hook)]
    for hook in copy.deepcopy([*own, *(cfg.get('custom_hooks') or [])]):
        if isinstance(hook, dict):
            # The runner's, who takes it out as well.
            hook.pop('priority', None)
            hook = HOOKS.build(hook)
        yield hook


def _is_known(hook: dict) -> bool:
    """Whether a hook is MMEngine's or ours: others may ask for a visualizer."""
    kind = hook.get('type')
    kind = HOOKS.get(kind) if isinstance(kind, str) else kind
    module = str(getattr(kind, '__module__', ''))
    return module.partition('.')[0] in ('mmengine', 'mmfakd')


def _check_hooks(
    hooks: Sequence[Hook], cfg: Config, loader: DataLoader, model: FeatureDistill
) -> list[str]:
    """Refuse what would end the training later, as its hook does; say what else is."""
    check_mean_teacher(hooks)
    epochs = count_epochs(cfg)
    check_later_mixing(model.distiller, hooks, epochs)
    check_switches(hooks, loader.dataset, model.calculate_student_loss, epochs or 1)
    if not getattr(model.distiller, 'ignore_padding', False):
        return []
    return [told] if (told := tell_pad(hooks, loader.dataset)) else []


def _fewer_images(batch: Any, notes: list[str]) -> Any:
    """Take as many images of a batch as a CPU is through with in seconds."""
    inputs = batch.get('inputs') if isinstance(batch, dict) else None
    samples = batch.get('data_samples') if isinstance(batch, dict) else None
    if not isinstance(inputs, (torch.Tensor, list)) or not isinstance(samples, list):
        return batch
    pixels = max(image.shape[-1] * image.shape[-2] for image in inputs)
    count = max(_PIXELS // pixels, 2)
    if count >= len(inputs):
        return batch
    notes.append(
        f'of the {len(inputs)} images of the batch the first {count} are looked at, as '
        'this is a CPU.'
    )
    return {**batch, 'inputs': inputs[:count], 'data_samples': samples[:count]}


def _model(cfg: Config) -> FeatureDistill:
    model = copy.deepcopy(cfg.model)
    if cfg.get('data_preprocessor') is not None:
        # As the runner does.
        model.setdefault('data_preprocessor', cfg.data_preprocessor)
    model = MODELS.build(model)
    if not isinstance(model, FeatureDistill):
        raise ValueError(
            f'its model is a {type(model).__name__}, which does not say whether it '
            'teaches; take mmfakd.FeatureDistill.'
        )
    model.report = True
    return revert_sync_batchnorm(model)


def _fill(model: FeatureDistill, given: bool) -> list[str]:
    """Load weights, as far as they are to be had; say what is not."""
    notes = []
    student = model.architecture
    absent = [
        source
        for source in (model.student_ckpt, *pretrained_from(student))
        if source and not _is_at_hand(source)
    ]
    if absent:
        model.student_ckpt = None
        drop_pretrained(student)
        notes.append(
            f'the student starts at random here: {", ".join(absent)} is not on this '
            'machine, and a check downloads nothing for it.'
        )
    try:
        with one_try():
            model.init_weights()
    except (OSError, RuntimeError) as error:
        teacher = model._teacher
        if given or teacher.has_weights:
            raise
        reason = f"the teacher's weights ({teacher.source}) are not to be had: {error}"
        notes.append(reason)
        teacher.ckpt = model.teacher_ckpt = None
        drop_pretrained(teacher.model)
        model.inherit = []
        model.init_weights()
    return notes


def _look(
    model: FeatureDistill,
    batch: Any,
    cfg: Config,
    amp: bool,
    warnings: list[str],
    notes: list[str],
) -> int:
    """Compute the losses once and print the report."""
    # What is logged from now on is printed below.
    MMLogger.get_current_instance().setLevel(logging.ERROR)
    _note_optimized(model, cfg)
    model.train()
    error = None
    with _precision(model, cfg, amp):
        try:
            model(**model.data_preprocessor(batch, True), mode='loss')
        except ValueError as raised:
            error = raised
    step = model.first_step
    if step is None or (error is not None and not step.errors):
        assert error is not None
        raise error
    step.warnings.extend(warnings)
    print(f'\n{step.text()}')
    for remark in step.remarks('errors', 'warnings'):
        print(remark)
    for note in notes:
        print(f'NOTE: {note}')
    if step.teaches_nothing:
        print('\nIt would teach nothing as it is.')
        return BROKEN
    if step.warnings:
        print('\nIt would teach; see the warnings.')
        return DOUBTFUL
    print('\nNothing is wrong with its first step.')
    return FINE


def _kind_of(wrapper: dict[str, Any]) -> str:
    """Name of an optimizer wrapper's class, without its scope."""
    return short_name(wrapper.get('type', 'OptimWrapper'))


def _note_optimized(model: FeatureDistill, cfg: Config) -> None:
    """Tell the model which weights the optimizer of the config would move."""
    wrapper = copy.deepcopy(cfg.get('optim_wrapper'))
    if not wrapper or _kind_of(wrapper) not in _PLAIN:
        return
    for key in ('loss_scale', 'dtype', 'use_fsdp'):
        wrapper.pop(key, None)
    wrapper.type = 'OptimWrapper'
    note_optimized(model, build_optim_wrapper(model, wrapper))


def _precision(model: nn.Module, cfg: Config, amp: bool) -> Any:
    """Automatic mixed precision as in training; bfloat16 on a CPU."""
    wrapper = cfg.get('optim_wrapper') or {}
    if not amp and _kind_of(wrapper) not in _AMP:
        return nullcontext()
    device = next(model.parameters()).device.type
    default = 'float16' if device == 'cuda' else 'bfloat16'
    dtype = wrapper.get('dtype') or default
    if device == 'cpu':
        dtype = 'bfloat16'
    dtype = getattr(torch, dtype) if isinstance(dtype, str) else dtype
    return torch.autocast(device, dtype=dtype)


def _is_at_hand(source: str) -> bool:
    """Whether weights of the student, perhaps with their part before, are here."""
    try:
        return is_at_hand(source.rpartition(': ')[2])
    except FileNotFoundError as error:
        raise FileNotFoundError(f"the student's weights: {error}") from error


@contextmanager
def _quiet() -> Iterator[None]:
    """A log of what goes wrong that writes no file; a step's place in training."""
    logger = MMLogger.get_instance(f'{_NAME}-{id(object())}', log_level='WARNING')
    start_message_hub(_NAME)
    try:
        yield
    finally:
        logger.setLevel(logging.WARNING)
