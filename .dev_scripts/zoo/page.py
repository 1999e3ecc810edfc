# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""The tables of the zoo's page."""

from __future__ import annotations

import re
from typing import Any

from mmfakd.messages import markdown

from .table import REPOSITORY

PAGE = 'docs/en/model_zoo.md'
_TABLE = re.compile(
    r'(<!-- zoo of (\w+) -->\n)(.*?)(<!-- end of the zoo -->)', re.DOTALL
)
_HEADING = (
    'name',
    '{metric} of the weights',
    'mean (spread)',
    'seeds',
    'parameters',
    'weights',
    'memory of a step',
    'time of the training',
)


def fill_page(metafiles: dict[str, dict[str, Any]]) -> str:
    """Write the page with its tables as the metafiles have them.

    Args:
        metafiles (dict): By folder, what stands in them.

    Returns:
        str: Its text.
    """

    def table(match: re.Match[str]) -> str:
        models = [m for m in metafiles[match[2]]['Models'] if 'Results' in m]
        metric = next(iter(models[0]['Results'][0]['Metrics']))
        heading = [cell.format(metric=metric) for cell in _HEADING]
        rows = markdown([heading, *map(_row, models)])
        return '\n'.join([match[1], *rows, '', match[4]])

    return _TABLE.sub(table, (REPOSITORY / PAGE).read_text())


def _row(model: dict[str, Any]) -> list[str]:
    (result,), metadata = model['Results'], model['Metadata']
    (metric, mean), *others = result['Metrics'].items()
    seeds = dict(others)
    decimals = 1 if metric == 'box AP' else 2
    spread = f' ({seeds["Spread"]:.{decimals}f})' if 'Spread' in seeds else ''
    published = model.get('Published')
    own = f'{published["Metrics"][metric]:.{decimals}f}' if published else ''
    memory = metadata.get('Training Memory (MB)')
    return [
        f'[{model["Name"]}](../../{model["Config"]})',
        own,
        f'{mean:.{decimals}f}{spread}',
        str(seeds['Seeds']),
        f'{metadata["Parameters"]:,}',
        _weights(published, model.get('Weights')),
        '' if memory is None else f'{memory} MB',
        f'{metadata["Training Time (s)"]:,} s',
    ]


def _weights(published: dict[str, Any] | None, weights: str | None) -> str:
    if published is None:
        return ''
    size = f'{published["Size (MB)"]} MB'
    return size if weights else f'{size}, not in the package'
