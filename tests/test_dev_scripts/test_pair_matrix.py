# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""The command that tries all pairs, and the page that it writes."""

from pathlib import Path

import pair_matrix
import pytest
from model_pairs import PAIRS
from pair_matrix import Result, format_page, main, read_result

REPOSITORY = Path(__file__).resolve().parents[2]
REPORT = """\
<?xml version="1.0" encoding="utf-8"?>
<testsuites><testsuite name="pytest"><testcase name="test_pair" time="4.5">
{}</testcase></testsuite></testsuites>
"""
PROPERTIES = """\
<properties><property name="levels" value="a → b" />
<property name="added" value="1234567" /></properties>
"""
FAILURE = '<failure message="ValueError: no | levels&#10;second line">text</failure>'


@pytest.fixture
def results(tmp_path):
    """The first pair has passed, the second has failed."""
    for pair, content in zip(PAIRS, (PROPERTIES, PROPERTIES + FAILURE)):
        (tmp_path / f'{pair.name}.xml').write_text(REPORT.format(content))
    return tmp_path


def test_reports_are_read(results):
    first, second, third = (results / f'{pair.name}.xml' for pair in PAIRS[:3])
    facts = dict(levels='a → b', added='1234567')
    assert read_result(first) == Result(True, 4.5, '', facts)
    assert read_result(second) == Result(False, 4.5, 'ValueError: no | levels', facts)
    assert read_result(third) == Result()


def test_an_interrupted_test_has_not_passed(tmp_path):
    path = tmp_path / 'report.xml'
    path.write_text(
        '<testsuites><testsuite name="pytest" errors="0" failures="0" tests="0">'
        '<testcase time="0.004" /></testsuite></testsuites>'
    )
    assert read_result(path) == Result()


def test_page(results):
    found = {pair: read_result(results / f'{pair.name}.xml') for pair in PAIRS[:3]}
    page = format_page(found)
    assert '1 of 3 pairs pass.' in page
    rows = [line for line in page.splitlines() if line.startswith('|')][2:]
    assert rows[0] == (
        '| resnet/resnet18_8xb32_in1k.py | resnet/resnet34_8xb32_in1k.py '
        '| fakd-review | 64x64 | a → b | 1.23 M | passes |'
    )
    assert rows[1].endswith(r'| a → b |  | fails: ValueError: no \| levels |')
    assert rows[2].endswith('|  |  | not tried |')


def test_a_passed_pair_is_not_tried_again(results, capsys, monkeypatch):
    tried = []

    def note(name, *args):
        tried.append(name)
        return Result(True)

    monkeypatch.setattr(pair_matrix, 'try_pair', note)
    names = [pair.name for pair in PAIRS[:2]]
    options = ['--results', str(results), '--page', str(results / 'page.md')]
    assert main([*names, *options]) == 0
    assert tried == names[1:]
    assert main([*names, *options, '--again']) == 0
    assert tried == [names[1], *names]
    assert main([*names, *options, '--write-only']) == 1
    assert tried == [names[1], *names]
    assert '1 pass, 1 fail' in capsys.readouterr().out
    assert '1 of ' in (results / 'page.md').read_text()


def test_limits(tmp_path):
    path = tmp_path / 'report.xml'
    late = pair_matrix.try_pair(PAIRS[0].name, path, timeout=0.2, memory=24)
    assert str(late) == 'fails: took longer than 0.2 s'
    small = pair_matrix.try_pair(PAIRS[0].name, path, timeout=60, memory=0.3)
    assert small.passed is False
    assert not path.exists()


def test_the_page_in_the_docs_is_complete():
    page = (REPOSITORY / 'docs' / 'en' / 'model_pairs.md').read_text()
    for pair in PAIRS:
        models = [pair_matrix._short(path) for path in (pair.student, pair.teacher)]
        row = f'| {" | ".join([*models, pair.method])} |'
        [line] = [line for line in page.splitlines() if line.startswith(row)]
        assert line.endswith('| passes |')
