# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""What ``LearningPicturesHook`` has logged in a work dir."""

from __future__ import annotations

import glob
import json
import os.path as osp
from contextlib import suppress

from mmfakd.compat.json_text import read_json
from mmfakd.engine.hooks.first_step_hook import FILE
from mmfakd.engine.hooks.learning_pictures_hook import PREFIX

# Level -> what was measured -> iteration -> value.
Courses = dict[str, dict[str, dict[int, float]]]


def read_courses(work_dir: str) -> Courses:
    """Read the numbers of all looks.

    A training that goes on, or begins anew, in the same folder leaves several logs:
    what a later one has from its first iteration on counts.

    Args:
        work_dir (str): The work dir of a training.

    Returns:
        Courses: ``courses['loss_level0']['ratio'][500]`` and so on; none if it had no
        such hook.
    """
    looks: dict[int, dict[str, float]] = {}
    pattern = osp.join(glob.escape(work_dir), '*', 'vis_data', 'scalars.json')
    for path in sorted(glob.glob(pattern)):
        rows = _looks(path)
        if rows:
            first = min(rows)
            looks = {step: look for step, look in looks.items() if step < first}
            looks.update(rows)
    courses: Courses = {}
    for step in sorted(looks):
        for name, value in looks[step].items():
            _, level, key = name.split('/')
            courses.setdefault(level, {}).setdefault(key, {})[step] = value
    return courses


def read_first_step(work_dir: str) -> dict:
    """Read the report of the first step.

    Args:
        work_dir (str): The work dir of a training.

    Returns:
        dict: What ``FirstStepHook`` has written; empty if there is no such file.
    """
    path = osp.join(work_dir, FILE)
    if not osp.isfile(path):
        return {}
    with open(path) as file:
        return read_json(file.read())


def _looks(path: str) -> dict[int, dict[str, float]]:
    """Iteration -> numbers, of one log."""
    found = {}
    with open(path) as file:
        for line in file:
            # A killed process leaves half a line at the end.
            with suppress(json.JSONDecodeError):
                row = read_json(line)
                numbers = {k: v for k, v in row.items() if k.startswith(f'{PREFIX}/')}
                if numbers:
                    found[row['step']] = numbers
    return found
