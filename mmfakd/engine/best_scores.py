# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""Best scores in the notes of a training, and the metrics that they are of.

MMEngine notes them by metric where ``save_best`` names several, and without one where
it names one. So a resumed training that names another one takes them for its own.
"""

from __future__ import annotations

import os.path as osp
import re
from collections.abc import Mapping, Sequence
from typing import Any

from mmengine.logging import MessageHub

from .file_names import name_pattern

#: Where a training notes the metrics that its best scores are of.
BEST_OF = 'best_of'
_PARTS = ('best_score', 'best_ckpt')


def noted_metrics(info: Mapping[str, Any], template: str, several: bool) -> list[str]:
    """Find out which metrics the best scores so far are of.

    Args:
        info (Mapping[str, Any]): What a training has noted. Trainings of earlier
            versions have not noted their metrics; the names of their files tell.
        template (str): ``filename_tmpl`` of the checkpoint hook.
        several (bool): Whether ``save_best`` names several metrics now. It counts
            where an earlier version has noted scores in both forms.

    Returns:
        list[str]: The metrics, with ``'_'`` for ``'/'`` if a name tells them. Empty if
        there are none, or nothing tells.
    """
    if info.get(BEST_OF):
        return list(info[BEST_OF])
    start = f'{_PARTS[0]}_'
    by_name = [key[len(start) :] for key in info if key.startswith(start)]
    names = f'{name_pattern(template)}|{name_pattern("epoch_{}.pth")}'
    names = f'best_(.+?)_(?:{names}|{name_pattern("iter_{}.pth")})'
    match = re.fullmatch(names, osp.basename(str(info.get(_PARTS[1]))))
    alone = [match[1]] if match else []
    return (by_name or alone) if several else (alone or by_name)


def hand_on_scores(
    hub: MessageHub, before: Sequence[str], now: Sequence[str]
) -> dict[str, str | None]:
    """Leave best scores and checkpoints to the metrics that they are of.

    Args:
        hub (MessageHub): The notes of the training, changed in place.
        before (Sequence[str]): The metrics that the scores are of.
        now (Sequence[str]): Those that ``save_best`` names.

    Returns:
        dict[str, str | None]: Each metric that counts no longer -> path of its best
        checkpoint, if that is known.
    """
    known = {
        metric: [hub.pop_info(_key(part, metric, before), None) for part in _PARTS]
        for metric in before
    }
    left = {metric: values for metric, values in known.items() if values[0] is not None}
    for metric in now:
        same = [old for old in left if in_name(old) == in_name(metric)]
        for part, value in zip(_PARTS, left.pop(same[0]) if same else ()):
            hub.update_info(_key(part, metric, now), value)
    return {metric: path for metric, (_, path) in left.items()}


def in_name(metric: str) -> str:
    """Write a metric as MMEngine does in names of files.

    Args:
        metric (str): Its key, such as ``'coco/bbox_mAP'``.

    Returns:
        str: ``'coco_bbox_mAP'``.
    """
    return metric.replace('/', '_')


def _key(part: str, metric: str, metrics: Sequence[str]) -> str:
    return part if len(metrics) == 1 else f'{part}_{metric}'
