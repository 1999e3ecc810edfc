# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""Counted operations as Markdown."""

from __future__ import annotations

from mmfakd.messages import markdown

from .step_parts import PARTS

_NOTES = {
    'counted': 'Operations handed to the device, and the MB (10^6 bytes) that they '
    'read and write, each number once.',
    'hooks': 'What the hooks of the runner read of the losses, each iteration: the '
    'host waits for each number.',
    'host': 'Steps of {batch} images of {pixels} px, whose maps take no time: the '
    "processor's time of Python, dispatch, autograd and calls, the least of "
    '{rounds} rounds.',
    'order': 'Steps of {batch} images of {pixels} px on this CPU: operations, and the '
    "processor's time, the least of {rounds} rounds.",
    'kernels': 'What the GPU ran in a step, by its own records; busy is the time of '
    'its kernels and transfers, the rest of the step it waits for the host.',
    'traffic': 'Operations that wait for memory: counted bytes over measured time.',
}


def format_launches(cases: list[dict]) -> str:
    """Format the cases of the suite launches.

    Args:
        cases (list[dict]): What was measured of them.

    Returns:
        str: A table for each case, with a heading and a note.
    """
    blocks = []
    for case in cases:
        rows = _FORMATS.get(case['name'], counted_rows)(case)
        note = _NOTES.get(case['name'], _NOTES['counted'])
        if case['name'] in ('host', 'order'):
            rounds = len(case['sides'][0]['seconds']['rounds'])
            note = note.format(rounds=rounds, **case)
        lines = [f'### Launches: {case["name"]}', '', *markdown(rows), '', note]
        blocks.append('\n'.join(lines))
    return '\n\n'.join(blocks)


def counted_rows(case: dict) -> list[list[str]]:
    """Make the table of a case whose operations were counted.

    Args:
        case (dict): What :func:`~.launches.count` returned.

    Returns:
        list[list[str]]: The header; a row for each part of the step, with the
        operations of each side and their MB; the sums; and, where the first side has
        networks, how much more the others are.
    """
    sides = case['sides']
    rows = [['part', *(side['name'] for side in sides)]]
    for part in PARTS:
        found = [side['parts'].get(part) for side in sides]
        if any(found):
            rows.append([part, *map(_cell, found)])
    rows.append(['in all', *map(_cell, sides)])
    if PARTS[0] in sides[0]['parts']:
        keys = ('operations', 'read', 'written')
        added = [{k: side[k] - sides[0][k] for k in keys} for side in sides[1:]]
        rows.append(['added', '', *map(_cell, added)])
    return rows


def _cell(numbers: dict | None) -> str:
    if not numbers:
        return ''
    megabytes = (numbers['read'] + numbers['written']) / 1e6
    return f'{numbers["operations"]} ({megabytes:.0f})'


def _hook_rows(case: dict) -> list[list[str]]:
    rows = [[side['name'], str(side['waits'])] for side in case['sides']]
    return [['method', 'numbers read'], *rows]


def _time_rows(case: dict) -> list[list[str]]:
    rows = [['step', 'operations', 'ms', 'µs an operation']]
    for side in case['sides']:
        least, number = side['seconds']['least'], side['operations']
        figures = [f'{1e3 * least:.1f}', f'{1e6 * least / number:.1f}']
        rows.append([side['name'], str(number), *figures])
    return rows


def _kernel_rows(case: dict) -> list[list[str]]:
    rows = [['step', 'kernels', 'transfers', 'busy, ms', 'step, ms']]
    for side in case['sides']:
        counts = [f'{side[key]:.0f}' for key in ('kernels', 'transfers')]
        times = [f'{1e3 * side[key]:.2f}' for key in ('busy', 'seconds')]
        rows.append([side['name'], *counts, *times])
    return rows


def _traffic_rows(case: dict) -> list[list[str]]:
    rows = [['operation', 'counted MB', 'ms', 'GB/s']]
    for side in case['sides']:
        figures = side['bytes'] / 1e6, 1e3 * side['seconds']
        speed = f'{side["bytes_per_second"] / 1e9:.1f}'
        rows.append([side['name'], *(f'{x:.1f}' for x in figures), speed])
    return rows


_FORMATS = {
    'hooks': _hook_rows,
    'host': _time_rows,
    'order': _time_rows,
    'kernels': _kernel_rows,
    'traffic': _traffic_rows,
}
