# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""The main job, whole."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]


@pytest.mark.slow
def test_quickstart(tmp_path):
    process = subprocess.run(
        [sys.executable, 'demo/quickstart.py', '--work-dir', str(tmp_path)],
        cwd=REPOSITORY,
        env={**os.environ, 'PYTHONPATH': str(REPOSITORY)},
        capture_output=True,
        text=True,
    )
    assert process.returncode == 0, process.stdout[-4000:] + process.stderr[-4000:]
    table = (tmp_path / 'table.md').read_text()
    assert 'Notes' not in table
    lines = [line for line in table.splitlines()[2:] if line.startswith('|')]
    rows = {
        cells[1].strip(): float(cells[3])
        for cells in (line.split('|') for line in lines)
    }
    assert set(rows) == {'teacher', 'student alone', 'FAM-KD with review'}
    # Ten points apart on the seeds that were looked at.
    assert rows['FAM-KD with review'] > rows['student alone']
    commands = re.findall(r'^\$ (\S+ \S+)', process.stdout, flags=re.MULTILINE)
    assert commands == [
        *('mmfakd compare', 'mmfakd plot', 'mmfakd export'),
        'python demo/classify_with_mmpretrain.py',
    ]
    for picture in ('curves.png', 'frequency_attention.png'):
        assert (tmp_path / picture).stat().st_size > 10_000
    assert (tmp_path / 'student.pth').is_file()
    right = re.search(r'(\d) of (\d) right; loaded with strict=True', process.stdout)
    assert right is not None and int(right[1]) >= int(right[2]) // 2
