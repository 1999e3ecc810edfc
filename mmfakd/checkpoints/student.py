# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""A stock model's checkpoint out of a distillation checkpoint."""

from __future__ import annotations

import copy
import logging
from collections import OrderedDict
from collections.abc import Callable, Mapping, MutableMapping
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from mmengine.config import Config
from mmengine.logging import print_log
from torch import Tensor, nn

from mmfakd.model_zoo.outputs import check_config_name, check_outputs
from mmfakd.model_zoo.resolve import (
    TEACHER_IMPORTS,
    imported,
    innermost,
    resolve_model_cfg,
)
from mmfakd.model_zoo.type_names import full_type_name

from .config_text import read_config_text
from .fetch import fetch_checkpoint
from .first_meta import first_meta
from .image_files import take_image_files
from .state_dict import fits_little, some, tensor_shapes, without_wrappers
from .write import write_weights, writes_safetensors

# Of a student's weights among those of its distillation.
PREFIX = 'architecture.'
_LIBRARIES = ('mmfakd', 'mmrazor')
_VISUALIZERS = dict(mmdet='DetLocalVisualizer', mmseg='SegLocalVisualizer')


def export_student(checkpoint: dict, own: bool = False) -> dict:
    """Turn a distillation checkpoint into one of the stock student.

    The prefix ``architecture.`` is stripped (the prefix, not every occurrence);
    teacher, connectors, optimizer and schedulers stay behind. Where an averaged
    model (EMA) was trained, its weights are the exported ones: MMEngine's
    ``EMAHook`` stores them under ``state_dict``.

    Args:
        checkpoint (dict): A checkpoint of ``FeatureDistill`` or of an mmrazor
            distillation algorithm.
        own (bool): Whether it is of a training that runs now: only then files are run
            that its config names by ``cfg_path``. Defaults to False.

    Returns:
        dict: ``state_dict`` of the student; ``meta`` with ``dataset_meta`` and, as
        ``cfg``, a config of the stock student, so that inferencers of mmpretrain,
        mmdet and mmseg work from the file alone (no ``cfg`` if the checkpoint holds no
        config of the model, or one with more than plain values, which is never run).
        It loads under ``weights_only``.

    Raises:
        ValueError: If the checkpoint holds no student, or something else where weights
            and ``meta`` are expected.
    """
    state_dict, meta = _parts(checkpoint)
    student = student_state_dict(state_dict)
    if not student:
        raise ValueError(
            f'No key begins with {PREFIX!r}: got {some(state_dict)}. Expected a '
            'checkpoint of a distillation run; one of a plain model needs no export.'
        )
    return _exported(student, meta, 'architecture', own)


def export_plain(checkpoint: dict) -> dict:
    """Turn a checkpoint of a plain model, such as a teacher, into one for others.

    Args:
        checkpoint (dict): A checkpoint of a training without distillation.

    Returns:
        dict: As :func:`export_student` makes it.

    Raises:
        ValueError: If it holds something else where weights and ``meta`` are expected.
    """
    return _exported(*_parts(checkpoint), 'type')


def _parts(checkpoint: dict) -> tuple[OrderedDict[str, Tensor], Mapping]:
    """Weights under the names of the model itself, and the meta information."""
    state_dict = checkpoint.get('state_dict', checkpoint)
    named = isinstance(state_dict, Mapping) and all(
        isinstance(key, str) for key in state_dict
    )
    if not named:
        what = f'a {type(state_dict).__name__}'
        if isinstance(state_dict, Mapping):
            what = f'one with the keys {some(map(repr, state_dict))}'
        raise ValueError(
            f'The state dict is {what}; expected tensors by their names. Give the file '
            'as it was saved in training.'
        )
    meta = checkpoint.get('meta') or {}
    if not isinstance(meta, Mapping):
        raise ValueError(
            f"'meta' is a {type(meta).__name__}; expected a dict, as MMEngine writes "
            'it, or none. Give the file as it was saved in training.'
        )
    return without_wrappers(state_dict), meta


def _is_plain(checkpoint: dict) -> bool:
    """Tell whether a checkpoint says itself that it is one of a plain model."""
    state_dict, meta = _parts(checkpoint)
    if student_state_dict(state_dict):
        return False
    text = meta.get('cfg')
    model = read_config_text(text).get('model') if isinstance(text, str) else None
    return isinstance(model, dict) and 'type' in model and 'architecture' not in model


def _exported(
    state_dict: Mapping[str, Tensor],
    old_meta: Mapping[str, Any],
    needed: str,
    own: bool = False,
) -> dict:
    """Weights with what others need of the meta; `needed` tells a config's model."""
    kept = ('epoch', 'iter', 'seed', 'time', 'experiment_name', 'mmengine_version')
    meta = {key: old_meta[key] for key in kept if key in old_meta}
    # Inferencers take no list.
    meta['dataset_meta'] = _plain(first_meta(old_meta.get('dataset_meta')))
    cfg = _stock_config_text(old_meta.get('cfg', ''), needed, own)
    if cfg is not None:
        meta['cfg'] = cfg
    return dict(meta=meta, state_dict=state_dict)


def export_file(
    checkpoint: str,
    out: str,
    config_out: str | None = None,
    file_format: str | None = None,
    force: bool = False,
    describe: Callable[[Config], dict] | None = None,
) -> str:
    """Export the student of a checkpoint file.

    Args:
        checkpoint (str): Distillation checkpoint, or one of a plain model with its
            config, such as an exported student: path, URL or model-zoo name.
        out (str): File to write.
        config_out (str, optional): File for the stock student's config.
        file_format (str, optional): ``'pth'`` or ``'safetensors'``. By default what
            the file's name ends with.
        force (bool): Whether to overwrite files.
        describe (Callable, optional): Turns the stock student's config into what a
            file of safetensors says as ``preprocessing``, or raises ValueError.

    Returns:
        str: What was written.

    Raises:
        FileExistsError: If a file exists, or is the checkpoint.
        ValueError: If the checkpoint holds no student, or something else where
            weights and ``meta`` are expected, or no config where one is asked for.
    """
    check_config_name(config_out)
    check_outputs(force, [out, config_out], [checkpoint])
    try:
        loaded = fetch_checkpoint(checkpoint)
        student = export_plain(loaded) if _is_plain(loaded) else export_student(loaded)
    except ValueError as error:
        raise ValueError(f'{checkpoint}: {error}') from error
    if config_out and 'cfg' not in student['meta']:
        raise ValueError(
            f'{checkpoint}: it holds no config of its model that could be written to '
            f'{config_out}. Leave --config-out away.'
        )
    note = ''
    if describe is not None and writes_safetensors(out, file_format):
        try:
            text = read_config_text(student['meta'].get('cfg', 'model = dict()'))
            student['meta']['preprocessing'] = describe(text)
        except ValueError as error:
            note = f'\nThe file does not say how images are prepared: {error}'
    write_weights(student, out, file_format)
    shapes = tensor_shapes(student['state_dict'])
    count = sum(shape.numel() for shape in shapes.values())
    written = f'{out}: {len(shapes)} tensors, {count:,} values.'
    if config_out:
        Path(config_out).parent.mkdir(parents=True, exist_ok=True)
        read_config_text(student['meta']['cfg']).dump(config_out)
        written += f'\n{config_out}: its config.'
    return written + note


def student_state_dict(state_dict: Mapping[str, Tensor]) -> OrderedDict[str, Tensor]:
    """Take the student's tensors out of those of a distillation algorithm.

    Args:
        state_dict (Mapping[str, Tensor]): Of the algorithm, tensors of any shape.

    Returns:
        OrderedDict[str, Tensor]: The tensors whose key begins with
        ``architecture.``, without that prefix; empty if there are none. The layout
        versions of the modules, as ``Module.state_dict`` attaches them, are kept.
    """
    student = _without_prefix(state_dict)
    versions = _without_prefix(getattr(state_dict, '_metadata', {}))
    student._metadata = versions  # type: ignore[attr-defined]
    return student


def take_student(
    state_dict: MutableMapping[str, Tensor], prefix: str, model: nn.Module
) -> None:
    """Let a distillation take the weights of a plain student as its student's.

    Args:
        state_dict (MutableMapping[str, Tensor]): What is about to be loaded; names of
            a plain student become the distillation's.
        prefix (str): What stands before the names of the distillation.
        model (nn.Module): The distillation.

    Raises:
        ValueError: If it fits neither the distillation nor its student.
    """
    given = {k[len(prefix) :]: k for k in state_dict if k.startswith(prefix)}
    own = model.state_dict()
    if not given or any(key in own for key in given if not key.startswith(PREFIX)):
        return
    distilled = any(key.startswith(PREFIX) for key in given)
    names = {
        key if distilled else f'{PREFIX}{key}': whole
        for key, whole in given.items()
        if not distilled or key.startswith(PREFIX)
    }
    shapes = tensor_shapes({key: state_dict[whole] for key, whole in names.items()})
    student = {k: v for k, v in tensor_shapes(own).items() if k.startswith(PREFIX)}
    if fits_little(shapes, student):
        fitting = sum(student.get(key) == shape for key, shape in shapes.items())
        kind = type(model).__name__
        raise ValueError(
            f'{fitting} of the {len(shapes)} tensors of the checkpoint fit the student '
            f'of the {kind}, which has {len(student)}: it is of another model. It has '
            f'{some(given)}; the student has {some(k[len(PREFIX) :] for k in student)}'
            '. Choose a checkpoint of the student, and give it as `student_ckpt` '
            '(`mmfakd train --student-ckpt`), which checks it, instead of `load_from`; '
            'that of a teacher is `teacher_ckpt` (`--teacher-ckpt`).'
        )
    if distilled:
        return
    for key, whole in names.items():
        state_dict[f'{prefix}{key}'] = state_dict.pop(whole)
    # By these the modules know older layouts of theirs.
    versions = getattr(state_dict, '_metadata', None) or {}
    versions.update({f'{PREFIX}{key}': value for key, value in versions.items()})
    print_log(
        f'The checkpoint is that of a plain model: {len(names)} tensors are taken for '
        f'the student of the {type(model).__name__}.',
        logger='current',
    )


def _without_prefix(named: Mapping[str, Any]) -> OrderedDict[str, Any]:
    """What stands under the prefix, the student itself as ``''``."""
    return OrderedDict(
        (key[len(PREFIX) :], value)
        for key, value in named.items()
        if f'{key}.'.startswith(PREFIX)
    )


# A run writes many checkpoints with one config, whose formatting takes a while.
@lru_cache(maxsize=1)
def _stock_config_text(text: str, needed: str, own: bool) -> str | None:
    try:
        cfg = read_config_text(text)
        # A runner that was built from objects has no config of its model.
        if needed not in cfg.get('model', {}):
            return None
        return stock_config(cfg, files=own).pretty_text
    except (FileNotFoundError, ValueError) as error:
        print_log(
            f'The student file gets no config. {error}',
            logger='current',
            level=logging.WARNING,
        )
        return None


def _plain(value: Any) -> Any:
    """Turn configs and arrays into what ``weights_only`` loads everywhere."""
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(_plain(item) for item in value)
    return value.tolist() if isinstance(value, (np.ndarray, np.generic)) else value


def student_config(cfg: Config, files: bool = True) -> Config:
    """Turn a distillation config into a config of the stock student.

    Args:
        cfg (Config): A config whose model has an ``architecture``.
        files (bool): Whether files are run that it names by ``cfg_path``.

    Returns:
        Config: The same with the student as its model; hooks and imports of mmfakd
        and mmrazor, and what says how the distillation was run, are gone.

    Raises:
        ValueError: If the model has no ``architecture``, or it is that of a file that
            may not be run.
    """
    if 'architecture' not in cfg.get('model', {}):
        raise ValueError(
            'The config describes no distillation: `model.architecture` is missing. '
            f'Its model has the keys {sorted(cfg.get("model", {}))}.'
        )
    return stock_config(cfg, files)


def stock_config(cfg: Config, files: bool = True) -> Config:
    """Turn a config into one that the stock libraries read.

    Args:
        cfg (Config): Of a distillation, or of a plain model.
        files (bool): Whether files are run that it names by ``cfg_path``.

    Returns:
        Config: That of the student, or of the model; what is mmfakd's and mmrazor's
        alone, and what says how the training was run, is gone. Its test pipeline takes
        image files where the data set is arrays of mmfakd.
    """
    cfg = copy.deepcopy(cfg)
    outer = cfg.model.get('data_preprocessor') or cfg.get('data_preprocessor')
    model = cfg.model.get('architecture', cfg.model)
    model, _ = resolve_model_cfg(model, outer, files)
    scope = model.pop('_scope_', None)
    default_scope = cfg.get('default_scope')
    if default_scope in (*_LIBRARIES, 'mmengine', None):
        scope = scope or _library(model)
        if scope:
            cfg.default_scope = scope
    elif scope not in (default_scope, None):
        model['_scope_'] = scope
    inner = innermost(model)
    if inner.get('_scope_', cfg.get('default_scope')) == 'mmpretrain':
        _name_for_mmpretrain(inner.get('data_preprocessor') or {})
    cfg.model = model
    take_image_files(cfg)
    visualizer = _VISUALIZERS.get(cfg.get('default_scope'))
    if visualizer is not None and cfg.get('visualizer') is None:
        # Inferencers cannot do without, even if nothing is drawn.
        cfg.visualizer = dict(type=visualizer, name='visualizer')
    if cfg.get('default_scope') == 'mmseg' and 'test_pipeline' not in cfg:
        # A variable of mmseg's own configs, which its `inference_model` reads.
        tested = (cfg.get('test_dataloader') or {}).get('dataset') or {}
        if 'pipeline' in tested:
            cfg.test_pipeline = copy.deepcopy(tested['pipeline'])
    if 'custom_hooks' in cfg:
        cfg.custom_hooks = [
            h for h in cfg.custom_hooks if _library(h) not in _LIBRARIES
        ]
    for name, hook in list(cfg.get('default_hooks', {}).items()):
        if 'SafeCheckpointHook' in str((hook or {}).get('type')):
            hook['type'] = 'CheckpointHook'
        elif _library(hook or {}) in _LIBRARIES:
            cfg.default_hooks.pop(name)
    imports = cfg.pop('custom_imports', None) or {}
    not_needed = cfg.pop(TEACHER_IMPORTS, ())
    foreign = [
        name
        for name in imported(imports)
        if name.split('.')[0] not in _LIBRARIES and name not in not_needed
    ]
    if foreign:
        cfg.custom_imports = dict(imports, imports=foreign)
    use_stock_loops(cfg)
    # How the distillation was run says nothing of the student.
    for key in ('launcher', 'load_from', 'model_wrapper_cfg', 'resume'):
        cfg.pop(key, None)
    return cfg


def _name_for_mmpretrain(preprocessor: dict) -> None:
    """Rename what MMEngine's general preprocessor calls otherwise.

    mmrazor's configs put that one around the student; mmpretrain's classifiers take
    only their own.
    """
    if str(preprocessor.get('type', '')).endswith('ImgDataPreprocessor'):
        for key in ('type', 'non_blocking'):
            preprocessor.pop(key, None)
        swaps = [preprocessor.pop(key, False) for key in ('bgr_to_rgb', 'rgb_to_bgr')]
        preprocessor['to_rgb'] = any(swaps)


def use_stock_loops(cfg: Config) -> None:
    """Let validation and test run in MMEngine's loops, not in those of distillations.

    mmrazor's ``SingleTeacherDistillValLoop`` scores a teacher, too.

    Args:
        cfg (Config): The config, changed in place.
    """
    for key in ('val_cfg', 'test_cfg'):
        loop = cfg.get(key) or {}
        # Without its library where the config's default scope is mmrazor's.
        distils = 'SingleTeacherDistillValLoop' in str(loop.get('type'))
        if distils or _library(loop) in _LIBRARIES:
            loop.pop('type')


def _library(cfg: Mapping) -> str | None:
    """The library that the prefix of a type, or its class, is of."""
    library, dot, _ = full_type_name(cfg).partition('.')
    return library if dot else None
