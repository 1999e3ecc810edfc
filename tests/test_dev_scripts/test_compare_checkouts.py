# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""Two checkouts take turns, each in a process of its own."""

import sys

import compare_checkouts
import pytest

# Says in which checkout it is, and takes twice as long in the first one.
WORKER = """
import os, sys
slow = os.path.basename(os.environ['PYTHONPATH']) != 'other'
print('a line of a log')
print('sides:floor|FAM-KD', flush=True)
for line in sys.stdin:
    print('took:', (1 + int(line)) * (2 if slow else 1), flush=True)
"""


@pytest.fixture
def other(tmp_path, monkeypatch):
    monkeypatch.setattr(compare_checkouts, 'WORKER', WORKER)
    (tmp_path / 'other').mkdir()
    return tmp_path / 'other'


def test_ratios_and_times_of_this_checkout(other, monkeypatch, capsys):
    monkeypatch.setattr(sys, 'argv', ['compare', str(other), '--rounds', '3'])
    compare_checkouts.main()
    assert capsys.readouterr().out.splitlines()[2:] == [
        '| floor | 2.000 (2.000-2.000) | 2000.0 |',
        '| FAM-KD | 2.000 (2.000-2.000) | 4000.0 |',
    ]


def test_a_process_that_ends_is_told(other, monkeypatch):
    monkeypatch.setattr(compare_checkouts, 'WORKER', 'print("sides:floor")')
    process = compare_checkouts.start(other, 1, 64)
    assert compare_checkouts.read(process, 'sides:') == 'floor'
    with pytest.raises(RuntimeError, match='ended before it answered'):
        compare_checkouts.read(process, 'took:')
    process.wait()


def test_the_worker_takes_its_settings():
    """It is a program once threads and images are filled in."""
    code = compare_checkouts.WORKER.format(threads=1, batch=4)
    compile(code, 'worker', 'exec')
    assert 'set_num_threads(1)' in code and 'Options(), 4, 32' in code
