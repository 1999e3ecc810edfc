# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""Trainings to compare: real ones, and others with scores of their own."""

import json
from dataclasses import replace
from pathlib import Path

from mmengine.config import ConfigDict
from mmengine.registry import MODELS

from tests.helpers.tiny_runs import run_config, train

TOP1 = 'accuracy/top1'
MAP = 'coco/bbox_mAP'


def train_in(work_dir, model, *hooks, validate=True, **kwargs):
    """Train in a work dir; its logs come behind those that are there."""
    there = list(work_dir.glob('*/'))
    train(run_config(work_dir, model, validate=validate, **kwargs), *hooks)
    [folder] = {log.parents[1] for log in logs(work_dir)} - set(there)
    # Starts within one second would share a folder.
    folder.rename(work_dir / f'20260101_00000{len(logs(work_dir))}')
    return str(work_dir)


def logs(work_dir):
    """The logs of figures of a work dir, in the order of its starts."""
    return sorted(Path(work_dir).glob('*/vis_data/scalars.json'))


def rows(log):
    """The entries of a log of figures."""
    return [json.loads(line) for line in log.read_text().splitlines()]


def seed(number):
    return dict(randomness=dict(seed=number))


def scripted(**scores):
    return dict(type='ScriptedScore', counter='epoch', **scores)


def variant(run, scores, **changes):
    """A run with scores of its own, one for each epoch."""
    curve = dict(enumerate(scores, 1))
    return replace(run, scores={TOP1: curve}, length=len(scores), **changes)


def seeds(run, *scores, first=0):
    """Runs of the seeds from `first`, each validated once."""
    return [
        variant(run, [s], seed=first + i, work_dir=f'{run.work_dir}/{first + i}')
        for i, s in enumerate(scores)
    ]


def size(cfg):
    """The number of parameters of what a config builds."""
    return sum(p.numel() for p in MODELS.build(ConfigDict(cfg)).parameters())


def short(value):
    """Name a case of a test by the start of its value: some are files of 100 KB."""
    return repr(value)[:20]
