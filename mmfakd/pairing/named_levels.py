# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""Levels that a user names."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence

from torch import nn

from mmfakd.messages import near_names

from .candidate import Candidate
from .features import Feature, find_features
from .matching import Matching


def match_named_levels(levels: str, student: Candidate, teacher: Candidate) -> Matching:
    """Match the levels that a user names.

    Args:
        levels (str): Names separated by commas, shallow to deep: ``'student=teacher'``
            or one name for both. ``'neck[1]'`` is the second part of a tuple,
            ``'neck'`` all of its maps, shallow to deep. Of several calls of a layer
            the last counts.
        student (Candidate): The student.
        teacher (Candidate): The teacher.

    Returns:
        Matching: The pairs.

    Raises:
        ValueError: If a layer does not exist (near names are listed) or yields no map,
            a side of ``=`` is empty, or a pair is named twice.
    """
    pairs: list[tuple[Feature, Feature]] = []
    for item in filter(None, (part.strip() for part in levels.split(','))):
        ours, given, theirs = (name.strip() for name in item.partition('='))
        if given and not (ours and theirs):
            side = 'student' if not ours else 'teacher'
            raise ValueError(
                f'--levels {item}: no layer of the {side} is named. Give '
                'student=teacher, or one name without = for a layer of both.'
            )
        found = _find(ours, student), _find(theirs or ours, teacher)
        if len(found[0]) != len(found[1]):
            raise ValueError(
                f'--levels {item}: {len(found[0])} maps of the student stand against '
                f'{len(found[1])} of the teacher; name single ones, as in '
                f'{ours}[0]={theirs or ours}[1].'
            )
        pairs += zip(*found)
    if not pairs:
        raise ValueError(
            f'--levels {levels!r} names no layer; give student=teacher,... or auto.'
        )
    _refuse_repeated(pairs)
    return Matching(pairs, 'as named by --levels')


def name_levels(matching: Matching) -> str:
    """Name levels as ``--levels`` takes them.

    Args:
        matching (Matching): The pairs.

    Returns:
        str: The names.
    """
    return ','.join(
        ours.name if ours.name == theirs.name else f'{ours.name}={theirs.name}'
        for ours, theirs in matching.pairs
    )


def _refuse_repeated(pairs: Sequence[tuple[Feature, Feature]]) -> None:
    names = Counter((ours.name, theirs.name) for ours, theirs in pairs)
    (ours, theirs), times = names.most_common(1)[0]
    if times > 1:
        raise ValueError(
            f'--levels names {ours}={theirs} {times} times. Name each pair once; '
            '--loss-weight gives levels weights.'
        )


def _find(name: str, candidate: Candidate) -> list[Feature]:
    features = [
        f for f in find_features(candidate.probe) if name in (f.call.name, f.name)
    ]
    if not features:
        raise ValueError(_nothing(name, candidate))
    last = max(f.call.order for f in features)
    features = [f for f in features if f.call.order == last]
    if math.prod(features[0].size) < math.prod(features[-1].size):
        # Some necks return the deepest map first.
        features.reverse()
    for feature in features:
        if not candidate.learns(feature):
            raise ValueError(
                f'--levels: in training no gradient flows back from {feature.name!r} '
                f'of the {candidate.role} {candidate.name}, so nothing could be '
                'learned there. Choose another layer.'
            )
    return features


def _nothing(name: str, candidate: Candidate) -> str:
    """What to say where a name finds nothing."""
    lister = f'mmfakd layers {candidate.name}'
    called = {call.name for call in candidate.probe.calls}
    base = name.partition('[')[0]
    if base in called:
        return (
            f'--levels: {name!r} of the {candidate.role} is no map, vector or sequence '
            f'of tokens of known grid. What it yields: {lister}'
        )
    if candidate.kind == 'detector' and _in_a_head(base, candidate.model):
        return (
            f'--levels: {name!r} of the {candidate.role} {candidate.name} lies in a '
            'head, and detectors are run up to their necks here: heads call a layer '
            'once for each map. Name layers of backbone or neck, and write those of '
            'heads into the config, in student_levels and teacher_levels: '
            f'dict(recorder={base!r}, record_idx=0) for the first map, 1 for the next.'
        )
    near = near_names(base, sorted(called))
    return (
        f'--levels: the {candidate.role} {candidate.name} calls no layer {base!r}. '
        f'Near names: {", ".join(near) or "none"}. All of them: {lister}'
    )


def _in_a_head(name: str, model: nn.Module) -> bool:
    """Whether a name is that of a layer behind the neck."""
    layer = dict(model.named_modules()).get(name)
    lists = (nn.ModuleList, nn.ModuleDict)
    behind = name.partition('.')[0] not in ('', 'backbone', 'neck')
    return behind and layer is not None and not isinstance(layer, lists)
