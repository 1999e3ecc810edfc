# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""A stock model's checkpoint out of a distillation checkpoint."""

from __future__ import annotations

import copy
from collections import OrderedDict

from mmengine.config import Config

from mmfakd.utils.resolve_model_cfg import resolve_model_cfg

_PREFIX = 'architecture.'


def export_student(checkpoint: dict) -> dict:
    """Turn a distillation checkpoint into one of the stock student.

    The prefix ``architecture.`` is stripped (the prefix, not every occurrence);
    teacher, connectors, optimizer and schedulers stay behind. Where an averaged
    model (EMA) was trained, its weights are the exported ones: MMEngine's
    ``EMAHook`` stores them under ``state_dict``.

    Args:
        checkpoint (dict): A checkpoint of ``FeatureDistill`` or of an mmrazor
            distillation algorithm.

    Returns:
        dict: ``state_dict`` of the student; ``meta`` with ``dataset_meta`` and, as
        ``cfg``, a config of the stock student, so that inferencers of mmpretrain and
        mmdet work from the file alone. It loads under ``weights_only``.

    Raises:
        ValueError: If the checkpoint holds no student.
    """
    state_dict = checkpoint.get('state_dict', checkpoint)
    student = OrderedDict(
        (key[len(_PREFIX) :], value)
        for key, value in state_dict.items()
        if key.startswith(_PREFIX)
    )
    if not student:
        shown = ', '.join(list(state_dict)[:5])
        raise ValueError(
            f'No key begins with {_PREFIX!r}: got {shown} ... Expected a checkpoint '
            'of a distillation run; a checkpoint of a plain model needs no export.'
        )
    old_meta = checkpoint.get('meta', {})
    kept = ('epoch', 'iter', 'seed', 'time', 'experiment_name', 'mmengine_version')
    meta = {key: old_meta[key] for key in kept if key in old_meta}
    meta['dataset_meta'] = old_meta.get('dataset_meta', {})
    if 'cfg' in old_meta:
        cfg = Config.fromstring(old_meta['cfg'], file_format='.py')
        meta['cfg'] = student_config(cfg).pretty_text
    return dict(meta=meta, state_dict=student)


def student_config(cfg: Config) -> Config:
    """Turn a distillation config into a config of the stock student.

    Args:
        cfg (Config): A config whose model has an ``architecture``.

    Returns:
        Config: The same with the student as its model; hooks and imports of mmfakd
        and mmrazor are gone.

    Raises:
        ValueError: If the model has no ``architecture``.
    """
    cfg = copy.deepcopy(cfg)
    if 'architecture' not in cfg.get('model', {}):
        raise ValueError(
            'The config describes no distillation: `model.architecture` is missing. '
            f'Its model has the keys {sorted(cfg.get("model", {}))}.'
        )
    outer = cfg.model.get('data_preprocessor') or cfg.get('data_preprocessor')
    model, _ = resolve_model_cfg(cfg.model.architecture, outer)
    scope = model.pop('_scope_', None)
    if scope is not None and scope != cfg.get('default_scope'):
        if cfg.get('default_scope') in ('mmrazor', 'mmfakd', 'mmengine', None):
            cfg.default_scope = scope
        else:
            model['_scope_'] = scope
    cfg.model = model
    if 'custom_hooks' in cfg:
        cfg.custom_hooks = [h for h in cfg.custom_hooks if not _is_ours(h)]
    for name, hook in list(cfg.get('default_hooks', {}).items()):
        if hook is not None and _is_ours(hook):
            cfg.default_hooks.pop(name)
    imports = cfg.get('custom_imports', {}).get('imports', [])
    imports = [imports] if isinstance(imports, str) else list(imports)
    foreign = [name for name in imports if name.split('.')[0] not in _LIBRARIES]
    if foreign:
        cfg.custom_imports.imports = foreign
    else:
        cfg.pop('custom_imports', None)
    return cfg


_LIBRARIES = ('mmfakd', 'mmrazor')


def _is_ours(cfg: dict) -> bool:
    return str(cfg.get('type', '')).split('.')[0] in _LIBRARIES


__all__ = ['export_student', 'student_config']
