# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""The scores that metafiles list for the teacher of a distillation."""

from __future__ import annotations

import os.path as osp
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from mmengine.config import Config

from .find import entries_of, read_metafile

# Names of metafiles -> those of evaluators, and what turns these into percent.
METRICS = {
    'Top 1 Accuracy': ('accuracy/top1', 1),
    'Top 5 Accuracy': ('accuracy/top5', 1),
    'box AP': ('coco/bbox_mAP', 100),
    'mask AP': ('coco/segm_mAP', 100),
    'mIoU': ('mIoU', 1),
    'PQ': ('coco_panoptic/PQ', 1),
}


class Published(NamedTuple):
    """Scores and where they stand.

    Attributes:
        source (str): The metafile's entry.
        dataset (str): The data set that it names.
        scores (dict[str, float]): Name of the metafile -> score in percent.
    """

    source: str
    dataset: str
    scores: dict[str, float]


def published_scores(cfg: Config) -> Published | None:
    """Find the scores of a distillation's teacher.

    They are looked for in the metafile beside the config, at its entry
    (``Metadata.Teacher`` has ``Metrics`` itself, or names the ``Config`` of an entry
    with ``Results``), then at the teacher's ``cfg_path``: in the metafiles of its
    package, or in the one beside its file.

    Args:
        cfg (Config): Config of a distillation, as read from its file.

    Returns:
        Published | None: What is listed; None where nothing is, or where the config
        gives the teacher another number of classes than its ``cfg_path``.
    """
    teacher = cfg.model.teacher
    for found in (*_beside(cfg.filename or ''), *_of_cfg_path(teacher, cfg)):
        scores = {
            name: float(value)
            for name, value in found.scores.items()
            if name in METRICS and isinstance(value, (int, float))
        }
        if scores:
            return found._replace(scores=scores)
    return None


def _beside(filename: str) -> Iterator[Published]:
    """What the entry of a distillation config says of its teacher."""
    for entry in _entries_beside(filename, filename):
        teacher = (entry.get('Metadata') or {}).get('Teacher') or {}
        if 'Metrics' in teacher:
            source = f'Metadata.Teacher of {entry["Name"]}'
            # Measured where the student was.
            measured = next(iter(_results(entry)), None)
            dataset = measured.dataset if measured else ''
            yield Published(source, dataset, teacher['Metrics'])
        if 'Config' in teacher:
            for named in _entries_beside(filename, teacher['Config']):
                yield from _results(named)


def _of_cfg_path(teacher: Mapping, cfg: Config) -> Iterator[Published]:
    """What metafiles say of the config that the teacher is taken from."""
    path = teacher.get('cfg_path')
    if path is None or _changes_classes(teacher):
        return
    package, _, rest = path.rpartition('::')
    if package:
        entries = entries_of(package, rest)
    else:
        entries = _entries_beside(path, path)
    # One config may have several weights: those that were asked for go first.
    asked = osp.basename(str(cfg.model.get('teacher_ckpt'))).lower()
    for entry in sorted(
        entries,
        key=lambda e: (
            asked not in (osp.basename(str(e['Weights'])).lower(), e['Name'].lower())
        ),
    ):
        yield from _results(entry)


def _results(entry: Mapping) -> Iterator[Published]:
    """The results of an entry, of all tasks on one data set together."""
    merged: dict[str, dict[str, Any]] = {}
    results = entry.get('Results') or []
    # mmseg's metafiles have one without a list around.
    for result in [results] if isinstance(results, Mapping) else results:
        scores = merged.setdefault(str(result.get('Dataset', '')), {})
        scores.update(result.get('Metrics') or {})
    for dataset, scores in merged.items():
        yield Published(entry['Name'], dataset, scores)


def _entries_beside(filename: str, config: str) -> list[dict]:
    """The entries of a config in the metafile that lies beside a file."""
    return [
        entry
        for entry in read_metafile(Path(filename).parent / 'metafile.yml')
        if osp.basename(entry['Config']) == osp.basename(config)
    ]


def _changes_classes(overrides: Any) -> bool:
    """Whether overrides set a number of classes somewhere."""
    if isinstance(overrides, Mapping):
        return 'num_classes' in overrides or any(
            _changes_classes(value) for value in overrides.values()
        )
    if isinstance(overrides, (list, tuple)):
        return any(_changes_classes(value) for value in overrides)
    return False
