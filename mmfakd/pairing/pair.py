# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""From two names to a plan for their distillation config."""

from __future__ import annotations

import math

from mmengine.config import Config

from mmfakd.checkpoints.inherit import check_inherited, find_inheritable

from .candidate import Candidate, build_model, examine, load_config
from .features import Feature
from .input_size import (
    InputSize,
    choose_probe_size,
    detector_size,
    pad_size_divisor,
    read_input_size,
)
from .levels import find_logits
from .matching import Matching, match_levels
from .named_levels import match_named_levels, name_levels
from .render import METHODS, Plan, plan_filters


def make_pair(
    student: str,
    teacher: str,
    method: str = 'fakd-review',
    levels: str = 'auto',
    input_size: tuple[int, int] | None = None,
    command: str = '',
    teacher_ckpt: str | None = None,
    student_ckpt: str | None = None,
    inherit: str | None = None,
) -> tuple[Plan, Matching, list[str]]:
    """Examine two models and plan how one learns from the other.

    Args:
        student (str): Config or model-zoo name of the student.
        teacher (str): The same of the teacher.
        method (str): A key of :data:`~mmfakd.pairing.METHODS`.
        levels (str): ``'auto'``, or names as for
            :func:`~mmfakd.pairing.named_levels.match_named_levels`.
        input_size (tuple[int, int], optional): Height and width of the images.
            Defaults to None: as the student's pipeline has them.
        command (str): The command, for the comment on top of the config.
        teacher_ckpt (str, optional): The teacher's weights. Defaults to None: those
            that its model zoo publishes.
        student_ckpt (str, optional): Weights that the student starts from. Defaults to
            None: the ``load_from`` of its config.
        inherit (str, optional): Modules that start as copies of the teacher's, names
            separated by commas, or ``'auto'`` for all behind the backbone that fit.

    Returns:
        tuple[Plan, Matching, list[str]]: The plan, what is matched with what, and what
        the user should know, a sentence each.

    Raises:
        FileNotFoundError: If a model is not known.
        ValueError: If the two cannot be a pair.
    """
    _, cfg = load_config(student)
    read = read_input_size(cfg)
    size = input_size or choose_probe_size(cfg)
    ours = _examine_student(student, size)
    notes = _about_size(ours, read, input_size, size)
    theirs = matching = padding = None
    try:
        theirs = _examine_teacher(teacher, size)
        matching = _match(method, levels, ours, theirs)
    except ValueError:
        if theirs is not None or not _padding(cfg, teacher):
            raise
    if ours.kind == 'detector' and (matching is None or matching.uneven):
        padding = _padding(cfg, teacher)
    if padding is not None:
        size = detector_size(padding)
        ours = _examine_student(student, size)
        theirs = _examine_teacher(teacher, size)
        matching = _match(method, levels, ours, theirs)
        notes.append(
            'WARNING: the teacher cannot take images of every size that the student '
            'takes, or its maps would have other sizes: the config pads batches to '
            f'multiples of {padding}.'
        )
    assert theirs is not None and matching is not None
    if ours.kind == 'detector':
        for pair in matching.uneven:
            matching.pairs.remove(pair)
            notes.append(
                f'WARNING: {pair[0].name} and {pair[1].name} have one stride but sizes '
                'that are rounded in different ways; they are left out.'
            )
    if not matching.pairs:
        raise ValueError(_no_levels(ours, theirs))
    notes += _about_parts(ours, theirs)
    if method != 'kd' and levels == 'auto':
        notes += _about_levels(ours, theirs, matching)
    if teacher_ckpt is None:
        teacher_ckpt = theirs.weights
        notes.append(
            f'Weights of the teacher: {teacher_ckpt}, as its model zoo publishes them. '
            'Others: --teacher-ckpt.'
            if teacher_ckpt
            else 'WARNING: no weights of the teacher are known; give --teacher-ckpt '
            'here or in tools/train.py.'
        )
    if student_ckpt is None and cfg.get('load_from'):
        student_ckpt = cfg.load_from
        notes.append(
            f'Weights of the student: the `load_from` of its config, {student_ckpt}. '
            'Others: --student-ckpt.'
        )
    plan = Plan(
        method,
        ours,
        theirs,
        matching.pairs,
        ours.kind == 'classifier',
        command,
        teacher_ckpt,
        student_ckpt,
        None if read is None else (read.height, read.width),
        padding,
        [] if inherit is None else _inherited(inherit, student, teacher),
    )
    notes += _about_config(plan)
    return plan, matching, notes


def _about_config(plan: Plan) -> list[str]:
    """What the config has of numbers that another might have chosen."""
    others = [method for method in METHODS if method != plan.method]
    if 'kd' in others and 'detector' in (plan.student.kind, plan.teacher.kind):
        others.remove('kd')
    notes = [f'Method: {plan.method}. Others: --method {", ".join(others)}.']
    if plan.inherit:
        inherited = ', '.join(plan.inherit)
        notes.append(f"The student starts with the teacher's {inherited}.")
    filters = []
    for planned in plan_filters(plan):
        text = 'dense'
        if 'modes' in planned:
            text = f'{planned["modes"]} modes'
        if 'groups' in planned:
            text += f' in {planned["groups"]} groups'
        filters.append(text)
    if filters:
        notes.append(
            f'Filters, level by level: {", ".join(filters)}. Others: `groups` and '
            '`modes` in the config.'
        )
    notes.append('Loss weight: 1. It depends on the pair: `loss_weight` in the config.')
    return notes


def _inherited(names: str, student: str, teacher: str) -> list[str]:
    """The modules of the student that start as the teacher's."""
    ours, theirs = (build_model(name)[0] for name in (student, teacher))
    if names != 'auto':
        return check_inherited(names.split(','), ours, theirs)
    found = find_inheritable(ours, theirs)
    if not found:
        raise ValueError(
            f'--inherit: behind their backbones {student} and {teacher} have no module '
            'with equal tensors in common. Leave it out.'
        )
    return found


def _padding(student: Config, teacher: str) -> int | None:
    """What a detector's batches must be padded to for its teacher's sake."""
    if student.get('default_scope') != 'mmdet':
        return None
    own = pad_size_divisor(student)
    padding = math.lcm(32, own, pad_size_divisor(load_config(teacher)[1]))
    return padding if padding > own else None


def _match(
    method: str, levels: str, student: Candidate, teacher: Candidate
) -> Matching:
    if method == 'kd':
        if levels != 'auto':
            raise ValueError('--method kd compares logits: it has no --levels.')
        return _match_logits(student, teacher)
    if levels != 'auto':
        return match_named_levels(levels, student, teacher)
    _check_kinds(student, teacher)
    return match_levels(student.levels, teacher.levels)


def _examine_student(name: str, size: tuple[int, int]) -> Candidate:
    try:
        return examine(name, size, student=True)
    except ValueError as error:
        if 'fails on images' not in str(error):
            raise
        raise ValueError(f'{error} Another size: --input-size HxW.') from error


def _examine_teacher(name: str, size: tuple[int, int]) -> Candidate:
    try:
        return examine(name, size, student=False)
    except ValueError as error:
        read = read_input_size(load_config(name)[1])
        if read is None or not read.fixed or (read.height, read.width) == size:
            raise
        raise ValueError(
            f'{error} The teacher gets the batches of the student; '
            f'its own config trains it on {read.height}x{read.width}. Choose a teacher '
            f'for {size[0]}x{size[1]}, or train the student on the larger images, too.'
        ) from error


def _about_size(
    student: Candidate,
    read: InputSize | None,
    given: tuple[int, int] | None,
    size: tuple[int, int],
) -> list[str]:
    if student.kind == 'detector':
        return []
    text = '{}x{}'.format(*size)
    if read is None and given is None:
        return [
            f'WARNING: the pipeline of {student.name} does not say how large its '
            f'images are; {text} is assumed. Another: --input-size HxW.'
        ]
    if read is not None and (read.height, read.width) != size:
        return [
            f'WARNING: the config is for images of {text}, the pipeline of '
            f'{student.name} yields {read.height}x{read.width}. Change it in the '
            'student or leave out --input-size.'
        ]
    source = '--input-size' if read is None else f"{read.source} of the student's data"
    return [f'Images: {text}, as {source} has them.']


def _about_parts(student: Candidate, teacher: Candidate) -> list[str]:
    notes = []
    if teacher.parameters < student.parameters:
        notes.append(
            f'WARNING: the teacher ({teacher.parameters / 1e6:.1f} M parameters) is '
            f'smaller than the student ({student.parameters / 1e6:.1f} M). Are they '
            'the wrong way round?'
        )
    if student.unreached:
        notes.append(
            'WARNING: in training no gradient flows back from these layers of the '
            f'student, which are left out: {", ".join(student.unreached)}.'
        )
    return notes


def _about_levels(
    student: Candidate, teacher: Candidate, matching: Matching
) -> list[str]:
    """What else was possible, and how to take it."""
    notes = []
    for candidate, role in ((student, 'student'), (teacher, 'teacher')):
        others = [
            f'{f.name} ({f.channels} x {f.size[0]} x {f.size[1]}, {why})'
            for f, why in candidate.levels.others
        ]
        if candidate.levels.blocks:
            first, *_, last = candidate.levels.stages
            others.append(f'any of the blocks {first.name} to {last.name}')
        if candidate.kind == 'classifier' and candidate.levels.pooled is None:
            others.append('no pooled feature was found')
        others += [
            f'{f.name} (without a partner of stride {f.stride})'
            for owner, f in matching.left
            if owner == role
        ]
        if others:
            notes.append(f'Not taken of the {role}: {"; ".join(others)}.')
    notes.append(
        f'These levels by name: --levels "{name_levels(matching)}". Any others: '
        'student=teacher, from shallow to deep; tools/misc/list_layers.py lists layers.'
    )
    return notes


def _check_kinds(student: Candidate, teacher: Candidate) -> None:
    if student.kind == teacher.kind:
        return
    raise ValueError(
        f'{student.name} is a {student.kind}, {teacher.name} a {teacher.kind}: they '
        f'have no levels in common. Choose another {student.kind} as the teacher, or '
        'name layers of the two backbones with --levels student_layer=teacher_layer,'
        '... (tools/misc/list_layers.py lists them).'
    )


def _no_levels(student: Candidate, teacher: Candidate) -> str:
    hint = (
        'Name layers with --levels student_layer=teacher_layer,... '
        '(tools/misc/list_layers.py lists them), or choose another model.'
    )
    for role, candidate in (('student', student), ('teacher', teacher)):
        levels = candidate.levels
        if levels.stages or levels.pooled:
            continue
        what = 'has no layer that yields maps, tokens of known grid or a pooled feature'
        if candidate.unreached:
            what = 'has no layer with a map that gradients flow back from in training'
        if candidate.kind == 'detector':
            called = any(call.name == 'neck' for call in candidate.probe.calls)
            what = (
                'has a neck that yields no maps'
                if called
                else 'has no neck, and detectors are matched by the maps of their necks'
            )
        return f'the {role} {candidate.name} {what}. {hint}'
    return f'{student.name} and {teacher.name} have no levels in common. {hint}'


def _match_logits(student: Candidate, teacher: Candidate) -> Matching:
    others = 'fakd-review, fakd-layer or reviewkd'
    found: list[Feature] = []
    for role, candidate in (('student', student), ('teacher', teacher)):
        if candidate.kind != 'classifier':
            raise ValueError(
                f'--method kd compares the logits of classifiers, and the {role} '
                f'{candidate.name} is a {candidate.kind}. Use {others}.'
            )
        logits = find_logits(candidate.probe)
        trained = candidate.trained
        if logits is None or (trained is not None and logits.key not in trained):
            raise ValueError(
                f'--method kd: no layer of the {role} {candidate.name} yields just its '
                f'logits. Use {others}.'
            )
        found.append(logits)
    ours, theirs = found
    if ours.channels != theirs.channels:
        raise ValueError(
            f'--method kd compares logits, and the student has {ours.channels} '
            f'classes, the teacher {theirs.channels}. Features do not mind: use '
            f'{others}.'
        )
    several = any(isinstance(side.probe.output, tuple) for side in (student, teacher))
    rule = 'logits (the first of several)' if several else 'logits'
    return Matching([(ours, theirs)], rule)


__all__ = ['make_pair']
