# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""Which level of the student learns from which of the teacher."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from itertools import product

from mmfakd.models.algorithms.margin_head import why_margin
from mmfakd.models.algorithms.why_no_softmax import why_no_softmax

from .candidate import Candidate
from .features import Feature
from .levels import MOST_STAGES, Levels, find_logits

Pairs = list[tuple[Feature, Feature]]


@dataclass
class Matching:
    """Pairs of levels.

    Args:
        pairs (list[tuple[Feature, Feature]]): Student's and teacher's, shallow to
            deep.
        rule (str): How they were matched, in a few words.
        left (list[tuple[str, Feature]]): Whose levels stay without a partner.
        dropped (list[tuple[Feature, Feature]]): Pairs that were left out again.
    """

    pairs: Pairs
    rule: str
    left: list[tuple[str, Feature]] = field(default_factory=list)
    dropped: Pairs = field(default_factory=list)

    @property
    def uneven(self) -> Pairs:
        """list[tuple[Feature, Feature]]: pairs whose sizes differ by more than strides.

        They are rounded in different ways where a map does not divide evenly, also
        where the student's is brought to the other stride.
        """
        return [
            (ours, theirs)
            for ours, theirs in self.pairs
            if tuple(int(n * ours.stride / theirs.stride + 0.5) for n in ours.size)
            != tuple(theirs.size)
        ]

    def drop_uneven(self) -> None:
        """Leave out the pairs whose sizes are rounded in different ways."""
        self.dropped = self.uneven
        self.pairs = [pair for pair in self.pairs if pair not in self.dropped]


def match_levels(student: Levels, teacher: Levels) -> Matching:
    """Match the levels of two models.

    - Levels of one stride belong together, see :func:`match_strides`.
    - Otherwise classifiers are matched from the deepest level up, and detectors by
      the two levels whose strides are nearest.
    - A model whose blocks all have one size gives as many as the other has levels, the
      last and others at equal distances before it; two such models give four.
    - Pooled features belong together.

    Args:
        student (Levels): The student's.
        teacher (Levels): The teacher's.

    Returns:
        Matching: The pairs; none where one of the models has no levels.
    """
    pairs, rule = _match_stages(student, teacher)
    if student.pooled is not None and teacher.pooled is not None:
        pairs.append((student.pooled, teacher.pooled))
    return Matching(pairs, rule, find_left(pairs, student, teacher))


def find_left(
    pairs: Pairs, student: Levels, teacher: Levels
) -> list[tuple[str, Feature]]:
    """List the levels that stay without a partner; of blocks any would have done.

    Args:
        pairs (list[tuple[Feature, Feature]]): The pairs.
        student (Levels): The student's levels.
        teacher (Levels): The teacher's.

    Returns:
        list[tuple[str, Feature]]: Whose they are, and the levels.
    """
    taken = {id(feature) for pair in pairs for feature in pair}
    return [
        (role, feature)
        for role, levels in (('student', student), ('teacher', teacher))
        for feature in levels.stages
        if id(feature) not in taken and not levels.blocks
    ]


def match_strides(student: Levels, teacher: Levels) -> Pairs | None:
    """Match levels of one stride, each of them once.

    Of several that a model has of one stride the deepest count, as of dilated stages.
    Of a neck it is the first: behind the map that they belong to come maps that images
    are too small for, and others such as mask features.

    Args:
        student (Levels): The student's.
        teacher (Levels): The teacher's.

    Returns:
        list[tuple[Feature, Feature]] | None: The pairs, by stride; None where there is
        one or none, unless the strides of both are the same, or one of them has a
        single level.
    """
    ours, theirs = student.stages, teacher.stages
    strides, others = {f.stride for f in ours}, {f.stride for f in theirs}
    pairs: Pairs = []
    for stride in sorted(strides & others):
        sides = [[f for f in side if f.stride == stride] for side in (ours, theirs)]
        count = min(map(len, sides))
        taken = slice(count) if student.is_neck else slice(-count, None)
        pairs += zip(*(side[taken] for side in sides))
    enough = strides == others or len(pairs) >= min(2, len(ours), len(theirs))
    return pairs if enough else None


def _match_stages(student: Levels, teacher: Levels) -> tuple[Pairs, str]:
    ours, theirs = student.stages, teacher.stages
    if not ours or not theirs:
        return [], 'pooled features alone'
    if student.blocks or teacher.blocks:
        counts = [len(m.stages) for m in (student, teacher) if not m.blocks]
        count = min([*counts, len(ours), len(theirs), MOST_STAGES])
        if student.blocks:
            ours = take_evenly(ours, count)
        if teacher.blocks:
            theirs = take_evenly(theirs, count)
        rule = 'blocks at equal distances, as they all have one size'
        return list(zip(ours[-count:], theirs[-count:])), rule
    common = match_strides(student, teacher)
    if common is not None:
        return common, 'levels of one stride'
    if student.is_neck:
        nearest = min(
            product(ours, theirs),
            key=lambda pair: abs(math.log2(pair[0].stride / pair[1].stride)),
        )
        return [nearest], 'levels of the nearest strides, as they have no two in common'
    count = min(len(ours), len(theirs))
    rule = 'levels from the deepest up, as their strides differ'
    return list(zip(ours[-count:], theirs[-count:])), rule


def take_evenly(features: list[Feature], count: int) -> list[Feature]:
    """Take features at equal distances, the last of all among them.

    Args:
        features (list[Feature]): All features, shallow to deep.
        count (int): How many to take; not more than there are.

    Returns:
        list[Feature]: Of twelve and four those of places 2, 5, 8 and 11.
    """
    return [features[(i + 1) * len(features) // count - 1] for i in range(count)]


def match_logits(
    student: Candidate, teacher: Candidate, method: str = 'kd'
) -> Matching:
    """Match the layers that yield the logits of two classifiers.

    Args:
        student (Candidate): The student.
        teacher (Candidate): The teacher.
        method (str): The method that compares them.

    Returns:
        Matching: The one pair.

    Raises:
        ValueError: If one is no classifier, has no layer that yields just its logits,
            or has other classes; where a softmax over them would mean nothing, as of
            several labels an image or of one class; and if the student's have a
            margin in training.
    """
    others = 'fakd-review, fakd-layer or reviewkd'
    found: list[Feature] = []
    for candidate in (student, teacher):
        who = f'the {candidate.role} {candidate.name}'
        if candidate.kind != 'classifier':
            raise ValueError(
                f'--method {method} compares the logits of classifiers, and {who} is a '
                f'{candidate.kind}. Use {others}.'
            )
        why = why_no_softmax(candidate.model)
        if why is not None:
            raise ValueError(
                f'--method {method} compares a softmax over classes, and {who} {why}. '
                f'Use {others}.'
            )
        margin = why_margin(candidate.model) if candidate is student else None
        if margin is not None:
            raise ValueError(
                f'--method {method} compares logits, and {who} {margin}. Use {others}.'
            )
        logits = find_logits(candidate.probe)
        if logits is None or not candidate.learns(logits):
            raise ValueError(
                f'--method {method}: no layer of {who} yields just its logits. Use '
                f'{others}.'
            )
        found.append(logits)
    ours, theirs = found
    if ours.channels != theirs.channels:
        raise ValueError(
            f'--method {method} compares logits, and the student has {ours.channels} '
            f'classes, the teacher {theirs.channels}. Features do not mind: use '
            f'{others}.'
        )
    if ours.channels == 1:
        raise ValueError(
            f'--method {method} compares a softmax over classes, and both heads yield '
            f'one value, of which it is always 1. Use {others}.'
        )
    several = any(isinstance(side.probe.output, tuple) for side in (student, teacher))
    rule = 'logits (the first of several)' if several else 'logits'
    return Matching([(ours, theirs)], rule)
