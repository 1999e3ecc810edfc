# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""Which level of a segmentor learns from which of another."""

from __future__ import annotations

from .candidate import Candidate
from .features import Feature
from .levels import Levels
from .matching import Matching, find_left, match_strides
from .segmentor_levels import find_logit_map


def match_head_inputs(student: Levels, teacher: Levels) -> Matching | None:
    """Match the maps that the decode heads of two segmentors get.

    Args:
        student (Levels): The student's.
        teacher (Levels): The teacher's.

    Returns:
        Matching | None: As many maps on both sides are pairs in their order. Of two
        models with other numbers, those of one stride are, see
        :func:`.match_strides`; None where that finds none.
    """
    ours, theirs = student.stages, teacher.stages
    if student.blocks or teacher.blocks or not ours or not theirs:
        return None
    if len(ours) == len(theirs):
        return Matching(list(zip(ours, theirs)), 'maps of the decode heads, in order')
    pairs = match_strides(student, teacher)
    if pairs is None:
        return None
    left = find_left(pairs, student, teacher)
    return Matching(pairs, 'maps of the decode heads of one stride', left)


def match_logit_maps(student: Candidate, teacher: Candidate, method: str) -> Matching:
    """Match the layers that yield the maps of logits of two segmentors.

    Args:
        student (Candidate): The student.
        teacher (Candidate): The teacher.
        method (str): The method that compares them, for messages.

    Returns:
        Matching: The one pair.

    Raises:
        ValueError: If one has no layer that yields its logits, the classes differ, or
            the method cannot compare the one channel that there is.
    """
    others = 'Use fakd-review, fakd-layer or reviewkd.'
    found: list[Feature] = []
    for candidate in (student, teacher):
        logits = find_logit_map(candidate.probe, candidate.model.out_channels)
        if logits is None or not candidate.learns(logits):
            head = type(candidate.model.decode_head).__name__
            why = f' ({candidate.probe.note})' if candidate.probe.note else ''
            raise ValueError(
                f'--method {method}: no layer of the {candidate.role} '
                f'{candidate.name} yields just its logits, which its {head} computes '
                f'otherwise{why}. {others}'
            )
        found.append(logits)
    ours, theirs = found
    if ours.channels != theirs.channels:
        raise ValueError(
            f'--method {method} compares logits, and the student has {ours.channels} '
            f'classes, the teacher {theirs.channels}. Features do not mind. {others}'
        )
    if method == 'kd' and ours.channels == 1:
        raise ValueError(
            '--method kd compares classes, and both heads have out_channels=1, over '
            'which a softmax is 1 in every pixel. Use cwd, which compares pixels.'
        )
    return Matching([(ours, theirs)], 'maps of logits')
