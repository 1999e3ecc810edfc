# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""What the user should know of a plan, and how to decide otherwise."""

from __future__ import annotations

from itertools import chain

from mmfakd.messages import aligned

from .filters import plan_filters
from .named_levels import name_levels
from .plan import METHODS, Plan


def describe_pairs(plan: Plan) -> str:
    """Draw the table of what is matched with what.

    Args:
        plan (Plan): The plan.

    Returns:
        str: A line for each pair.
    """
    rows = [['student', 'channels', 'size', 'teacher', 'channels', 'size']]
    for pair in plan.pairs:
        cells = ((f.name, str(f.channels), '{}x{}'.format(*f.size)) for f in pair)
        rows.append([*chain.from_iterable(cells)])
    return aligned(rows)


def write_notes(plan: Plan) -> list[str]:
    """Tell what was decided, and what is doubtful about it.

    Args:
        plan (Plan): The plan.

    Returns:
        list[str]: A sentence or two each.
    """
    return [
        *([] if plan.student.kind == 'detector' else [_about_size(plan)]),
        *_warnings(plan),
        *_about_levels(plan),
        *_about_weights(plan),
        *_about_config(plan),
    ]


def _about_size(plan: Plan) -> str:
    read, name = plan.read_size, plan.student.name
    size = plan.student.probe.input_shape[2:]
    text = '{}x{}'.format(*size)
    if read is None and plan.input_size is None:
        return (
            f'WARNING: the pipeline of {name} does not say how large its images are; '
            f'{text} is assumed. Another: --input-size HxW.'
        )
    if read is not None and (read.height, read.width) != size:
        return (
            f'WARNING: the config is for images of {text}, the pipeline of {name} '
            f'yields {read.height}x{read.width}. Change it in the student or leave out '
            '--input-size.'
        )
    source = '--input-size' if read is None else f"{read.source} of the student's data"
    return f'Images: {text}, as {source} has them.'


def _warnings(plan: Plan) -> list[str]:
    notes = []
    if plan.padding is not None:
        notes.append(
            'the teacher cannot take images of every size that the student takes, or '
            'its maps would have other sizes: the config pads batches to multiples of '
            f'{plan.padding}.'
        )
    notes += [
        f'{ours.name} and {theirs.name} have one stride but sizes that are rounded in '
        'different ways; they are left out.'
        for ours, theirs in plan.matching.dropped
    ]
    ours, theirs = plan.student.parameters, plan.teacher.parameters
    if theirs < ours:
        notes.append(
            f'the teacher ({theirs / 1e6:.1f} M parameters) is smaller than the '
            f'student ({ours / 1e6:.1f} M). Are they the wrong way round?'
        )
    if plan.student.unreached:
        notes.append(
            'in training no gradient flows back from these layers of the student, '
            f'which are left out: {", ".join(plan.student.unreached)}.'
        )
    return [f'WARNING: {note}' for note in notes]


def _about_levels(plan: Plan) -> list[str]:
    """What else was possible, and how to take it."""
    if plan.method == 'kd' or plan.levels != 'auto':
        return []
    notes = []
    for candidate in (plan.student, plan.teacher):
        levels = candidate.levels
        others = [
            f'{f.name} ({f.channels} x {f.size[0]} x {f.size[1]}, {why})'
            for f, why in levels.others
        ]
        if levels.blocks:
            first, *_, last = levels.stages
            others.append(f'any of the blocks {first.name} to {last.name}')
        if candidate.kind == 'classifier' and levels.pooled is None:
            others.append('no pooled feature was found')
        others += [
            f'{f.name} (without a partner of stride {f.stride})'
            for owner, f in plan.matching.left
            if owner == candidate.role
        ]
        if others:
            notes.append(f'Not taken of the {candidate.role}: {"; ".join(others)}.')
    notes.append(
        f'These levels by name: --levels "{name_levels(plan.matching)}". Any others: '
        'student=teacher, from shallow to deep; mmfakd layers lists layers.'
    )
    return notes


def _about_weights(plan: Plan) -> list[str]:
    notes = []
    teacher, student = plan.teacher_weights, plan.student_weights
    if plan.teacher_ckpt is None:
        notes.append(
            f'Weights of the teacher: {teacher}, as its model zoo publishes them. '
            'Others: --teacher-ckpt.'
            if teacher
            else 'WARNING: no weights of the teacher are known; give --teacher-ckpt '
            'here or to mmfakd train.'
        )
    if plan.student_ckpt is None and student:
        notes.append(
            f'Weights of the student: the `load_from` of its config, {student}. '
            'Others: --student-ckpt.'
        )
    return notes


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
        text = f'{planned["modes"]} modes' if 'modes' in planned else 'dense'
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
