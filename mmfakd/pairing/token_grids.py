# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""The grids of tokens in training, where models were probed on other images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from .candidate import Candidate
from .features import Feature, find_features
from .plan import Plan


def fit_token_grids(plan: Plan) -> None:
    """Give tokens without a grid the one that they have in training.

    Args:
        plan (Plan): The plan with its pairs, whose ``tokens`` are set.

    Raises:
        ValueError: If batches have several sizes, or nothing says theirs.
    """
    if plan.fixed or not plan.pairs:
        return
    sides = [
        _fitted(plan, candidate, features)
        for candidate, features in zip((plan.student, plan.teacher), zip(*plan.pairs))
    ]
    plan.matching.pairs = list(zip(*sides))


def _fitted(
    plan: Plan, candidate: Candidate, features: Sequence[Feature]
) -> list[Feature]:
    """The features of one model, those that need it with another grid."""
    bare = [feature for feature in features if feature.needs_grid]
    if not bare or plan.input_size is not None:
        return list(features)
    size = plan.one_size
    if size == candidate.probe.input_shape[2:]:
        return list(features)
    if size is None and plan.has_squares:
        return [_as_square(f) if f.needs_grid else f for f in features]
    if size is None:
        raise ValueError(_no_size(plan, candidate, bare[0]))
    probe = candidate.run(size, heads=candidate.kind != 'detector')
    tokens = {
        (f.name, f.call.index): f.tokens for f in find_features(probe) if f.needs_grid
    }
    for feature in bare:
        if (feature.name, feature.call.index) not in tokens:
            raise ValueError(
                f'{_who(plan, candidate, feature)} yields tokens, and for batches of '
                f'{size[0]}x{size[1]}, which {plan.student.name} trains on, their grid '
                f'cannot be told. {_OTHERS}.'
            )
    return [
        replace(f, tokens=tokens[f.name, f.call.index]) if f.needs_grid else f
        for f in features
    ]


def _as_square(feature: Feature) -> Feature:
    """The same feature for squares of any size, which need no grid."""
    tokens = {k: v for k, v in (feature.tokens or {}).items() if k != 'size'}
    return replace(feature, tokens=tokens)


_OTHERS = (
    'Name a layer that yields maps or tokens with their grid with --levels '
    'student_layer=teacher_layer,... (mmfakd layers lists them)'
)


def _who(plan: Plan, candidate: Candidate, feature: Feature) -> str:
    named = '' if plan.levels == 'auto' else '--levels: '
    return f'{named}{feature.name!r} of the {candidate.role} {candidate.name}'


def _no_size(plan: Plan, candidate: Candidate, feature: Feature) -> str:
    who = _who(plan, candidate, feature)
    why = f'batches of {plan.student.name} have several sizes'
    if plan.configured_size is None:
        why = f'the config of {plan.student.name} does not say how large images are'
    return (
        f'{who} yields tokens without their grid, and {why}. {_OTHERS}, or '
        'bring images to one size. Where they have one that is not seen here, give it: '
        '--input-size HxW.'
    )
