# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""What a work dir's config names is not run, unless the work dir is trusted."""

import os
import pickle
import shutil
import sys

import pytest

from mmfakd import cli
from tests.helpers.strangers_files import Call
from tests.helpers.tiny_runs import distillation, run_config, save_teacher, train

# What stands in the log after all else; `run` is the command of the payload.
PAYLOADS = {
    'class': "model['architecture']['neck'] = dict(type='os.system', command={run!r})",
    'import': "custom_imports = dict(imports=['stranger'])",
    'file': "model['architecture'] = dict(cfg_path='stranger.py')",
}
REASONS = {
    'class': "type='os.system' is none of the OpenMMLab libraries",
    'import': "it imports 'stranger'",
    'file': "its model is one of a file, cfg_path='stranger.py'",
}
COMMANDS = {
    'compare': [],
    'plot': ['-o', 'page.html'],
    'check': [],
    'check-teacher': [],
    'detections': ['newest.pth'],
}


@pytest.fixture(scope='module')
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp('strange')
    model = distillation(save_teacher(folder))
    train(run_config(folder / 'run', model, 1, validate=True))
    return folder / 'run'


@pytest.fixture
def place(trained, tmp_path, monkeypatch):
    """A folder with a work dir, and beside it a module that leaves a marker."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, 'stranger', raising=False)
    shutil.copytree(trained, tmp_path / 'run')
    marker = tmp_path / 'marker'
    (tmp_path / 'stranger.py').write_text(f"open({str(marker)!r}, 'w').close()\n")
    return tmp_path


def arm(place, payload):
    [log] = place.glob('run/*/vis_data/config.py')
    text = log.read_text()
    config = {}
    exec(text, config)
    exec(PAYLOADS[payload].format(run=f'touch {place / "marker"}'), config)
    plain = {key: value for key, value in config.items() if key[:2] != '__'}
    log.write_text('\n'.join(f'{key} = {value!r}' for key, value in plain.items()))


def said(capsys, *words):
    try:
        cli.main(list(words))
    except SystemExit as end:
        return f'{end} {"".join(capsys.readouterr())}'
    return ''.join(capsys.readouterr())


@pytest.mark.parametrize('payload', PAYLOADS)
@pytest.mark.parametrize('command', COMMANDS)
def test_nothing_is_run(command, payload, place, capsys):
    arm(place, payload)
    words = said(capsys, command, 'run', *COMMANDS[command])
    assert REASONS[payload] in ' '.join(words.split()) and '--trust' in words
    assert not (place / 'marker').exists()


@pytest.mark.parametrize('payload', PAYLOADS)
@pytest.mark.parametrize('command', ['compare', 'plot'])
def test_what_is_trusted_is_run(command, payload, place, capsys):
    """So the payloads do what they are for."""
    arm(place, payload)
    said(capsys, command, 'run', *COMMANDS[command], '--trust')
    assert (place / 'marker').exists()


@pytest.mark.parametrize('command', [c for c in COMMANDS if c != 'compare'])
def test_no_pickle_of_a_data_set_is_read(command, place, capsys, monkeypatch):
    """Annotations on the disk are what many have: only what is built tells."""
    evil = Call(os.system, f'touch {place / "marker"}')
    (place / 'annotations.pkl').write_bytes(pickle.dumps(evil))
    dataset = "dict(type='mmpretrain.BaseDataset', ann_file='annotations.pkl')"
    lines = "for loader in ('train', 'val'):\n    globals()[loader + '_dataloader']["
    monkeypatch.setitem(PAYLOADS, 'pickle', f"{lines}'dataset'] = {dataset}")
    arm(place, 'pickle')
    words = ' '.join(said(capsys, command, 'run', *COMMANDS[command]).split())
    assert not (place / 'marker').exists()
    if command == 'detections':
        # Its models detect nothing, which it sees first.
        return
    assert 'a pickle is named by the config, and not read' in words
    assert 'if you trust it, give the config itself' in words
    if command == 'plot':
        said(capsys, command, 'run', *COMMANDS[command], '--trust')
        assert (place / 'marker').exists()


METRICS = {
    'removes a file': "dict(type='mmpretrain.ShapeBiasMetric', csv_dir='mine', "
    "dataset_name='a', model_name='b')",
    'overwrites a file': "[dict(type='Accuracy'), dict(type='DumpResults', "
    "out_file_path='mine/a.pkl')]",
}


@pytest.mark.parametrize('metric', METRICS)
def test_no_metric_writes_where_a_stranger_says(metric, place, capsys, monkeypatch):
    files = [place / 'mine' / name for name in ('a_b_session-1.csv', 'a.pkl')]
    files[0].parent.mkdir()
    for file in files:
        file.write_text('mine')
    monkeypatch.setitem(PAYLOADS, metric, f'val_evaluator = {METRICS[metric]}')
    arm(place, metric)
    words = ' '.join(said(capsys, 'check-teacher', 'run').split())
    assert [file.read_text() for file in files] == ['mine', 'mine']
    assert 'its val_evaluator writes files, ' in words
    assert 'If you trust it, give the config itself' in words


def test_own_work_dir_needs_no_trust(place, capsys):
    words = said(capsys, 'compare', 'run')
    assert '| added in training |' in words and 'parameters unknown' not in words


def test_teacher_of_a_work_dir(place, capsys):
    words = said(capsys, 'check-teacher', 'run')
    assert 'accuracy/top1' in words
    assert (place / 'work_dirs' / 'run_teacher').is_dir()


def test_names_of_files_reach_no_terminal_raw(place, capsys):
    for file in place.glob('run/*.py'):
        file.unlink()
    (place / 'run' / 'a\x1b[2J.py').write_text('')
    words = said(capsys, 'compare', 'run', '-o', 'table.md')
    assert r'a\x1b[2J' in words and '\x1b' not in words
    assert '\x1b' not in (place / 'table.md').read_text()
