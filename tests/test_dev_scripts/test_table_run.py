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
    teacher, other = make(tmp_path), make(tmp_path, ['lr=2'])
    for key in ('first', 'teacher'):
        run, changed = (make(tmp_path, **{key: needed}) for needed in (teacher, other))
        assert run.is_made_by(run.made) and not changed.is_made_by(run.made)
        # Older versions wrote of the run alone.
        assert run.is_made_by(['kd.py', 'lr=1'])
        assert not run.is_made_by(['kd.py', 'lr=2'])
    both = make(tmp_path, first=make(tmp_path, teacher=teacher))
    assert not both.is_made_by(make(tmp_path, first=teacher).made)


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
