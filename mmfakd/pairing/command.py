# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""Write a distillation config for two models of mmpretrain, mmdet or mmseg."""

from __future__ import annotations

import os
import os.path as osp
import shlex
import tempfile
from collections.abc import Sequence
from itertools import chain
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config
from mmengine.logging import MMLogger
from mmengine.registry import MODELS, DefaultScope

import mmfakd.models  # noqa: F401
from mmfakd.checkpoints.atomic import whole_file
from mmfakd.engine.check_config import check_weights
from mmfakd.messages import progress
from mmfakd.model_zoo.config_sources import config_sources
from mmfakd.model_zoo.find import config_file
from mmfakd.model_zoo.outputs import (
    check_config_name,
    check_outputs,
    explain_unwritten,
)
from mmfakd.model_zoo.resolve import resolve_model_cfg

from .notes import about_checkpoints, describe_pairs, write_notes
from .pair import make_pair
from .render import write_config


def write_pair(
    student: str,
    teacher: str,
    out: str,
    command: Sequence[str] = (),
    force: bool = False,
    **options: Any,
) -> str:
    """Examine two models and write the config of their distillation.

    Args:
        student (str): Config or model-zoo name of the student.
        teacher (str): The same of the teacher.
        out (str): The config to write.
        command (Sequence[str]): The words of the command, for a comment.
        force (bool): Whether to overwrite the config.
        **options: ``method``, ``levels``, ``input_size``, ``teacher_ckpt``,
            ``student_ckpt``, ``loss_weight``, ``warmup`` and ``inherit`` of
            :func:`~mmfakd.pairing.pair.make_pair`.

    Returns:
        str: What is in the config.

    Raises:
        FileExistsError: If the config exists, or a model's is made of it.
        FileNotFoundError: If a model is not known.
        OSError: If the config cannot be written.
        ValueError: If the two cannot be a pair, ``out`` is no name of a config, or that
            of a file of weights is empty.
    """
    check_config_name(out)
    check_weights(**{key: options.get(key) for key in ('teacher_ckpt', 'student_ckpt')})
    models = [config_file(name) for name in (student, teacher)]
    check_outputs(force, [out], chain(*map(config_sources, models)))
    MMLogger.get_instance('pair', log_level='ERROR')
    # The same file wherever it is written to.
    where = {out, '-o', '--out', f'-o{out}', f'--out={out}', '--force'}
    comment = shlex.join(word for word in command if word not in where)
    plan = make_pair(student, teacher, command=comment, **options)
    progress(f'Writing {out}')
    try:
        added = write_checked(write_config(plan, out), out)
    except OSError:
        # Of the file, not of the pair.
        raise
    except Exception as error:
        raise ValueError(f'the config of this pair does not work: {error}') from error
    lines = [
        f'{plan.teacher.title} teaches {plan.student.title}: {plan.matching.rule}.',
        describe_pairs(plan),
        *write_notes(plan),
        f'Training adds {added:,} weights to the {plan.student.parameters:,} of the '
        'student, and leaves none in it.',
        *about_checkpoints(plan, added),
        f'Written: {out}. To train it:',
        f'  mmfakd train {shlex.quote(out)}',
    ]
    return '\n'.join(lines)


def write_checked(text: str, path: str) -> int:
    """Write a config once its distiller has been built.

    Args:
        text (str): The config.
        path (str): Where it goes. Nothing is left there if it does not work.

    Returns:
        int: Number of weights of the distiller, which only training has.

    Raises:
        OSError: If it cannot be written.
    """
    with explain_unwritten(path):
        folder = osp.dirname(osp.abspath(path))
        os.makedirs(folder, exist_ok=True)
        # In the same folder, as paths in it are relative.
        with tempfile.NamedTemporaryFile(suffix='.py', dir=folder) as file:
            Path(file.name).write_text(text, encoding='utf-8')
            cfg = Config.fromfile(file.name)
    for role in ('architecture', 'teacher'):
        # A file that it names is there, and has a model.
        resolve_model_cfg(cfg.model[role])
    # Its weights are counted, not computed. Nothing may be imported meanwhile, as
    # constants of a module would be without values: hence the import on top.
    scope = DefaultScope.overwrite_default_scope(cfg.get('default_scope'))
    with scope:
        try:
            with torch.device('meta'):
                distiller = MODELS.build(cfg.model.distiller)
        except RuntimeError:
            # CRD draws numbers for its banks, which needs values.
            distiller = MODELS.build(cfg.model.distiller)
    with whole_file(path) as part:
        Path(part).write_text(text, encoding='utf-8')
    return sum(p.numel() for p in distiller.parameters() if p.requires_grad)
