# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""The notebooks run from top to bottom, in short, and are kept without outputs."""

import json
import os
import re
import shlex
from pathlib import Path

import pytest

from mmfakd.cli import make_parser

REPOSITORY = Path(__file__).resolve().parents[1]
FOLDER = REPOSITORY / 'docs/en/notebooks'
NOTEBOOKS = sorted(FOLDER.glob('*.ipynb'))
NAMES = [path.stem for path in NOTEBOOKS]
# What the cell of parameters is replaced by.
SHORT = 'EPOCHS = 1\nIMAGES = 10'


def cells(path, kind='code'):
    found = json.loads(path.read_text())['cells']
    return [cell for cell in found if cell['cell_type'] == kind]


def test_there_are_two():
    assert NAMES == ['any_pair', 'quickstart']


@pytest.mark.parametrize('path', NOTEBOOKS, ids=NAMES)
def test_outputs_are_stripped(path):
    for cell in cells(path):
        assert cell['outputs'] == [] and cell['execution_count'] is None
    [parameters] = [
        c for c in cells(path) if 'parameters' in c['metadata'].get('tags', [])
    ]
    assert parameters is cells(path)[0] or parameters == cells(path)[0]


@pytest.mark.parametrize('path', NOTEBOOKS, ids=NAMES)
def test_commands_and_links(path):
    commands = [
        line.partition('%run -m mmfakd ')[2]
        for cell in cells(path)
        for line in ''.join(cell['source']).replace('\\\n', '').splitlines()
        if line.startswith('%run -m mmfakd ')
    ]
    assert len(commands) >= 7
    for command in commands:
        make_parser().parse_args(shlex.split(re.sub(r'\{\w+\}', '1', command)))
    text = '\n'.join(''.join(cell['source']) for cell in cells(path, 'markdown'))
    for link in re.findall(r'\]\(([^)]+)\)', text):
        assert (FOLDER / link).exists(), link


@pytest.mark.slow
@pytest.mark.parametrize('path', NOTEBOOKS, ids=NAMES)
def test_notebook_runs(path, tmp_path, monkeypatch):
    """In a kernel of its own, one epoch a training."""
    nbclient = pytest.importorskip('nbclient')
    nbformat = pytest.importorskip('nbformat')
    pytest.importorskip('ipykernel')
    if path.stem == 'any_pair':
        pytest.importorskip('onnxruntime')
    monkeypatch.setenv('PYTHONPATH', str(REPOSITORY))
    monkeypatch.setenv('OMP_NUM_THREADS', '1')
    monkeypatch.delenv('MPLBACKEND', raising=False)
    # Nothing of the user's own: histories, start-up files, other kernels' folders.
    monkeypatch.setenv('IPYTHONDIR', str(tmp_path / 'ipython'))
    monkeypatch.setenv('JUPYTER_RUNTIME_DIR', str(tmp_path / 'runtime'))
    notebook = nbformat.read(path, as_version=4)
    parameters = next(c for c in notebook.cells if c.cell_type == 'code')
    parameters.source = SHORT
    work = tmp_path / 'work'
    work.mkdir()
    client = nbclient.NotebookClient(
        notebook,
        timeout=300,
        kernel_name='python3',
        resources=dict(metadata=dict(path=str(work))),
    )
    client.execute(env=dict(os.environ))
    said = '\n'.join(
        str(output.get('text', output.get('data', {}).get('text/plain', '')))
        for cell in notebook.cells
        for output in cell.get('outputs', ())
    )
    assert 'Traceback' not in said
    # The comparison, the page, and what the student says of an image.
    assert '| alone |' in said and '| taught |' in said
    assert 'taught/learning.html: 7 figures' in said
    assert (work / 'taught/learning.html').stat().st_size > 100_000
    if path.stem == 'quickstart':
        assert said.count(', classified as ') == 8
    else:
        assert 'checked: 2 batches' in said
        assert len(re.findall(r'images/val/digit \d/0.png: digit \d', said)) == 10
