# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""Write the table of versions into docs/en/versions.md.

    python .dev_scripts/versions_table.py

It comes from the logs of what ran, which ``prove_versions.py`` writes. Standard library
only: ``noxfile.py`` calls this in the environment of nox.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).resolve().parents[1]
LOGS = REPOSITORY / 'docs' / 'en' / 'versions'
PAGE = REPOSITORY / 'docs' / 'en' / 'versions.md'
LIBRARIES = {
    'python': 'Python',
    'torch': 'torch',
    'torchvision': 'torchvision',
    'numpy': 'NumPy',
    'opencv': 'OpenCV',
    'mmengine': 'MMEngine',
    'mmcv': 'mmcv',
    'setuptools': 'setuptools',
}
RESULTS = ('digits', 'passed', 'skipped', 'failed', 'date')


def row(name: str, log: dict[str, Any]) -> list[str]:
    """Put a log into a row.

    Args:
        name (str): The session.
        log (dict[str, Any]): What came of it.

    Returns:
        list[str]: The cells.
    """
    versions = dict(log['versions'])
    if versions.get('operators') == 'yes':
        versions['mmcv'] += ' with operators'
    digits, tests = log.get('digits', {}), log.get('tests', {})
    accuracy = digits.get('accuracy')
    distilled = f'{accuracy:.1f} %' if digits.get('ok') else digits.get('reason', '-')
    counts = (str(tests.get(key, '-')) for key in ('passed', 'skipped', 'failed'))
    cells = (versions.get(key, '-') for key in LIBRARIES)
    return [f'`{name}`', *cells, distilled, *counts, log['date']]


def table() -> str:
    """Draw a table of all logs.

    Returns:
        str: It, in Markdown.
    """
    logs = {file.stem: json.loads(file.read_text()) for file in LOGS.glob('*.json')}
    header = ['session', *LIBRARIES.values(), *RESULTS]
    rows = [row(name, logs[name]) for name in sorted(logs)]
    lines = [header, ['---'] * len(header), *rows]
    return ''.join(f'| {" | ".join(cells)} |\n' for cells in lines)


def filled(text: str) -> str:
    """Put the table into a page.

    Args:
        text (str): The page.

    Returns:
        str: It, with what stands between `<!-- versions -->` and its end anew.
    """
    marked = r'(<!-- versions -->\n).*?(<!-- end of versions -->)'
    return re.sub(marked, lambda m: m[1] + table() + m[2], text, flags=re.DOTALL)


if __name__ == '__main__':
    PAGE.write_text(filled(PAGE.read_text()))
