# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""What mmfakd's own metafiles say of results and weights, for the command line."""

from __future__ import annotations

import fnmatch
import os.path as osp
from collections.abc import Iterator, Mapping

from mmfakd.messages import aligned, near_names

from .find import zoo_entries

_HEADING = ('name', 'data', 'score', 'of the weights', 'mean of the seeds', 'weights')


def list_published(pattern: str = '*') -> str:
    """List the models that have weights or results.

    Args:
        pattern (str): Which of them, as in a shell.

    Returns:
        str: A table: the score of the published weights, the mean over all seeds that
        were run with its spread, and where the weights are.

    Raises:
        ValueError: If none fits.
    """
    entries = {
        entry['Name']: entry
        for entry in zoo_entries('mmfakd')
        if 'Published' in entry or 'Results' in entry
    }
    found = fnmatch.filter(entries, pattern)
    if not found:
        near = near_names(pattern.strip('*'), entries)
        raise ValueError(
            f'no model with weights or results fits {pattern!r}.'
            + (f' Near names: {", ".join(near)}.' if near else '')
            + " All of them: mmfakd zoo list. Patterns are as in '*digits*'."
        )
    rows = [row for name in found for row in _rows(entries[name])]
    return aligned([_HEADING, *rows])


def published_entry(name: str) -> dict:
    """Find what a metafile says of a model whose weights are published.

    Args:
        name (str): Its name, whatever its capitals, with ``'mmfakd::'`` or not.

    Returns:
        dict: The entry; ``Weights`` is a path, or an address.

    Raises:
        ValueError: If there is no such model, or it has no weights that can be had.
            Near names are listed.
    """
    entries = {entry['Name'].lower(): entry for entry in zoo_entries('mmfakd')}
    entry = entries.get(name.rpartition('::')[2].lower())
    if entry is not None and entry['Weights']:
        return entry
    near = near_names(name, [e['Name'] for e in entries.values() if e['Weights']])
    told = f' Near names: {", ".join(near)}.' if near else ''
    if entry is None:
        raise ValueError(
            f'{name!r} is no model of mmfakd.{told} All of them: mmfakd zoo list.'
        )
    file, why = entry.get('Published'), 'no weights are published.'
    if file:
        why = (
            f'its weights, {file["File"]} of {file["Size (MB)"]} MB, are too large for '
            'the package, and have no address yet.'
        )
    train = f'To train them: `mmfakd train {entry["Name"]}`.'
    raise ValueError(f'{entry["Name"]}: {why}{told} {train}')


def _rows(entry: Mapping) -> Iterator[tuple[str, ...]]:
    """A row for each data set that a model was measured on."""
    published = entry.get('Published') or {}
    own = published.get('Metrics') or {}
    for result in entry.get('Results') or [dict(Dataset='', Metrics=own)]:
        score = next(iter(result['Metrics']))
        yield (
            entry['Name'],
            result['Dataset'],
            score,
            _digits(own[score], score) if score in own else '-',
            _mean(result['Metrics']),
            _place(entry['Weights'], published),
        )


def _mean(metrics: Mapping) -> str:
    score, mean = next(iter(metrics.items()))
    seeds = metrics.get('Seeds', 1)
    spread = ''
    if 'Spread' in metrics:
        spread = f', spread {_digits(metrics["Spread"], score)}'
    return f'{_digits(mean, score)} ({seeds} seed{"s" * (seeds > 1)}{spread})'


def _digits(value: float, score: str) -> str:
    """Tenths of an AP, hundredths of an accuracy."""
    return f'{value:.1f}' if score.endswith('AP') else f'{value:.2f}'


def _place(weights: str | None, published: Mapping) -> str:
    if not published:
        return '-'
    size = f'{published["Size (MB)"]} MB'
    if weights is None:
        return f'{size}, no address yet'
    return f'{size}, here' if osp.isfile(weights) else f'{size}, to download'
