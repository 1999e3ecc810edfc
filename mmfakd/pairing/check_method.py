# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""Whether a method goes with two models, and which of their levels it takes."""

from __future__ import annotations

from mmfakd.engine.safety import count_epochs, loops_by_epoch
from mmfakd.models.algorithms.check_one_class import refuse_later_mixing, refuse_mixing
from mmfakd.models.distillers.level_order import refuse_reversed

from .loss_weight import is_balanced
from .matching import Matching, Pairs
from .methods import METHODS, methods_for
from .named_levels import name_levels
from .overhaul import find_margin
from .plan import Plan

_COMPARED = dict(logits='logits', pooled='pooled features', maps='maps')


def check_kinds(plan: Plan) -> None:
    """Refuse a method that does not go with the kind of a model.

    Args:
        plan (Plan): The plan, with both models.

    Raises:
        ValueError: If it does not; those that do are listed.
    """
    method = METHODS[plan.method]
    for candidate in (plan.student, plan.teacher):
        if candidate.kind not in method.kinds:
            kinds = ' and '.join(f'{kind}s' for kind in method.kinds)
            raise ValueError(
                f'--method {plan.method} compares the '
                f'{_COMPARED.get(method.compares, "levels")} of {kinds}, and the '
                f'{candidate.role} {candidate.name} is a {candidate.kind}. Use '
                f'{", ".join(methods_for(candidate.kind))}.'
            )


def choose_pairs(plan: Plan, matching: Matching) -> Matching:
    """Keep the levels that a method compares.

    Args:
        plan (Plan): The plan.
        matching (Matching): What was matched, by names or automatically.

    Returns:
        Matching: The same, for AT and others without the pooled feature, for RKD and
        CRD with nothing else, for FitNet with the level in the middle.

    Raises:
        ValueError: If nothing is left, or a level that was named would be left out.
    """
    named = matching.pairs if plan.levels != 'auto' else []
    method = METHODS[plan.method]
    if method.compares == 'pooled':
        matching.pairs = _pooled(plan, matching)
        matching.rule, matching.left = 'pooled features', []
        _refuse_others(plan, named, matching.pairs, 'one pooled feature', 'a map')
    if method.compares == 'maps':
        matching.pairs = [pair for pair in matching.pairs if not _has_vector(pair)]
        _refuse_others(plan, named, matching.pairs, 'maps', 'a vector')
        if plan.method == 'ofd':
            matching.pairs = _with_margin(plan, matching.pairs)
            ends = 'levels of the teacher that end in a batch norm or its activation'
            _refuse_others(plan, named, matching.pairs, ends, 'another')
        if not matching.pairs:
            raise ValueError(
                f'--method {plan.method} compares maps, and {plan.student.name} and '
                f'{plan.teacher.name} have none in common. Name layers with --levels '
                'student_layer=teacher_layer,... (mmfakd layers lists them).'
            )
        if plan.method == 'fitnet' and plan.levels == 'auto':
            matching.pairs = [matching.pairs[(len(matching.pairs) - 1) // 2]]
            matching.left = []
    return matching


def check_method(plan: Plan) -> None:
    """Refuse what a method cannot do with the student's data, head and schedule.

    And a teacher for whom the student's images have too few channels.

    Args:
        plan (Plan): The plan, with its pairs of levels.

    Raises:
        ValueError: For weights that do not fit the levels, levels of a review that run
            deep to shallow, a warm-up that never ends, and labels, data or channels
            that are needed and the student has not.
    """
    # It raises where there are too few.
    _ = plan.teacher_channels
    if METHODS[plan.method].reviews:
        ours = [feature for feature, _ in plan.pairs]
        refuse_reversed(
            f'--levels {plan.levels}: levels of the student',
            [feature.name for feature in ours],
            [feature.size for feature in ours],
            f'--method {plan.method} expects shallow to deep: name them the other way '
            'round.',
        )
    _check_weight(plan)
    if plan.warmup is not None:
        _check_warmup(plan)
    if plan.method in ('crd', 'dkd', 'nkd'):
        _check_mixing(plan)
    if plan.method in ('dkd', 'nkd'):
        _check_labels(plan)
    if plan.method == 'crd':
        # Raises where the data cannot be read.
        assert plan.training_images is not None


def _check_weight(plan: Plan) -> None:
    weight, method = plan.weight, METHODS[plan.method]
    if not method.by_level and not isinstance(weight, float):
        what = 'balance weights levels' if is_balanced(weight) else 'weights of levels'
        raise ValueError(
            f'--loss-weight {plan.loss_weight}: {what}, and --method {plan.method} has '
            'none. Give one number, which multiplies the weight of its recipe.'
        )
    if isinstance(weight, list) and len(weight) != len(plan.pairs):
        raise ValueError(
            f'--loss-weight {plan.loss_weight}: {len(weight)} weights for '
            f'{len(plan.pairs)} levels. Give one for each, from shallow to deep: '
            f'{", ".join(ours.name for ours, _ in plan.pairs)}.'
        )


def _check_warmup(plan: Plan) -> None:
    by_epoch = loops_by_epoch(plan.student.cfg)
    unit = 'epochs' if by_epoch else 'iterations'
    loop = plan.student.cfg.get('train_cfg') or {}
    last = loop.get(f'max_{"epoch" if by_epoch else "iter"}s')
    if plan.warmup is not None and last is not None and plan.warmup > last:
        raise ValueError(
            f'--warmup {plan.warmup}: the training of {plan.student.name} has only '
            f'{last} {unit}, so the full weight would never be reached. In an '
            'iteration based loop --warmup counts iterations.'
        )


def _check_mixing(plan: Plan) -> None:
    """DKD and NKD take an image's one class, CRD the image that it was."""
    refuse_mixing(f'--method {plan.method}', plan.student.model, plan.student.name)
    hooks = plan.student.cfg.get('custom_hooks') or []
    epochs = count_epochs(plan.student.cfg)
    refuse_later_mixing(f'--method {plan.method}', hooks, epochs)


def _check_labels(plan: Plan) -> None:
    """DKD and NKD take the class from what enters the student's loss."""
    model, name = plan.student.model, plan.student.name
    if not hasattr(getattr(model, 'head', None), 'loss_module'):
        raise ValueError(
            f'--method {plan.method} takes the labels from what enters '
            f'`head.loss_module`, which the head of {name} '
            f'({type(model.head).__name__}) has not. Use kd or dist.'
        )


def _pooled(plan: Plan, matching: Matching) -> Pairs:
    found = [pair for pair in matching.pairs if all(f.is_vector for f in pair)]
    if len(found) == 1 or (found and plan.levels == 'auto'):
        return found[-1:]
    raise ValueError(
        f'--method {plan.method} compares a pooled feature of {plan.student.name} with '
        f'one of {plan.teacher.name}, and {len(found) or "none"} were '
        f'{"found" if plan.levels == "auto" else "named"}. Name it with --levels '
        'student_layer=teacher_layer (mmfakd layers lists them).'
    )


def _refuse_others(
    plan: Plan, named: Pairs, kept: Pairs, wanted: str, found: str
) -> None:
    """Raise where not all levels that were named are kept."""
    others = [pair for pair in named if pair not in kept]
    if others:
        name = name_levels(Matching(others[:1], ''))
        raise ValueError(
            f'--levels {name}: --method {plan.method} compares {wanted}, and this '
            f'names {found}. Leave it out, or use fakd-review, fakd-layer or reviewkd.'
        )


def _has_vector(pair: tuple) -> bool:
    return any(feature.is_vector for feature in pair)


def _with_margin(plan: Plan, pairs: Pairs) -> Pairs:
    """The pairs of which the teacher's level ends in a batch norm, or in its ReLU."""
    found = [pair for pair in pairs if find_margin(plan.teacher, pair[1])]
    if pairs and not found:
        raise ValueError(
            '--method ofd needs levels of the teacher that end in a batch norm, or in '
            f'an activation behind one, and none of {plan.teacher.name} do. Use '
            'fakd-review, fakd-layer, reviewkd, pkd, cwd or at.'
        )
    return found
