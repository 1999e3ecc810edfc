# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""Killed at any of its file operations, a training loses nothing.

A plain test run kills one training a few times; `-m kills` kills every kind of them 40
times and 20 times at random moments, which takes hours. `tests/helpers/killing.py` does
the same one case at a time.
"""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from mmfakd.cli import main
from tests.helpers import killing

CHECKPOINTS = '[.]pth|last_checkpoint'
needs_compiler = pytest.mark.skipif(
    shutil.which('gcc') is None or not sys.platform.startswith('linux'),
    reason='the library that kills is compiled by gcc, for Linux',
)


def kill(*arguments):
    """Run the script.

    Returns:
        The completed process.
    """
    command = [sys.executable, killing.__file__, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True)


@pytest.fixture(scope='module')
def sample(tmp_path_factory):
    """The script's output, and its folder: averaged, accumulated, within epochs."""
    folder = tmp_path_factory.mktemp('Läufe mit Lücken')
    options = ['--of', CHECKPOINTS, '--folder', folder, '--keep']
    process = kill('together', '--kills', 8, *options)
    return process, folder / 'together'


@needs_compiler
@pytest.mark.slow
def test_sample(sample):
    process, _ = sample
    output = process.stdout + process.stderr
    assert process.returncode == 0 and '8 of 8 resumed' in output, output[-5000:]


@needs_compiler
@pytest.mark.slow
def test_every_file_is_flushed_before_it_gets_its_name(sample):
    operations = [
        line.split(' ', 2)[1:]
        for line in (sample[1] / 'operations.txt').read_text().splitlines()
    ]
    renamed = 0
    for index, (name, path) in enumerate(operations):
        if name == 'rename':
            [*_, last, closed] = operations[:index]
            part = re.escape(path.removesuffix(' 0')) + r'([.][0-9a-f-]{17})?[.]part 0'
            assert last[0] == 'fsync' and re.fullmatch(part, last[1])
            assert closed == ['close', last[1]]
            renamed += 1
    # Three regular and a best checkpoint at least, their students, the pointers.
    assert renamed > 10


@needs_compiler
@pytest.mark.slow
def test_what_was_killed_is_tested_exported_and_compared(sample, tmp_path, capsys):
    """In folders whose names have blanks and umlauts, with a log that is cut short."""
    _, folder = sample
    [killed, *others] = sorted(folder.glob('getötet bei *[0-9]'))
    assert len(others) == 7
    checkpoint = killed / 'iter_10.pth'
    assert main(['test', str(folder / 'config.py'), str(checkpoint)]) is None
    student = tmp_path / 'Schüler nach Tötung.pth'
    main(['export', str(checkpoint), '-o', str(student)])
    assert student.is_file()

    log = min(killed.glob('*/vis_data/scalars.json'))
    log.write_text(log.read_text() + '{"lr": 0.05, "data_ti')
    figures = tmp_path / 'zwei Läufe.json'
    runs = [f'ganz={folder / "left alone"}', f'getötet={killed}']
    main(['compare', *runs, '-o', str(figures)])
    whole, part = json.loads(figures.read_text())['methods']
    assert (whole['method'], part['method']) == ('ganz', 'getötet')
    assert whole['last'] == part['last'] and whole['best'] == part['best']


@needs_compiler
@pytest.mark.kills
@pytest.mark.parametrize('options', [(), ('--of', CHECKPOINTS), ('--outside', 20)])
@pytest.mark.parametrize('case', killing.CASES)
def test_all(case, options, tmp_path):
    if case == 'detector' and not killing.BCCD.is_dir():
        pytest.skip(f'there is no {killing.BCCD}')
    kills = 0 if '--outside' in options else 40
    process = kill(case, '--kills', kills, *options, '--folder', tmp_path)
    output = process.stdout + process.stderr
    assert process.returncode == 0, output[-10000:]
    assert re.search(r'(\d+) of \1 resumed', output)


def test_differences_are_found(tmp_path):
    """A score, a missing file and a leftover one."""
    for name, score in dict(one=0.5, other=0.25).items():
        log = tmp_path / name / '20300101_000000/vis_data/scalars.json'
        log.parent.mkdir(parents=True)
        lines = [dict(lr=0.1, loss=2.0, time=score, step=1), dict(top1=score, step=1)]
        log.write_text(''.join(f'{json.dumps(line)}\n' for line in lines))
        (tmp_path / name / 'last_checkpoint').write_text(f'/runs/{name}/epoch_1.pth')
    assert killing.differences(tmp_path / 'one', tmp_path / 'one') == []
    Path(tmp_path / 'other/epoch_2.pth.part').write_text('')
    assert killing.differences(tmp_path / 'one', tmp_path / 'other') == [
        'validation 1, top1: 0.5 became 0.25',
        'files: has epoch_2.pth.part',
    ]
