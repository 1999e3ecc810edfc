# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""What `mmfakd benchmark --suite launches -o` counted, before and after a change.

A file NAME.json has what was counted before beside it, as NAME_before.json.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

from mmfakd.analysis.benchmark.launch_tables import format_launches
from mmfakd.analysis.benchmark.step_parts import PARTS
from mmfakd.messages import markdown

# Column -> the log's ending, and the path of the GPU that was counted.
COLUMNS = {
    'before': ('_before', 'GPU'),
    'now': ('', 'GPU'),
    "now, with Triton's kernels": ('', 'GPU, Triton'),
}
METHODS = ('ReviewKD', 'FAM-KD, layer to layer', 'FAM-KD')
KEYS = ('operations', 'read', 'written')
NONE = dict.fromkeys(KEYS, 0)
Side = dict[str, int]


def read_sides(log: Path, path: str, size: str) -> dict[str, dict]:
    """Read what was counted of one case.

    Args:
        log (Path): What the benchmark wrote.
        path (str): Path of the device.
        size (str): The setting that tells the case: ``'pixels'`` for the steps of
            R56-R20, ``'height'`` for the connectors of a detector.

    Returns:
        dict[str, dict]: Name of a side -> its counts.
    """
    cases = json.loads(log.read_text())['suites']['launches']
    [sides] = [
        case['sides']
        for case in cases
        # What is timed is not counted part by part.
        if case.get('path') == path and size in case and 'parts' in case['sides'][0]
    ]
    return {side['name']: side for side in sides}


def _less(side: Side, floor: Side) -> Side:
    return {key: side[key] - floor[key] for key in KEYS}


def _added(sides: dict[str, dict]) -> dict[str, Side]:
    """What each method adds to the student and the teacher."""
    floor, *_ = sides.values()
    return {name: _less(sides[name], floor) for name in METHODS}


def _parts(sides: dict[str, dict]) -> dict[str, Side]:
    """What review adds, by part of a step."""
    floor, *_, review = sides.values()
    pairs = {p: [s['parts'].get(p, NONE) for s in (review, floor)] for p in PARTS}
    added = {part: _less(*pair) for part, pair in pairs.items()}
    found = {part: side for part, side in added.items() if any(side.values())}
    return {**found, 'in all': _less(review, floor)}


def _connectors(sides: dict[str, dict]) -> dict[str, Side]:
    """What the connectors of a detector take."""
    return {name: sides[name] for name in METHODS}


TABLES: dict[str, tuple[str, str, Callable[[dict[str, dict]], dict[str, Side]]]] = {
    'added': ('method', 'pixels', _added),
    'parts': ('part', 'pixels', _parts),
    'connectors': ('connectors', 'height', _connectors),
}


def write_launches(log: Path, which: str) -> list[str]:
    """Write a table of operations and megabytes.

    Args:
        log (Path): What was counted now.
        which (str): ``'added'``: what methods add to a step; ``'parts'``: what review
            adds, by part; ``'connectors'``: those of a detector. Or a case that the
            suite times: ``'host'``, ``'order'`` or ``'traffic'``.

    Returns:
        list[str]: Its lines, in Markdown.
    """
    if which not in TABLES:
        cases = json.loads(log.read_text())['suites']['launches']
        # The page has a heading of its own.
        return format_launches([c for c in cases if c['name'] == which]).splitlines()[
            2:
        ]
    first, size, select = TABLES[which]
    columns = [
        select(read_sides(log.with_name(f'{log.stem}{end}.json'), path, size))
        for end, path in COLUMNS.values()
    ]
    names = dict.fromkeys(name for column in columns for name in column)
    rows = [[name, *(_cell(c.get(name, NONE)) for c in columns)] for name in names]
    return markdown([[first, *COLUMNS], *rows])


def _cell(side: Side) -> str:
    return f'{side["operations"]} ({(side["read"] + side["written"]) / 1e6:.0f})'
