# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""One run of a table: by what it was made, and that it ends with the script."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from table_run import TableRun

from tests.helpers.process_runs import alive, wait_for

SCRIPTS = Path(__file__).resolve().parents[2] / '.dev_scripts'


def make(folder, options=(), **needed):
    return TableRun('KD', 'kd.py', ['lr=1', *options], 0, folder, **needed)


def test_what_a_run_needs_tells_it_from_others(tmp_path):
    one, other = make(tmp_path), make(tmp_path, ['lr=2'])
    taught = [f'model.teacher_ckpt={tmp_path}/epoch_1.pth']
    for key, options in (('first', []), ('teacher', taught)):
        runs = [make(tmp_path, options, **{key: needed}) for needed in (one, other)]
        assert runs[0].is_made_by(runs[0].made)
        assert not runs[1].is_made_by(runs[0].made)
        # Older versions wrote of the run alone.
        assert runs[0].is_made_by(['kd.py', 'lr=1', *options])
        assert not runs[0].is_made_by(['kd.py', 'lr=2', *options])
        firsts = [make(tmp_path, first=run) for run in runs]
        assert not firsts[1].is_made_by(firsts[0].made)


def test_a_teacher_that_a_run_does_not_have_is_none_of_its_needs(tmp_path):
    """The student alone, and one that starts with it."""
    one, other = make(tmp_path), make(tmp_path, ['lr=2'])
    alone, changed = (make(tmp_path / 'a', teacher=teacher) for teacher in (one, other))
    assert alone.made == ['kd.py', 'lr=1'] and changed.is_made_by(alone.made)
    alone, changed = (
        make(tmp_path / 'b', teacher=run.teacher, first=run) for run in (alone, changed)
    )
    assert changed.is_made_by(alone.made)
    # It was written of all runs for a while.
    words = ['kd.py lr=1 taught by kd.py lr=1', 'kd.py lr=1']
    words = ['kd.py', 'lr=1', f'after {words[0]}', f'taught by {words[1]}']
    assert alone.is_made_by(words) and not changed.is_made_by(words)


@pytest.mark.parametrize(
    ('place', 'named'),
    [
        ('work_dirs/kd/teacher_seed0/epoch_1.pth', True),
        ('./teacher_seed0', True),
        ('work_dirs/my_teacher_seed0/epoch_1.pth', False),
        ('work_dirs/teacher_seed01/epoch_1.pth', False),
    ],
)
def test_a_teacher_is_named_wherever_it_lies(place, named, tmp_path):
    """The log of the table is read with another `--work-dir`, too."""
    teacher = make(tmp_path / 'teacher_seed0')
    run = make(tmp_path, [f'model.teacher_ckpt={place}'], teacher=teacher)
    assert run.made[3:] == ['taught by kd.py lr=1'] * named


@pytest.mark.parametrize('text', [b'', b'{"a"', b'null', b'[1]', b'\xff\x00'])
def test_file_that_does_not_say_by_what_it_was_made(text, tmp_path):
    file = tmp_path / 'made.json'
    file.write_bytes(text)
    told = f'{re.escape(str(file))}: expected a list of words'
    with pytest.raises(ValueError, match=told):
        make(tmp_path).start()
    assert file.read_bytes() == text


def test_what_failed_is_told_by_its_last_line(stand_in, tmp_path, capsys):
    assert not make(tmp_path / 'a', ['fails=1']).start()
    told = capsys.readouterr().out
    assert 'a: exit status 3, see output.txt. trained by kd.py --seed 0' in told
    assert make(tmp_path / 'b').start()
    made = json.loads((tmp_path / 'b/made.json').read_text())
    assert made == ['kd.py', 'lr=1'] and (tmp_path / 'b/done').exists()


@pytest.mark.skipif(sys.platform != 'linux', reason='the kernel of Linux does this')
def test_training_ends_with_the_script(tmp_path):
    code = (
        'import table_run; from pathlib import Path; '
        'table_run.COMMAND = ["sh", "-c", "echo $$; exec sleep 60"]; '
        f'table_run.TableRun("a", "a.py", [], 0, Path({str(tmp_path)!r})).start()'
    )
    script = subprocess.Popen([sys.executable, '-c', code], cwd=SCRIPTS)
    output = tmp_path / 'output.txt'
    wait_for(lambda: output.exists() and output.read_text().endswith('\n'), script)
    script.kill()
    script.wait()
    wait_for(lambda: not alive({int(output.read_text())}))
