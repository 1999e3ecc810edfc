# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""Tables of result pages are those of their logs."""

import json
import re
from pathlib import Path

import pytest
import result_tables
from comparison_table import write_table
from decision_table import GAINS, PAGES
from gains_table import write_gains
from log_figures import write_figure

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
        for page in result_tables.pages()
        if result_tables.TABLE.search(page.read_text())
        or result_tables.FIGURE.search(page.read_text())
    ]
    assert len(pages) >= 7
    for page in pages:
        assert result_tables.fill(page) == page.read_text(), (
            f'{page}: run `python .dev_scripts/result_tables.py`'
        )


@pytest.mark.parametrize('log', LOGS, ids=lambda log: log.stem)
def test_every_comparison_stands_on_a_page(log):
    if 'methods' not in json.loads(log.read_text()):
        pytest.skip('no comparison of trainings')
    named = [
        (page.parent / match['log']).resolve()
        for page in result_tables.pages()
        for match in result_tables.TABLE.finditer(page.read_text())
        if match['log']
    ]
    assert log in named


def test_figures():
    lines = write_table(comparison((0.1, 0.3), (0.2, 0.5), (0.4,)))
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
    lines = write_table(
        comparison((0.1, 0.2), (0.2, 0.2), (0.3, 0.1), (0.3, 0.2), teacher=teacher),
        'in pairs',
    )
    assert lines[2].startswith('| teacher (2,000 parameters) | 50.0 |')
    differences = [re.split(r' ?\| ?', line)[3] for line in lines[3:]]
    assert differences == ['', '+5.0 ± 5.0', '', '+5.0 ± 5.0']


def test_in_short():
    lines = write_table(comparison((0.1, 0.3), (0.2, 0.5)), 'in short')
    assert lines[0] == '| method | mAP, last | minus method 0 | added in training |'
    assert lines[3] == '| method 1 | **35.0 (21.2)** | +15.0 ± 5.0 | 1 |'
    # Means of different seeds say of how many.
    lines = write_table(comparison((0.1, 0.3), (0.2,)), 'in short')
    assert lines[0].endswith('| minus method 0 | seeds | added in training |')
    assert lines[3] == '| method 1 | **20.0** | +10.0 | 1 | 1 |'


def test_single_figures():
    log = comparison(
        (0.1, 0.3), (0.2, 0.5), teacher=dict(runs=[dict(seed=0, last=0.9)])
    )
    log['teacher'].update(method='teacher', parameters=2000)
    log['methods'][1].update(seconds=61.4)
    log['methods'][1]['runs'][0]['curve'] = [[1, 0.05], [2, 0.111]]
    figures = {
        'last; method 1': '35.0',
        'last; method 1; 1': '50.0',
        'last; teacher': '90.0',
        'spread; method 0': '14.1',
        'gain; method 1': '+15.0 ± 5.0',
        'gain; method 0; method 1': '-15.0 ± 5.0',
        'epoch 2; method 1; 0': '11.1',
        'seconds; method 1': '61',
        'added; method 1': '1',
        'parameters; teacher': '2,000',
    }
    assert {words: write_figure(log, words) for words in figures} == figures
    with pytest.raises(ValueError, match="no method 'x'; there are 'method 0',"):
        write_figure(log, 'last; x')
    with pytest.raises(ValueError, match='no such figure; there are last, epoch'):
        write_figure(log, 'most; method 1')


def test_gains_of_all_sets():
    """Each row has the figures of its log."""
    logs = {'digits': '', 'CIFAR-100': ',', 'BCCD': ','}
    rows = [line.strip('| ').split(' | ') for line in write_gains()]
    assert rows[0][-2:] == ['gain', 'seeds'] and len(rows) == 2 + len(logs)
    for name, score, alone, taught, gain, seeds in rows[2:]:
        log = json.loads((PAGES / GAINS[name][0]).read_text())
        method = f'FAM-KD{logs[name]} layer to layer'
        assert gain == write_figure(log, f'gain; {method}')
        for cell, of in ((alone, 'student alone'), (taught, method)):
            mean, spread = (write_figure(log, f'{w}; {of}') for w in ('last', 'spread'))
            assert cell == f'{mean} ({spread})'
        assert score in ('top-1, %', 'mAP') and seeds == '5'


def test_figures_within_a_sentence(tmp_path):
    (tmp_path / 'log.json').write_text(json.dumps(comparison((0.1, 0.2))))
    page = tmp_path / 'page.md'
    mark = '<!-- figure: log.json; last; method 0 -->'
    page.write_text(f'It has {mark}9<!-- end --> and {mark}<!-- end --> points.\n')
    text = f'It has {mark}15.0<!-- end --> and {mark}15.0<!-- end --> points.\n'
    assert result_tables.fill(page) == text
    page.write_text(f'It has\n{mark}9<!-- end --> points.\n')
    with pytest.raises(ValueError, match='begins a line, and so would end its paragr'):
        result_tables.fill(page)


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
