# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""Measurements as Markdown."""

from __future__ import annotations

from mmfakd.messages import markdown

from .growth import exponent, growth_lines
from .launch_tables import format_launches
from .measure import side_bytes

TITLES = {
    'layers': 'Layers, forward and backward',
    'limits': 'Layers and their parts alone',
    'pyramid': 'Pyramids, forward and backward',
    'step': 'Whole training step',
    'detection': 'Detection, forward and backward',
    'growth': 'Growth of one level, forward and backward',
    'ways': 'Ways chosen by measurement, forward and backward',
    'compile': 'Compiled steps',
}
_NOTE = (
    'Time, memory and parameters are relative to "{first}"; in brackets the quartiles '
    'over the rounds. Memory is the most that tensors take at once beyond what was '
    'there before: with gradients, and without weights. The column after it adds those '
    'that are learned{held}.'
)
_HELD = ", and of a whole step the teacher's and the state of the optimizer, too"


def format_machine(report: dict) -> str:
    """Say in a sentence what was measured on, and how.

    Args:
        report (dict): The figures that :func:`~.run.run_benchmark` writes.

    Returns:
        str: The sentence.
    """
    machine, settings = report['machine'], report['settings']
    cuda = ''
    if machine['cuda']:
        tf32 = ', '.join(machine['tf32']) or 'nothing'
        cuda = f', CUDA {machine["cuda"]} (in TensorFloat-32: {tf32})'
    return (
        f'{machine["processor"]}, {_count(settings["threads"], "CPU thread")}, '
        f'torch {machine["torch"]}{cuda}, mixed precision: {settings["amp"]}; a large '
        f'matrix product runs at {machine["flop_per_second"] / 1e9:.0f} GFLOP/s, a '
        f'large copy at {machine["bytes_per_second"] / 1e9:.1f} GB/s. '
        f'{_count(settings["rounds"], "round")}.'
    )


def format_suite(name: str, cases: list[dict]) -> str:
    """Format the measurements of a suite as a Markdown table.

    Args:
        name (str): The suite.
        cases (list[dict]): What ``measure`` returned for its cases.

    Returns:
        str: Heading and table; ratios come first, as machines differ.
    """
    if name == 'launches':
        return format_launches(cases)
    if name == 'compile':
        return format_compiled(cases)
    header = ['case', 'side', 'time', 'memory', 'parameters']
    header += ['ms', 'peak MB', 'with weights', 'number of parameters']
    rows = [header]
    for case in cases:
        for index, side in enumerate(case['sides']):
            memory, peak = side['memory_ratio'], side['peak_bytes']
            ratios = [
                _quartiles(side['time_ratio'], 1, '.2f'),
                '' if memory is None else f'{memory:.2f}',
                f'{side["parameter_ratio"]:.2f}',
            ]
            figures = [
                _quartiles(side['seconds'], 1e3, '.4g'),
                f'{peak / 1e6:.4g}',
                f'{side_bytes(side) / 1e6:.4g}',
                f'{side["parameters"]:,}',
            ]
            names = ['' if index else case['name'], side['name']]
            rows.append([*names, *(ratios if index else ['1'] * 3), *figures])
    held = any('held_bytes' in side for case in cases for side in case['sides'])
    first = cases[0]['sides'][0]['name']
    note = _NOTE.format(first=first, held=_HELD if held else '')
    return '\n'.join([f'### {TITLES[name]}', '', *markdown(rows), '', note])


def format_compiled(cases: list[dict]) -> str:
    """Format what compiling gains and takes.

    Args:
        cases (list[dict]): What ``measure_compiled`` returned.

    Returns:
        str: Heading and table.
    """
    rows = [['case', 'compiled by', 'time', 'first two steps, s', 'graphs', 'more']]
    for case in cases:
        for side in case['sides']:
            ratio = _quartiles(side['time_ratio'], 1, '.2f')
            figures = [f'{side["first"]:.0f}', str(side['graphs'])]
            more = ', '.join(map(str, side['more']))
            rows.append([case['name'], side['name'], ratio, *figures, more])
    note = (
        'Time is relative to the step that is not compiled; more are the graphs that '
        'three further batch sizes add.'
    )
    return '\n'.join([f'### {TITLES["compile"]}', '', *markdown(rows), '', note])


def format_growth(cases: list[dict]) -> str:
    """Format how fast cost grows.

    Args:
        cases (list[dict]): What ``measure`` returned for the cases of the suite.

    Returns:
        str: A Markdown table of the exponents between the two largest sizes; nothing
        where no quantity has two.
    """
    rows = [['grows with', 'from', 'side', 'exponent of time', 'exponent of memory']]
    for quantity, sides in growth_lines(cases).items():
        for side, points in sides.items():
            sizes = f'{points[-2]["value"]} to {points[-1]["value"]}'
            powers = [f'{exponent(points, key):.2f}' for key in ('seconds', 'bytes')]
            rows.append([quantity, sizes, side, *powers])
    return '\n'.join(markdown(rows)) if len(rows) > 1 else ''


def _count(number: int, noun: str) -> str:
    return f'{number} {noun}{"s" if number > 1 else ""}'


def _quartiles(values: dict, factor: float, digits: str) -> str:
    """The median, and in brackets the first and the third quartile."""
    low, middle, high = (
        f'{factor * values[key]:{digits}}' for key in ('q1', 'median', 'q3')
    )
    return f'{middle} ({low}-{high})'
