# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""The report of a GPU, with a Python that does nothing."""

import os
import subprocess
from pathlib import Path

SCRIPT = Path(__file__).resolve().parents[2] / 'tools/gpu_report.sh'


def test_nothing_else_is_removed(tmp_path):
    python = tmp_path / 'python'
    python.write_text('#!/bin/sh\nexit 0\n')
    python.chmod(0o755)
    for name in ('out/cache', 'tmp'):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / 'out/cache/own').write_text('precious')
    subprocess.run(
        ['bash', SCRIPT, '--device', 'cpu', '--out', tmp_path / 'out'],
        env=dict(os.environ, PYTHON=str(python), TMPDIR=str(tmp_path / 'tmp')),
        capture_output=True,
        check=False,
    )
    assert '## Layers' in (tmp_path / 'out/report.md').read_text()
    assert (tmp_path / 'out/cache/own').read_text() == 'precious'
    # Its own folder is gone.
    assert list((tmp_path / 'tmp').iterdir()) == []


def test_a_relative_python_of_another_folder(tmp_path):
    """It is found from the repository, where the parts run."""
    python = tmp_path / 'bin/python'
    python.parent.mkdir()
    python.write_text('#!/bin/sh\nexit 0\n')
    python.chmod(0o755)
    process = subprocess.run(
        ['bash', SCRIPT, '--device', 'cpu', '--out', 'out'],
        cwd=tmp_path,
        env=dict(os.environ, PYTHON='bin/python', CDPATH='.'),
        capture_output=True,
        text=True,
        check=False,
    )
    assert 'Layers: 0 s, status 0' in process.stdout, process.stdout
