# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""Tables of result pages are those of their logs."""

import json
import re
from pathlib import Path

import pytest
import result_tables

REPOSITORY = Path(__file__).resolve().parents[2]
DOCS = REPOSITORY / 'docs'
LOGS = sorted((DOCS / 'en' / 'results' / 'logs').glob('*.json'))


def comparison(*scores, teacher=None):
    """Methods with two seeds each."""
    methods = [
        dict(
            method=f'method {place}',
            parameters=1000,
            added=place,
            runs=[dict(seed=seed, last=last) for seed, last in enumerate(runs)],
        )
        for place, runs in enumerate(scores)
    ]
    return dict(metric='coco/bbox_mAP', methods=methods, teacher=teacher)


def test_pages_are_as_their_logs_say():
    pages = [
        page
        for page in DOCS.rglob('*.md')
        if result_tables.TABLE.search(page.read_text())
    ]
    assert pages
    for page in pages:
        assert result_tables.fill(page) == page.read_text(), (
            f'{page}: run `python .dev_scripts/result_tables.py`'
        )


@pytest.mark.parametrize('log', LOGS, ids=lambda log: log.stem)
def test_every_comparison_stands_on_a_page(log):
    if 'methods' not in json.loads(log.read_text()):
        pytest.skip('no comparison of trainings')
    named = [
        (page.parent / match[2]).resolve()
        for page in DOCS.rglob('*.md')
        for match in result_tables.TABLE.finditer(page.read_text())
    ]
    assert log in named


def test_figures():
    lines = result_tables.write_table(comparison((0.1, 0.3), (0.2, 0.5), (0.4,)))
    assert lines[0] == (
        '| method | mAP, last | minus method 0 | seed 0 | seed 1 | added in training |'
    )
    # Deviations of 0.1 and 0.2, 0.1/sqrt(2) of their difference over sqrt(2).
    assert lines[2:] == [
        '| method 0 (1,000 parameters) | 20.0 (14.1) |  | 10.0 | 30.0 | 0 |',
        '| method 1 | 35.0 (21.2) | +15.0 ± 5.0 | 20.0 | 50.0 | 1 |',
        '| method 2 | **40.0** | +30.0 | 40.0 |  | 2 |',
    ]


def test_pairs_and_teacher():
    teacher = dict(parameters=2000, last=dict(mean=0.5))
    lines = result_tables.write_table(
        comparison((0.1, 0.2), (0.2, 0.2), (0.3, 0.1), (0.3, 0.2), teacher=teacher),
        in_pairs=True,
    )
    assert lines[2].startswith('| teacher (2,000 parameters) | 50.0 |')
    differences = [re.split(r' ?\| ?', line)[3] for line in lines[3:]]
    assert differences == ['', '+5.0 ± 5.0', '', '+5.0 ± 5.0']


def test_a_page_that_differs_is_filled_and_stays(tmp_path):
    (tmp_path / 'log.json').write_text(json.dumps(comparison((0.1, 0.2))))
    page = tmp_path / 'page.md'
    page.write_text(
        'a\n<!-- table of log.json -->\nold\n<!-- end of the table -->\nb\n'
    )
    filled = result_tables.fill(page)
    assert 'old' not in filled and '15.0 (7.1)' in filled
    assert filled.startswith('a\n') and filled.endswith('-->\nb\n')
    page.write_text(filled)
    assert result_tables.fill(page) == filled
