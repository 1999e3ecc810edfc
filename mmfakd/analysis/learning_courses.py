# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""What ``LearningPicturesHook`` has logged in a work dir."""

from __future__ import annotations

import os.path as osp
from pathlib import Path

from mmfakd.compat.json_text import read_json
from mmfakd.engine.hooks.first_step_hook import FILE
from mmfakd.engine.hooks.learning_pictures_hook import PREFIX

from .stitched_logs import StitchedLogs, read_logs

_REMOVE = 'Remove it, and the page is drawn without it.'

# Level -> what was measured -> iteration -> value.
Courses = dict[str, dict[str, dict[int, float]]]


def read_courses(work_dir: str) -> Courses:
    """Read the numbers of all looks.

    A training that goes on, or begins anew, in the same folder leaves several logs,
    which are stitched as those of ``mmfakd compare``.

    Args:
        work_dir (str): The work dir of a training.

    Returns:
        Courses: ``courses['loss_level0']['ratio'][500]`` and so on; none if it had no
        such hook.
    """
    logs = read_logs(work_dir)
    looks = StitchedLogs(logs).looks if logs else {}
    courses: Courses = {}
    for step in sorted(looks):
        for name, value in looks[step].items():
            if not name.startswith(f'{PREFIX}/'):
                continue
            # A loss may have a slash in its name.
            level, _, key = name[len(PREFIX) + 1 :].rpartition('/')
            courses.setdefault(level, {}).setdefault(key, {})[step] = value
    return courses


def read_first_step(work_dir: str) -> dict:
    """Read the report of the first step.

    Args:
        work_dir (str): The work dir of a training.

    Returns:
        dict: What ``FirstStepHook`` has written; empty if there is no such file.

    Raises:
        ValueError: If the file is none that the hook has written.
    """
    path = osp.join(work_dir, FILE)
    if not osp.isfile(path):
        return {}
    try:
        report = read_json(Path(path).read_text('utf-8'))
    except ValueError as error:
        raise ValueError(f'{path} is no JSON: {error}. {_REMOVE}') from error
    levels = report.get('levels', []) if isinstance(report, dict) else None
    if not isinstance(levels, list) or not all(map(_is_level, levels)):
        raise ValueError(
            f'{path} is no report of a first step: expected an object whose "levels" '
            f'have a "name" and a "ratio" each. {_REMOVE}'
        )
    return report


def _is_level(level: object) -> bool:
    return (
        isinstance(level, dict)
        and isinstance(level.get('name'), str)
        # Not measured, it is null.
        and isinstance(level.get('ratio', ''), (int, float, type(None)))
    )
