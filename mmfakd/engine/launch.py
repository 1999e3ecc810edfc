# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""Training and testing from a config, in one process or several."""

from __future__ import annotations

import os
import os.path as osp
import signal
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import mmengine
import numpy as np
import torch.distributed as dist
from mmengine.config import Config, ConfigDict
from mmengine.device import get_device
from mmengine.evaluator import DumpResults
from mmengine.model import BaseTTAModel
from mmengine.registry import RUNNERS
from mmengine.runner import Runner
from mmengine.utils import apply_to
from torch import Tensor, nn

from mmfakd.checkpoints.class_names import renamed_classes
from mmfakd.checkpoints.fetch import fetch_checkpoint
from mmfakd.checkpoints.load import load_weights
from mmfakd.checkpoints.state_dict import find_state_dict
from mmfakd.checkpoints.student import student_config
from mmfakd.datasets.wrappers import dataset_meta, walk_loaders
from mmfakd.model_zoo.config_sources import config_sources
from mmfakd.model_zoo.find import config_file
from mmfakd.model_zoo.inline_models import inline_models
from mmfakd.model_zoo.outputs import check_outputs
from mmfakd.model_zoo.read_config import read_config
from mmfakd.model_zoo.type_names import short_name, type_name

from .cfg_options import merge_cfg_options
from .check_config import (
    check_model,
    check_parts,
    check_training,
    check_weights,
    tell_starts,
)
from .check_loaders import check_loaders
from .check_stream import explain_stream
from .config_dump import TEST, name_dump
from .cpu_processes import init_cpu_distributed
from .launchers import OPEN_MPI, check_launcher
from .learning_rate import set_rate
from .process_group import end_process_group
from .processes import may_be_restarted
from .resume import prepare_resume
from .runner_kind import check_runner
from .safety import (
    add_safety_hooks,
    drop_absent_hooks,
    hook_configs,
    set_on_hooks,
)
from .signals import end_with_parent
from .tta import add_tta
from .unwrap import unwrapped_model
from .work_dir import (
    check_work_dir,
    clear_folders,
    explain_full_disk,
    is_first_process,
    lock_folders,
)

_NO_TEST_SET = (
    'which a test needs. To test on the images of validation: test_dataloader = '
    'val_dataloader, test_evaluator = val_evaluator, test_cfg = dict().'
)
# What --out may be, by --out-item.
_PICKLES = ('.pkl', '.pickle')
_ENDINGS = dict(pred=_PICKLES, metrics=('.json', '.yml', '.yaml', *_PICKLES))


def train(config: str, **options: Any) -> Callable[[], Any]:
    """Prepare the training of a config's model.

    Args:
        config (str): Path of a config, or its name.
        **options: See :func:`merge_train_options` and :func:`merge_launch_options`.

    Returns:
        Callable: What trains it. What is raised before is a mistake of the user's.

    Raises:
        FileNotFoundError: If there is no such config; near names are listed.
        KeyError: If there is no such optimizer, likewise.
        OSError: If the work dir cannot be written, or another training uses it.
        ValueError: If the config cannot be read or has no model, or an option does not
            go with it.
    """
    cfg = merge_train_options(read_config(config_file(config)), **options)
    check_training(cfg)
    inline_models(cfg)
    add_safety_hooks(cfg)
    overrides = ' '.join(options.get('cfg_options') or ())
    given = options.get('teacher_ckpt') is not None or 'teacher_ckpt' in overrides
    # Of a folder that another training uses nothing is read, noted or moved. What goes
    # wrong gives the locks back.
    with ExitStack() as stack:
        stack.enter_context(lock_folders(cfg))
        prepare_resume(cfg, teacher_given=given)
        tell_starts(cfg)
        clear_folders(cfg)
        locks = stack.pop_all()

    def run() -> Any:
        with locks, explain_full_disk(cfg.work_dir), explain_stream(cfg):
            model = build_runner(cfg).train()
        if dist.is_initialized():
            end_process_group()
        return model

    return run


def test(
    config: str,
    checkpoint: str,
    out: str | None = None,
    out_item: str | None = None,
    **options: Any,
) -> Callable[[], None]:
    """Prepare the evaluation of a checkpoint.

    Args:
        config (str): Path of a config, or its name.
        checkpoint (str): Path, URL or model-zoo name.
        out (str, optional): File for the results.
        out_item (str, optional): ``'metrics'`` or ``'pred'``, the default.
        **options: See :func:`merge_test_options` and :func:`merge_launch_options`.

    Returns:
        Callable: What evaluates it, or raises ValueError if a weight of the model is
        not in the checkpoint, or of another shape there.

    Raises:
        FileExistsError: If the file for the results is one that is read.
        FileNotFoundError: If there is no such config or checkpoint.
        OSError: If the work dir or the file for the results cannot be written.
        ValueError: If something is to be written and no file is given, or one of
            another kind, the config has no test set, or an option does not go with it.
    """
    if out is None and out_item is not None:
        raise ValueError('--out-item needs --out, the file to write.')
    _check_results_name(out, out_item or 'pred')
    file = config_file(config)
    # Other machines need not have the folder: one process writes.
    written = [out] if is_first_process(options) else []
    check_outputs(True, written, [checkpoint, *config_sources(file)])
    cfg = merge_test_options(read_config(file), checkpoint, **options)
    check_parts(cfg, ('test_dataloader', 'test_cfg', 'test_evaluator'), _NO_TEST_SET)
    check_work_dir(cfg)

    def evaluate() -> None:
        runner = build_runner(cfg, TEST)
        _load_all(runner, checkpoint)
        _tell_renamed(runner, checkpoint)
        if out and out_item != 'metrics':
            runner.test_evaluator.metrics.append(DumpResults(out_file_path=out))
        metrics = runner.test()
        if out and out_item == 'metrics':
            mmengine.dump(_as_lists(metrics, out), out)

    return evaluate


def _as_lists(metrics: dict, out: str) -> dict:
    """Make lists of tensors and arrays, such as a confusion matrix, for texts."""
    if out.endswith(_PICKLES):
        return metrics
    kinds = (Tensor, np.ndarray, np.generic)
    return apply_to(metrics, lambda m: isinstance(m, kinds), lambda m: m.tolist())


def _check_results_name(out: str | None, item: str) -> None:
    """Refuse an ending that MMEngine would, after all is evaluated."""
    if out is not None and not out.endswith(_ENDINGS[item]):
        other = 'metrics' if item == 'pred' else 'pred'
        raise ValueError(
            f'--out {out}: --out-item {item} is written to a file whose name ends in '
            f'{", ".join(_ENDINGS[item])}. --out-item {other} has '
            f'{", ".join(_ENDINGS[other])}.'
        )


def _load_all(runner: Runner, checkpoint: str) -> None:
    """Refuse weights that leave a part of the tested model at random.

    MMEngine, which loads them again, tells so in the log, and scores what is left.
    """
    load_weights(_tested_models(runner)[1], checkpoint, 'model')


def _tested_models(runner: Runner) -> tuple[Any, Any]:
    """The model that is tested as a whole, and the student where that has one."""
    model: Any = unwrapped_model(runner)
    if isinstance(model, BaseTTAModel):
        model = model.module
    student = getattr(model, 'architecture', None)
    return model, student if isinstance(student, nn.Module) else model


def _tell_renamed(runner: Runner, checkpoint: str) -> None:
    """Warn of labels that are other classes than those of the training."""
    whole, tested = _tested_models(runner)
    labelled = getattr(whole, 'calculate_student_loss', True)
    if not labelled or hasattr(tested, 'prototype'):
        # Images without labels, and those of mmpretrain's retrievers, which look one up
        # among others, may be of other classes.
        return
    for loader in walk_loaders(getattr(runner.test_loop, 'dataloader', None)):
        classes = dataset_meta(loader.dataset).get('classes')
        renamed = renamed_classes(checkpoint, classes, 'the test set')
        if renamed:
            runner.logger.warning(
                f'{checkpoint}: {renamed}. Scores compare labels. If only the words '
                'differ, all is well; else the score is wrong: give the test set the '
                'classes of the checkpoint, in its order. Where folders are classes, '
                'one that is missing moves the labels of those behind it.'
            )


def merge_train_options(
    cfg: Config,
    resume: str | None = None,
    amp: bool = False,
    no_validate: bool = False,
    auto_scale_lr: bool = False,
    seed: int | None = None,
    teacher_ckpt: str | None = None,
    student_ckpt: str | None = None,
    lr: float | None = None,
    allow_changes: bool = False,
    **options: Any,
) -> Config:
    """Put the options of a training into its config.

    Args:
        cfg (Config): The config as read.
        resume (str, optional): Checkpoint to resume from; ``'auto'`` for the last.
        amp (bool): Whether to train with automatic mixed precision.
        no_validate (bool): Whether not to evaluate while training.
        auto_scale_lr (bool): Whether to scale the learning rate by the batch size.
        seed (int, optional): Random seed.
        teacher_ckpt (str, optional): The teacher's weights.
        student_ckpt (str, optional): Weights that the student starts from.
        lr (float, optional): Learning rate, also of a training that is resumed.
        allow_changes (bool): Whether to resume with another teacher or distiller.
        **options: See :func:`merge_launch_options`.

    Returns:
        Config: The same config, changed.

    Raises:
        ValueError: If an option does not go with the config.
    """
    merge_launch_options(cfg, **options)
    if no_validate:
        cfg.val_cfg = cfg.val_dataloader = cfg.val_evaluator = None
        for hook in hook_configs(cfg):
            # Nobody waits for a best checkpoint then.
            hook.pop('save_best', None)
    if amp:
        _require(cfg, 'optim_wrapper', '--amp')
        _add_amp(cfg.optim_wrapper)
    # What a config itself resumes from is taken as `--resume PATH` is.
    named = cfg.get('resume') is True and cfg.get('load_from')
    if resume is None and may_be_restarted() and not named:
        resume = 'auto'
    if resume == 'auto':
        # `load_from` is kept, for a training that has nothing to go on from.
        cfg.resume = resume
    elif resume is not None:
        cfg.resume, cfg.load_from = True, resume
    if auto_scale_lr:
        if 'base_batch_size' not in (cfg.get('auto_scale_lr') or {}):
            raise ValueError(
                '--auto-scale-lr: the config has no '
                '`auto_scale_lr = dict(base_batch_size=...)`; add the total batch '
                'size that its learning rate is meant for.'
            )
        cfg.auto_scale_lr.enable = True
    if lr is not None:
        _require(cfg, 'optim_wrapper', '--lr')
        set_rate(cfg, lr)
    if allow_changes:
        set_on_hooks(cfg, 'provenance', allow_changes=True)
    if seed is not None:
        cfg.randomness = ConfigDict(cfg.get('randomness') or {}, seed=seed)
    weights = dict(teacher_ckpt=teacher_ckpt, student_ckpt=student_ckpt)
    check_weights(**weights)
    for name in [name for name, value in weights.items() if value is not None]:
        check_model(cfg)
        if 'teacher' not in cfg.model:
            raise ValueError(
                f'--{name.replace("_", "-")}: the model of {cfg.filename}, '
                f'{cfg.model.get("type")}, has no teacher; choose a distillation '
                'config, or start a plain model with `--cfg-options load_from=...`.'
            )
        cfg.model[name] = weights[name]
    return cfg


def _require(cfg: Config, key: str, option: str) -> None:
    """Refuse an option for a part that a config does not have."""
    if not isinstance(cfg.get(key), dict):
        raise ValueError(
            f'{option}: {cfg.filename or "the config"} has {key}={cfg.get(key)!r}; '
            'expected a dict. Add it, or leave the option out. Does the config lack '
            'its `_base_`?'
        )


def _add_amp(wrapper: ConfigDict) -> None:
    """Ask for mixed precision, of the kind that this machine has."""
    if get_device() == 'cpu':
        wrapper.type = 'mmfakd.CpuAmpOptimWrapper'
        wrapper.pop('loss_scale', None)
    else:
        wrapper.type = 'AmpOptimWrapper'
        wrapper.setdefault('loss_scale', 'dynamic')


def merge_test_options(
    cfg: Config,
    checkpoint: str,
    amp: bool = False,
    show: bool = False,
    show_dir: str | None = None,
    tta: bool = False,
    cfg_options: Sequence[str] | None = None,
    **options: Any,
) -> Config:
    """Put the options of a test into its config.

    Args:
        cfg (Config): The config as read.
        checkpoint (str): What is tested.
        amp (bool): Whether to evaluate with automatic mixed precision.
        show (bool): Whether to show predictions in a window.
        show_dir (str, optional): Folder for pictures of the predictions.
        tta (bool): Whether to average over augmented images.
        cfg_options (Sequence[str], optional): Overrides, ``'key=value'`` each.
        **options: See :func:`merge_launch_options`.

    Returns:
        Config: The config to run: for a plain student file that of the student.

    Raises:
        ValueError: If the config has no model, pictures are asked for and it has no
            hook for them, augmented images and it does not say how, mixed precision
            and it has no ``test_cfg``, or a loader has a number that cannot be.
    """
    merge_cfg_options(cfg, cfg_options)
    check_model(cfg)
    check_loaders(cfg, 'test_dataloader')
    if 'architecture' in cfg.model:
        weights = find_state_dict(fetch_checkpoint(checkpoint), checkpoint)
        if not any(key.startswith('architecture.') for key in weights):
            cfg = student_config(cfg)
    merge_launch_options(cfg, **options)
    cfg.load_from = checkpoint
    cfg.resume = False
    if amp:
        _require(cfg, 'test_cfg', '--amp')
        cfg.test_cfg.fp16 = True
    if tta:
        add_tta(cfg)
    if show or show_dir is not None:
        hook = cfg.get('default_hooks', {}).get('visualization')
        if hook is None:
            raise ValueError(
                '--show, --show-dir: the config has no `default_hooks.visualization`; '
                "add dict(type='VisualizationHook') of mmpretrain or "
                "dict(type='DetVisualizationHook') of mmdet or "
                "dict(type='SegVisualizationHook') of mmseg."
            )
        kind = type_name(hook)
        if 'Det' in kind:
            hook.draw, hook.show, hook.test_out_dir = True, show, show_dir
        elif 'Seg' in kind:
            # Its pictures go where its visualizer writes.
            hook.draw, hook.show, hook.interval = True, show, 1
            cfg.visualizer.save_dir = show_dir
        else:
            hook.enable, hook.show, hook.out_dir = True, show, show_dir
            # Else one image of 5000, as in a training.
            hook.setdefault('interval', 1)
    return cfg


def merge_launch_options(
    cfg: Config,
    work_dir: str | None = None,
    cfg_options: Sequence[str] | None = None,
    launcher: str = 'none',
    local_rank: int = 0,
) -> None:
    """Put what every run has of options into a config.

    Args:
        cfg (Config): The config, changed in place.
        work_dir (str, optional): Folder for logs. Defaults to None: the config's, or
            one that is named after its file.
        cfg_options (Sequence[str], optional): Overrides, ``'key=value'`` each.
        launcher (str): What started the processes.
        local_rank (int): Number of this process on its machine.

    Raises:
        ValueError: If the launcher has not started this process, or an override or the
            work dir is wrong.
    """
    check_launcher(launcher)
    # First, so that what follows meets the final config.
    merge_cfg_options(cfg, cfg_options)
    if launcher == 'mpi' and OPEN_MPI['LOCAL_RANK'] in os.environ:
        # MMEngine chooses the GPU by it, and DDP's by torch's name, which mpirun lacks.
        os.environ['LOCAL_RANK'] = os.environ[OPEN_MPI['LOCAL_RANK']]
    os.environ.setdefault('LOCAL_RANK', str(local_rank))
    if 'TORCHELASTIC_RUN_ID' in os.environ:
        end_with_parent(signal.SIGTERM)
    check_runner(cfg.get('runner_type'))
    cfg.launcher = launcher
    if work_dir is not None:
        if not work_dir.strip():
            raise ValueError('--work-dir is empty; give a folder, or leave it out.')
        cfg.work_dir = work_dir
    elif cfg.get('work_dir') is None:
        cfg.work_dir = osp.join('./work_dirs', Path(cfg.filename).stem)
    # No shell puts a home in place of the `~` of a config.
    cfg.work_dir = osp.expanduser(cfg.work_dir)


def build_runner(cfg: Config, run: str = '') -> Runner:
    """Build the runner of a config, on CPU with several processes if asked for.

    Args:
        cfg (Config): The whole config.
        run (str): What it is for, see :func:`~.config_dump.name_dump`. Defaults to
            ``''``: a training.

    Returns:
        Runner: MMEngine's, or that of ``runner_type``.
    """
    drop_absent_hooks(cfg)
    _settle_loop(cfg)
    init_cpu_distributed(cfg)
    name_dump(cfg, run)
    return RUNNERS.build(cfg) if 'runner_type' in cfg else Runner.from_cfg(cfg)


def _settle_loop(cfg: Config) -> None:
    """Let a loop's class say alone how it counts, where `by_epoch` says the same.

    MMEngine refuses both, and has them in some of mmdet's own configs (SOLOv2-light),
    which inherit the one and add the other.
    """
    loop = cfg.get('train_cfg') or {}
    counts = dict(EpochBasedTrainLoop=True, IterBasedTrainLoop=False)
    said = counts.get(short_name(loop.get('type', '')))
    if said is not None and loop.get('by_epoch') is said:
        del loop['by_epoch']
