# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""The log of a table: whole or as it was, and of no other runs than the table's."""

import json
import re
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from run_table import read_table
from table_log import TableLog
from table_run import TableRun

ROOT = Path(__file__).resolve().parents[2]


def make(folder, name, seed=0):
    return TableRun(name, f'{name}.py', [], seed, folder / f'{name}_seed{seed}')


def methods(path):
    return [method['method'] for method in json.loads(path.read_text())['methods']]


def test_the_log_changes_once(stand_in, tmp_path, monkeypatch):
    """Killed before all is known of a run, the run is not in it."""
    log = TableLog(tmp_path / 'log.json', ['a', 'b'])
    log.add(make(tmp_path, 'b'))
    before = log.path.read_text()
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(TableLog, '_complete', interrupt)
        log.add(make(tmp_path, 'a'))
    assert log.path.read_text() == before and not log.knows(make(tmp_path, 'a'))
    log.add(make(tmp_path, 'a'))
    assert methods(log.path) == ['a', 'b'] and log.knows(make(tmp_path, 'a'))
    changed = TableRun('a', 'a.py', ['lr=1'], 0, tmp_path / 'a_seed0')
    assert not log.knows(changed)


def interrupt(*_):
    raise KeyboardInterrupt


def test_two_tables_add_to_one_log(stand_in, tmp_path):
    logs = [TableLog(tmp_path / 'new/log.json', ['a', 'b']) for _ in range(2)]
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(lambda log, name: log.add(make(tmp_path, name)), logs, 'ab'))
    assert sorted(methods(tmp_path / 'new/log.json')) == ['a', 'b']


@pytest.mark.parametrize('text', [b'', b'{"methods": [', b'{}', b'null', b'\xff\x00'])
def test_damaged_log(text, tmp_path):
    log = TableLog(tmp_path / 'log.json', ['a'])
    log.path.write_bytes(text)
    told = f'{re.escape(str(log.path))}: expected what `mmfakd compare --json` wrote'
    for use in (log.knows, log.add):
        with pytest.raises(ValueError, match=told):
            use(make(tmp_path, 'a'))
    assert log.path.read_bytes() == text


@pytest.mark.parametrize(
    'table',
    [
        'bccd_capacity',
        'bccd_gfl',
        'cifar100_default',
        'cifar100_layer',
        'cifar100_short',
        'cifar100_weak_teacher',
        'cifar100_wrn',
    ],
)
def test_committed_logs_are_of_their_tables(table, monkeypatch):
    """Their runs were made before it was written what a run needs."""
    monkeypatch.chdir(ROOT)
    place = Path('work_dirs') / table
    _, runs, log = read_table(Path(f'.dev_scripts/studies/{table}.yml'), place)
    known = {(run.name, run.seed) for run in runs if log.knows(run)}
    found = json.loads(log.path.read_text())['methods']
    logged = {(each['method'], run['seed']) for each in found for run in each['runs']}
    assert known and known == {(run.name, run.seed) for run in runs} & logged


def test_dropped_rows(stand_in, tmp_path):
    """What others are compared with, one, and the last."""
    log = TableLog(tmp_path / 'log.json', ['a', 'b', 'c'])
    for name in 'abc':
        log.add(make(tmp_path, name))
    with pytest.raises(ValueError, match="has no 'd'"):
        log.drop(['a', 'd'])
    assert methods(log.path) == ['a', 'b', 'c']
    log.drop(['a'])
    text = json.loads(log.path.read_text())
    assert methods(log.path) == ['b', 'c'] and text['baseline'] == 'b'
    assert [each['difference'] is None for each in text['methods']] == [True, False]
    log.add(make(tmp_path, 'a'))
    assert methods(log.path) == ['a', 'b', 'c']
    log.drop(['a', 'b', 'c'])
    assert not log.path.exists()
