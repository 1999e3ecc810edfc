# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""What the user should know of a plan, and how to decide otherwise."""

from __future__ import annotations

from itertools import chain

from mmfakd.checkpoints.fetch import is_known
from mmfakd.engine.safety import checkpoint_hook
from mmfakd.messages import aligned
from mmfakd.model_zoo.type_names import short_name

from .connector_rate import connector_lr_mult, is_adaptive
from .distillers import has_connectors
from .filters import plan_filters
from .input_size import pad_size_divisor, padded_size
from .loss_weight import is_balanced
from .methods import METHODS, methods_for
from .named_levels import name_levels
from .plan import Plan

# Bytes of checkpoints that are worth a word.
_MUCH = 5e9


def describe_pairs(plan: Plan) -> str:
    """Draw the table of what is matched with what.

    Args:
        plan (Plan): The plan.

    Returns:
        str: A line for each pair.
    """
    rows = [['student', 'channels', 'size', 'teacher', 'channels', 'size']]
    for pair in plan.pairs:
        cells = (
            (f.name, str(f.channels), '{}x{}'.format(*plan.size_of(f))) for f in pair
        )
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
        _about_size(plan) if plan.fixed else _about_sizes(plan),
        *_about_channels(plan),
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
    divisor = pad_size_divisor(plan.student.cfg)
    if read and padded_size((read.height, read.width), divisor) != size:
        return (
            f'WARNING: the config is for images of {text}, the pipeline of {name} '
            f'yields {read.height}x{read.width}. Change it in the student or leave out '
            '--input-size.'
        )
    if read is not None and not read.fixed:
        return (
            f'WARNING: {read.source} of the data of {name} yields images of several '
            f'sizes, and dense filters are for those of {text} alone. Bring them to '
            'one size in the pipeline.'
        )
    source = '--input-size' if read is None else f"{read.source} of the student's data"
    return f'Images: {text}, as {source} has them.'


def _about_sizes(plan: Plan) -> str:
    """Where images have many sizes."""
    read, size = plan.read_size, plan.image_size
    if plan.input_size is not None or size is None or read is None:
        text = '{}x{}'.format(*plan.student.probe.input_shape[2:])
        source = 'those of --input-size'
        if plan.input_size is None:
            source = 'an example, as the pipeline does not say how large its images are'
        return f'Sizes are those for images of {text}, {source}.'
    others = '' if read.fixed else ', and others, by'
    return (
        f'Sizes are those for images of {read.height}x{read.width}'
        f"{others or ' from'} {read.source} of the student's data, in batches of "
        f'{size[0]}x{size[1]}.'
    )


def _about_channels(plan: Plan) -> list[str]:
    """Which channels the teacher gets, where it takes more or fewer."""
    ours, theirs = plan.image_channels
    if plan.teacher_channels is None:
        return []
    if ours == 1:
        return [
            f'The teacher takes images of {theirs} channels: it gets the one of the '
            f"student's images {theirs} times, by `teacher_preprocessor`."
        ]
    return [
        f'WARNING: the teacher takes images of {theirs} channel(s), those of the '
        f'student have {ours}: of these it gets {plan.teacher_channels}, in this '
        'order. Others: `channels` of `teacher_preprocessor` in the config.'
    ]


def _warnings(plan: Plan) -> list[str]:
    notes = []
    if plan.padding is not None:
        notes.append(
            'the teacher cannot take images of every size that the student takes, or '
            'its maps would have other sizes: the config pads batches to multiples of '
            f'{plan.padding}.'
        )
    notes += [
        f'{ours.name} and {theirs.name} have sizes that are rounded in '
        'different ways; they are left out.'
        for ours, theirs in plan.matching.dropped
    ]
    notes += _about_grids(plan)
    ours, theirs = plan.student.parameters, plan.teacher.parameters
    if theirs < ours:
        notes.append(
            f'the teacher ({theirs / 1e6:.1f} M parameters) is smaller than the '
            f'student ({ours / 1e6:.1f} M). Are they the wrong way round?'
        )
    if plan.student.failed:
        notes.append(
            'the loss of the student fails on a dummy batch '
            f'({plan.student.failed}), so only its backbone and neck have been tried. '
            'If its own data gives it what it needs, all is well.'
        )
    if plan.student.unreached:
        notes.append(
            'in training no gradient flows back from these layers of the student, '
            f'which are left out: {", ".join(plan.student.unreached)}. They are frozen '
            '(`frozen_stages`, `requires_grad=False`, `lr_mult=0`) or run outside of '
            'autograd.'
        )
    return [f'WARNING: {note}' for note in notes]


def _about_grids(plan: Plan) -> list[str]:
    """Where tokens have the grid of --input-size, and the config says another size."""
    bare = {f.name: None for pair in plan.pairs for f in pair if f.needs_grid}
    given = plan.image_size
    if plan.fixed or plan.input_size is None or plan.configured_size is None:
        return []
    if not bare or given is None or plan.one_size == given:
        return []
    if given[0] == given[1] and plan.has_squares:
        # Squares of any size need no grid.
        return []
    return [
        f'tokens of {", ".join(bare)} become maps by the grid of batches of '
        f'{given[0]}x{given[1]}, and training fails on others. Bring images to that '
        'size in the pipeline.'
    ]


def _about_levels(plan: Plan) -> list[str]:
    """What else was possible, and how to take it."""
    of_logits = METHODS[plan.method].compares == 'logits' or plan.of_logit_maps
    if of_logits or plan.levels != 'auto':
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
    for role, given in (('teacher', plan.teacher_ckpt), ('student', plan.student_ckpt)):
        if given is not None and not is_known(given):
            notes.append(
                f'WARNING: --{role}-ckpt {given} is neither a file, nor an address, '
                'nor a name in the model zoos. It has to be there when training starts.'
            )
    if plan.student_ckpt is None and student:
        notes.append(
            f'Weights of the student: the `load_from` of its config, {student}. '
            'Others: --student-ckpt.'
        )
    return notes


def _about_config(plan: Plan) -> list[str]:
    """What the config has of numbers that another might have chosen."""
    kinds = {plan.student.kind, plan.teacher.kind}
    others = [
        method
        for method in METHODS
        if method != plan.method and all(method in methods_for(k) for k in kinds)
    ]
    notes = [f'Method: {plan.method}. Others: --method {", ".join(others)}.']
    if plan.teacher.distillation:
        notes.append(
            f'The teacher is the student of a {plan.teacher.distillation}. Its weights '
            "are that training's checkpoint, or the student file."
        )
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
    return [*notes, *_about_loss(plan)]


def _about_loss(plan: Plan) -> list[str]:
    """The weight of the distillation, and the rate at which its connectors learn."""
    weight = plan.weight
    if is_balanced(weight):
        notes = [
            'Loss weight: found by the first iterations, which measure gradients. '
            'Numbers: --loss-weight 1 or 1,1,0.5.'
        ]
    else:
        numbers = weight if isinstance(weight, list) else [weight]
        balanced = METHODS[plan.method].by_level
        other = '; --loss-weight balance finds it by measurement' if balanced else ''
        notes = [
            f'Loss weight: {", ".join(f"{number:g}" for number in numbers)} times that '
            'of the recipe. It depends on the pair, and the report of the first step '
            f'says whether it fits. Others: --loss-weight{other}.'
        ]
    mult = connector_lr_mult(plan.student.cfg)
    if mult is not None and has_connectors(plan):
        optimizer = short_name(plan.student.cfg.optim_wrapper.optimizer.type)
        notes.append(
            f'Connectors learn {mult:g} times as fast as the student, under '
            f'{optimizer}: `lr_mult` in the config.'
        )
    return notes


def about_checkpoints(plan: Plan, added: int) -> list[str]:
    """Tell how much a training writes, where it is much.

    Args:
        plan (Plan): The plan.
        added (int): Number of weights that only training has.

    Returns:
        list[str]: A sentence, or none.
    """
    cfg = plan.student.cfg
    hook = dict((cfg.get('default_hooks') or {}).get('checkpoint') or {})
    hook.update(checkpoint_hook(cfg))
    loop = cfg.get('train_cfg') or {}
    last = loop.get('max_epochs') or loop.get('max_iters')
    if not hook or not last:
        return []
    written = max(1, last // max(1, hook.get('interval', 1)))
    most = hook.get('max_keep_ckpts', -1)
    kept = min(written, most) if most > 0 else written
    kept += bool(hook.get('save_best'))
    # Momentum, of Adam two of them.
    states = 3 if is_adaptive(cfg) else 2
    one = 4 * (plan.student.parameters * (states + 1) + added * states)
    if one * kept < _MUCH:
        return []
    keep = ' Fewer: `max_keep_ckpts` in the config.' if kept > 1 else ''
    return [
        f'Checkpoints take about {one * kept / 1e9:.0f} GB: {kept} of '
        f'{one / 1e9:.1f} GB, with a plain student beside each.{keep}'
    ]
