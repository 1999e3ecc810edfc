# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""A distillation's config, read in order to evaluate what it trains with."""

from __future__ import annotations

import copy
import os.path as osp
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from inspect import signature

from mmengine.config import Config, ConfigDict
from mmengine.utils import import_modules_from_strings

from mmfakd.checkpoints.student import use_stock_loops
from mmfakd.compat.refused_error import RefusedError
from mmfakd.engine.cfg_options import merge_cfg_options
from mmfakd.engine.check_config import check_sources
from mmfakd.model_zoo.absent import check_installed
from mmfakd.model_zoo.find import config_file
from mmfakd.model_zoo.read_config import read_config
from mmfakd.model_zoo.registered_types import registered_types_only
from mmfakd.models.algorithms import FeatureDistill, TeacherEvaluation
from mmfakd.registry import MODELS

from .read_run import read_run


@contextmanager
def open_distillation(
    config: str,
    teacher_ckpt: str | None = None,
    cfg_options: Sequence[str] | None = None,
    trust: bool = False,
) -> Iterator[Config]:
    """Read the config of a distillation, and name it in what goes wrong with it.

    Args:
        config (str): Path of a config, or its name; or the work dir of a training,
            whose config is read from its log and not run.
        teacher_ckpt (str, optional): The teacher's weights.
        cfg_options (Sequence[str], optional): Overrides of the config.
        trust (bool): Whether a work dir is one's own, so that its config may import
            modules and name any class. Defaults to False.

    Yields:
        Config: The config with these options.

    Raises:
        FileNotFoundError: If there is no such config; near names are listed.
        ValueError: If it cannot be read or describes no distillation, for mistakes
            within the block, or if a work dir is not one's own and to build its models
            could run something.
    """
    if osp.isdir(config):
        run = read_run(config)
        if run.risk and not trust:
            raise ValueError(
                f'{config}: nothing is built from the config in its log: {run.risk}. '
                'If you trust it, give the config itself; `mmfakd plot` takes --trust.'
            )
        cfg = run.config
        if cfg.get('custom_imports'):
            import_modules_from_strings(**cfg.custom_imports)
    else:
        cfg = read_config(config_file(config))
    own = trust or not osp.isdir(config)
    try:
        merge_cfg_options(cfg, cfg_options)
        check_installed(cfg, 'it')
        model = cfg.get('model', {})
        if 'teacher' not in model:
            raise ValueError(
                f'its model, {model.get("type")}, has no teacher; choose a '
                'distillation config (`mmfakd test` evaluates a plain model).'
            )
        if teacher_ckpt is not None:
            model.teacher_ckpt = teacher_ckpt
        check_sources(cfg)
        with nullcontext() if own else registered_types_only():
            yield cfg
    except (ValueError, RefusedError, FileNotFoundError, ModuleNotFoundError) as error:
        raise ValueError(f'{config}: {error}') from error


def evaluation_config(cfg: Config) -> Config:
    """Turn a distillation config into one that evaluates its teacher.

    Args:
        cfg (Config): The distillation config.

    Returns:
        Config: A config for ``Runner.val``.
    """
    cfg = copy.deepcopy(cfg)
    kind = cfg.model.type
    kind = MODELS.get(kind) if isinstance(kind, str) else kind
    if kind is None or not issubclass(kind, FeatureDistill):
        # mmrazor's own algorithms hand the student's batch over as it is.
        cfg.model.teacher_preprocessor = {}
    keys = signature(TeacherEvaluation).parameters
    cfg.model = ConfigDict(
        type='mmfakd.TeacherEvaluation',
        **{key: cfg.model[key] for key in keys if key in cfg.model},
    )
    # mmrazor's would score the teacher once more, with the student's input.
    use_stock_loops(cfg)
    # The student's: averaging, recipes, weights to go on from, web loggers.
    cfg.custom_hooks = []
    # mmpretrain's asks for the training set, even if it draws nothing.
    (cfg.get('default_hooks') or {}).pop('visualization', None)
    cfg.load_from = cfg.visualizer = None
    cfg.resume = False
    return cfg
