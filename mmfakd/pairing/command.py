# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""Write a distillation config for any two models of mmpretrain or mmdet."""

from __future__ import annotations

import os
import os.path as osp
import shlex
import tempfile
from collections.abc import Sequence
from typing import Any

from mmengine.config import Config
from mmengine.logging import MMLogger
from mmengine.registry import MODELS, DefaultScope

from mmfakd.messages import aligned

from .matching import Matching
from .pair import make_pair
from .render import Plan, write_config


def format_matching(plan: Plan, matching: Matching) -> str:
    """Draw the table of what is matched with what.

    Args:
        plan (Plan): The plan.
        matching (Matching): Its pairs.

    Returns:
        str: A line for each pair.
    """
    rows = [('student', 'channels', 'size', 'teacher', 'channels', 'size')]
    for ours, theirs in matching.pairs:
        rows.append(
            tuple(
                text
                for f in (ours, theirs)
                for text in (f.name, str(f.channels), '{}x{}'.format(*f.size))
            )
        )
    return aligned(rows)


def write_checked(text: str, path: str) -> int:
    """Write a config once its distiller has been built.

    Args:
        text (str): The config.
        path (str): Where it goes. Nothing is left there if it does not work.

    Returns:
        int: Number of weights of the distiller, which only training has.
    """
    folder = osp.dirname(osp.abspath(path))
    os.makedirs(folder, exist_ok=True)
    # In the same folder, as paths in it are relative.
    with tempfile.NamedTemporaryFile('w', suffix='.py', dir=folder) as file:
        file.write(text)
        file.flush()
        cfg = Config.fromfile(file.name)
    with DefaultScope.overwrite_default_scope(cfg.get('default_scope')):
        distiller = MODELS.build(cfg.model.distiller)
    with open(path, 'w') as file:
        file.write(text)
    return sum(p.numel() for p in distiller.parameters() if p.requires_grad)


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
        **options: Of :func:`~mmfakd.pairing.pair.make_pair`.

    Returns:
        str: What is in the config.

    Raises:
        FileExistsError: If the config exists.
        FileNotFoundError: If a model is not known.
        ValueError: If the two cannot be a pair.
    """
    if osp.exists(out) and not force:
        raise FileExistsError(f'{out} exists; give --force to overwrite it.')
    MMLogger.get_instance('pair', log_level='ERROR')
    plan, matching, notes = make_pair(
        student, teacher, command=written_command(command), **options
    )
    try:
        added = write_checked(write_config(plan, out), out)
    except Exception as error:
        raise ValueError(f'the config of this pair does not work: {error}') from error
    lines = [
        f'{plan.teacher.title} teaches {plan.student.title}: {matching.rule}.',
        format_matching(plan, matching),
        *notes,
        f'Training adds {added:,} weights to the {plan.student.parameters:,} of the '
        'student, and leaves none in it.',
        f'Written: {out}. To train it:',
        f'  mmfakd train {out}',
    ]
    return '\n'.join(lines)


def written_command(words: Sequence[str]) -> str:
    """Write the command that makes the config, wherever it is written to.

    Args:
        words (Sequence[str]): The command.

    Returns:
        str: The command without what says where to.
    """
    kept, rest = [], list(words)
    while rest:
        word = rest.pop(0)
        if word in ('-o', '--out'):
            rest.pop(0)
        elif not word.startswith(('--out=', '--force')):
            kept.append(word)
    return shlex.join(kept)
