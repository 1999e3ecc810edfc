# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""The table of versions: what ran, no more and no less."""

import ast
import json
from pathlib import Path

import prove_versions
import pytest
import versions_table

ROOT = Path(__file__).resolve().parents[2]
PAGE = versions_table.PAGE


def test_page_has_the_table_of_the_logs():
    assert versions_table.filled(PAGE.read_text()) == PAGE.read_text()


def test_table_is_written_between_its_markers():
    text = 'a\n<!-- versions -->\nold\n<!-- end of versions -->\nb\n'
    lines = versions_table.filled(text).splitlines()
    assert lines[:2] == ['a', '<!-- versions -->']
    assert lines[2].startswith('| session | Python | torch | torchvision | NumPy |')
    assert lines[2].endswith('| digits | passed | skipped | failed | date |')
    assert lines[-2:] == ['<!-- end of versions -->', 'b']


def test_page_and_logs_know_the_sessions_of_nox():
    tree = ast.parse((ROOT / 'noxfile.py').read_text())
    (stacks,) = (
        node.value
        for node in tree.body
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == 'STACKS'
    )
    names = {ast.literal_eval(key) for key in stacks.keys}
    page = PAGE.read_text()
    assert all(f'| `{name}` | 3.' in page for name in names)
    assert {file.stem for file in prove_versions.LOGS.glob('*.json')} <= names


def test_row_says_what_failed_and_what_was_not_tried():
    log = {'date': '2026-01-01', 'versions': {'python': '3.13.0', 'mmcv': '2.1.0'}}
    log['versions']['operators'] = 'yes'
    cells = versions_table.row('some', log)
    assert len(cells) == 1 + len(versions_table.LIBRARIES) + len(versions_table.RESULTS)
    assert cells[7] == '2.1.0 with operators'
    assert cells[-5:] == ['-', '-', '-', '-', '2026-01-01']
    log['digits'] = {'ok': False, 'reason': 'KeyError: 3'}
    log['tests'] = {'ok': False, 'passed': 7, 'skipped': 2, 'failed': 1}
    assert versions_table.row('some', log)[-5:-1] == [
        'KeyError: 3',
        '7',
        '2',
        '1',
    ]


def test_counts_are_those_of_pytest(tmp_path):
    file = tmp_path / 'test_some.py'
    file.write_text(
        'import pytest\n'
        'def test_right(): pass\n'
        'def test_wrong(): assert 0\n'
        'def test_left_out(): pytest.skip("no GPU")\n'
        '@pytest.fixture\n'
        'def broken(): raise ValueError\n'
        'def test_error(broken): pass\n'
    )
    found = prove_versions.run_tests(tmp_path, [str(file), '-p', 'no:cacheprovider'])
    assert not found.pop('ok')
    assert (found['passed'], found['skipped'], found['failed']) == (1, 1, 2)
    assert [name.split('::')[1] for name in found['failures']] == [
        'test_wrong',
        'test_error',
    ]


def test_versions_name_the_flavour_of_mmcv():
    found = prove_versions.versions()
    assert found['torch'] and found['numpy']
    assert found['operators'] in ('yes', 'no')
    assert json.dumps(found)


def test_step_that_fails_ends_with_its_last_line(capsys):
    with pytest.raises(prove_versions.StepError, match='no such thing'):
        prove_versions.step('sh', '-c', 'echo no such thing; exit 3')
