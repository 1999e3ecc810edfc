# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""From two names to a plan for their distillation config."""

from __future__ import annotations

import math
from typing import Any

from mmfakd.checkpoints.inherit import check_inherited, find_inheritable

from .candidate import Candidate
from .check_method import check_kinds, check_method, choose_pairs
from .input_size import choose_probe_size, pad_size_divisor, padded_size
from .match_segmentors import match_head_inputs, match_logit_maps
from .matching import Matching, match_levels, match_logits
from .methods import DEFAULT_METHOD, METHODS
from .named_levels import match_named_levels
from .plan import Plan
from .token_grids import fit_token_grids


def make_pair(
    student: str,
    teacher: str,
    inherit: str | None = None,
    method: str = DEFAULT_METHOD,
    **request: Any,
) -> Plan:
    """Examine two models and plan how one learns from the other.

    Args:
        student (str): Config or model-zoo name of the student.
        teacher (str): The same of the teacher.
        inherit (str, optional): Modules that start as copies of the teacher's, names
            separated by commas, or ``'auto'`` for all behind the backbone that fit.
        method (str): A key of :data:`~mmfakd.pairing.methods.METHODS`.
        **request: ``levels``, ``input_size``, ``command``,
            ``teacher_ckpt``, ``student_ckpt``, ``loss_weight`` and ``warmup`` of
            :class:`~mmfakd.pairing.plan.Plan`.

    Returns:
        Plan: What the config is to state.

    Raises:
        FileNotFoundError: If a model is not known.
        ValueError: If the two cannot be a pair.
    """
    ours, theirs = Candidate(student, 'student'), Candidate(teacher, 'teacher')
    plan = Plan(ours, theirs, method, **request)
    size = plan.input_size or choose_probe_size(ours.cfg)
    whole = plan.input_size or choose_probe_size(ours.cfg, whole=True)
    try:
        ours.examine(size)
        plan.matching, plan.padding = _match_padded(plan, size)
    except ValueError:
        # Half a crop may be too small for a head that pools.
        if size == whole:
            raise
        ours.examine(whole)
        plan.matching, plan.padding = _match_padded(plan, whole)
    if not plan.fixed:
        plan.matching.drop_uneven()
    if not plan.pairs:
        raise ValueError(_no_levels(plan))
    fit_token_grids(plan)
    check_method(plan)
    if inherit is not None:
        plan.inherit = _inherited(inherit, ours, theirs)
    return plan


def _match_padded(plan: Plan, size: tuple[int, int]) -> tuple[Matching, int | None]:
    """Match two models, on larger batches where a detector's teacher needs them.

    Those are also padded where maps of one stride would have different sizes, or the
    images too odd a size for a neck, whose maps are then none of theirs.
    """
    padding = _padding(plan)
    try:
        plan.teacher.examine(size)
        matching = _match(plan)
    except ValueError:
        if padding is None:
            raise
    else:
        if padding is None or (matching.pairs and not matching.uneven):
            return matching, None
    if plan.input_size is None:
        size = choose_probe_size(plan.student.cfg, divisor=padding)
    else:
        size = padded_size(size, padding)
    plan.student.examine(size)
    plan.teacher.examine(size)
    return _match(plan), padding


def _padding(plan: Plan) -> int | None:
    """What a detector's batches must be padded to for its teacher's sake."""
    if plan.student.cfg.get('default_scope') != 'mmdet':
        return None
    own = pad_size_divisor(plan.student.cfg)
    padding = math.lcm(32, own, pad_size_divisor(plan.teacher.cfg))
    return padding if padding > own else None


def _match(plan: Plan) -> Matching:
    student, teacher = plan.student, plan.teacher
    check_kinds(plan)
    if METHODS[plan.method].compares == 'logits' or plan.of_logit_maps:
        if plan.levels != 'auto':
            raise ValueError(
                f'--method {plan.method} compares logits: it has no --levels.'
            )
        if plan.of_logit_maps:
            return match_logit_maps(student, teacher, plan.method)
        return match_logits(student, teacher, plan.method)
    return choose_pairs(plan, _match_features(plan))


def _match_features(plan: Plan) -> Matching:
    student, teacher = plan.student, plan.teacher
    if plan.levels != 'auto':
        return match_named_levels(plan.levels, student, teacher)
    if student.kind != teacher.kind:
        raise ValueError(
            f'{student.name} is a {student.kind}, {teacher.name} a {teacher.kind}: '
            f'they have no levels in common. Choose another {student.kind} as the '
            'teacher, or name layers of the two backbones with --levels '
            'student_layer=teacher_layer,... (mmfakd layers lists them).'
        )
    if student.kind == 'segmentor':
        found = match_head_inputs(student.levels, teacher.levels)
        if found is not None:
            return found
    return match_levels(student.levels, teacher.levels)


def _no_levels(plan: Plan) -> str:
    hint = (
        'Name layers with --levels student_layer=teacher_layer,... '
        '(mmfakd layers lists them), or choose another model.'
    )
    for candidate in (plan.student, plan.teacher):
        if candidate.levels.all:
            continue
        what = 'has no layer that yields maps, tokens of known grid or a pooled feature'
        if candidate.unreached:
            what = (
                'learns nothing from any of its levels: in training no gradient flows '
                f'back from {", ".join(candidate.unreached)}. They are frozen '
                '(`frozen_stages`, `requires_grad=False`, `lr_mult=0`) or run outside '
                'of autograd'
            )
        elif candidate.kind == 'detector':
            called = any(call.name == 'neck' for call in candidate.probe.calls)
            what = (
                'has a neck that yields no maps'
                if called
                else 'has no neck, and detectors are matched by the maps of their necks'
            )
        return f'the {candidate.role} {candidate.name} {what}. {hint}'
    names = f'{plan.student.name} and {plan.teacher.name}'
    return f'{names} have no levels in common. {hint}'


def _inherited(names: str, student: Candidate, teacher: Candidate) -> list[str]:
    """The modules of the student that start as the teacher's."""
    if names != 'auto':
        return check_inherited(names.split(','), student.model, teacher.model)
    found = find_inheritable(student.model, teacher.model)
    if not found:
        raise ValueError(
            f'--inherit: behind their backbones {student.name} and {teacher.name} have '
            'no module with equal tensors in common. Leave it out.'
        )
    return found
