# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""What ``LearningPicturesHook`` has logged in a work dir."""

from __future__ import annotations

import os.path as osp

from mmfakd.compat.json_text import read_json
from mmfakd.engine.hooks.first_step_hook import FILE
from mmfakd.engine.hooks.learning_pictures_hook import PREFIX

from .stitched_logs import StitchedLogs, read_logs

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
