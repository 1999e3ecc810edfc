# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""Looks for parts of a distiller, or a teacher, that nothing uses."""

from __future__ import annotations

import logging

from mmengine.logging import print_log
from mmrazor.models.distillers import ConfigurableDistiller

from mmfakd.models.distillers.any_distiller import compared_levels

from .first_step import NOTHING_DISTILLED


def check_unused(distiller: ConfigurableDistiller) -> None:
    """Refuse losses that are never computed; tell of what is not used.

    That is of connectors that never run, and of losses that never ask the teacher.

    No mapping names them, as where a config adds KD to the levels of another and
    forgets ``loss_forward_mappings``. Of a distiller that computes its losses in a way
    of its own nothing is known.

    Args:
        distiller (ConfigurableDistiller): The distiller.

    Raises:
        ValueError: If a loss is never computed.
    """
    if not _reads_mappings(distiller):
        return
    compared = compared_levels(distiller)
    lost = [name for name in distiller.distill_losses if name not in compared]
    if lost:
        raise ValueError(
            f'distill_losses: {lost} would never be computed, as no entry of '
            '`loss_forward_mappings` (it has '
            f'{sorted(distiller.loss_forward_mappings)}) says what they get. Add, for '
            f'example, {lost[0]}=dict(preds_S=dict(recorder=..., from_student=True), '
            'preds_T=dict(recorder=..., from_student=False)), or take them out of '
            '`distill_losses`.'
        )
    for text in tell_sides(distiller):
        print_log(text, logger='current', level=logging.WARNING)
    used = {level.connector for levels in compared.values() for level in levels}
    used.update(getattr(distiller, 'own_connectors', ()))
    idle = {
        name: sum(p.numel() for p in connector.parameters() if p.requires_grad)
        for name, connector in distiller.connectors.items()
        if name not in used
    }
    if any(idle.values()):
        print_log(
            f'NEVER TRAINED: no level and no mapping names the connectors '
            f'{sorted(idle)} ({sum(idle.values()):,} weights), so they never run. '
            'Several processes would wait for their gradients. Name them as '
            '`connector` in `loss_forward_mappings`, or take them out of `connectors`.',
            logger='current',
            level=logging.WARNING,
        )


def tell_sides(distiller: ConfigurableDistiller) -> list[str]:
    """Tell of losses that compare the student with itself, or get the sides swapped.

    Args:
        distiller (ConfigurableDistiller): The distiller.

    Returns:
        list[str]: What is to be said.
    """
    if not _reads_mappings(distiller):
        return []
    return [*_without_teacher(distiller), *_swapped(distiller)]


def _without_teacher(distiller: ConfigurableDistiller) -> list[str]:
    """Tell of losses that compare the student with itself.

    A penalty on features, or a loss of labels, has no argument for a teacher's; and
    what a delivery brings to the student is the teacher's.
    """
    compared = compared_levels(distiller)
    if distiller.deliveries.deliveries:
        return []
    alone = [
        name
        for name, levels in compared.items()
        if levels and all(level.from_student for level in levels)
    ]
    if alone and len(alone) == len(compared):
        return [
            f'{NOTHING_DISTILLED}: no loss asks the teacher, as all that {alone} get '
            'says from_student=True. Give what comes from the teacher '
            'from_student=False.'
        ]
    return [
        f'{name} compares the student with itself: all its entries in '
        f'`loss_forward_mappings` say from_student=True, that of {argument!r} too. '
        'Give what comes from the teacher from_student=False, unless the method wants '
        'it so.'
        for name in alone
        for argument in distiller.loss_forward_mappings.get(name, ())
        if _is_of_teacher(argument)
    ]


def _swapped(distiller: ConfigurableDistiller) -> list[str]:
    """Tell of losses that get the teacher's as the student's, and the reverse."""
    told = []
    for name, mapping in distiller.loss_forward_mappings.items():
        ours = [arg for arg in mapping if _is_of_student(arg)]
        theirs = [arg for arg in mapping if _is_of_teacher(arg)]
        sides = [mapping[arg].get('from_student') for arg in (*ours, *theirs)]
        if ours and theirs and sides == [False] * len(ours) + [True] * len(theirs):
            told.append(
                f"{name} gets the student's {theirs} and the teacher's {ours}: its "
                'entries in `loss_forward_mappings` have from_student the wrong way '
                'round, so a loss that detaches the teacher detaches the student. Swap '
                'them, unless the method wants it so.'
            )
    return told


def _is_of_student(argument: str) -> bool:
    return argument.startswith('s_') or argument.endswith('_S')


def _is_of_teacher(argument: str) -> bool:
    """Whether a loss means the teacher's by an argument, as mmrazor names these."""
    return argument.startswith('t_') or argument.endswith('_T')


def _reads_mappings(distiller: ConfigurableDistiller) -> bool:
    """Whether it computes what mappings and levels name, and no more."""
    methods = (type(distiller).compute_distill_losses, type(distiller).get_record)
    homes = {method.__module__.partition('.')[0] for method in methods}
    return homes <= {'mmfakd', 'mmrazor'}
