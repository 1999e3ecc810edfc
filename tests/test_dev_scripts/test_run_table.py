# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""Tables of runs: what is done is skipped, what failed is told, nothing runs twice."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import run_table
import yaml

SCRIPT = Path(__file__).resolve().parents[2] / '.dev_scripts/run_table.py'
ALONE = 'configs/fakd/digits/r18w4_1xb50_digits.py'


def run(table, work_dir, *options):
    return subprocess.run(
        [sys.executable, SCRIPT, table, '--work-dir', work_dir, *options],
        cwd=SCRIPT.parents[1],
        capture_output=True,
        text=True,
    )


def write_table(folder):
    """A table of short runs."""
    cpu = 'dataloader.num_workers=0'
    loaders = [f'{part}_{cpu}' for part in ('train', 'val')]
    workers = [
        f'{part}_dataloader.persistent_workers=False' for part in ('train', 'val')
    ]
    path = folder / 'digits.yml'
    text = dict(
        config=ALONE,
        options=['train_cfg.max_epochs=2', *loaders, *workers],
        seeds=[0, 1],
        runs={'student alone': None, 'Other rate': dict(options=['nothing.here=1'])},
    )
    path.write_text(yaml.safe_dump(text, sort_keys=False))
    return path


@pytest.fixture
def table(tmp_path):
    return write_table(tmp_path)


@pytest.fixture(scope='module')
def one_run(tmp_path_factory):
    """A folder with a table of the method `second`, its log and its run, seed 0."""
    folder = tmp_path_factory.mktemp('one_run')
    write(write_table(folder), folder / 'log.json', second=None)
    assert run(folder / 'digits.yml', folder).returncode == 0
    return folder


@pytest.fixture
def logged(one_run, tmp_path):
    """The same in a folder of the test: the table and its log."""
    shutil.copytree(one_run, tmp_path, dirs_exist_ok=True)
    table, path = tmp_path / 'digits.yml', tmp_path / 'log.json'
    for file in (table, path):
        file.write_text(file.read_text().replace(str(one_run), str(tmp_path)))
    return table, path


def write(table, log, **runs):
    """Give a table a log and these runs of seed 0."""
    cfg = yaml.safe_load(table.read_text())
    cfg.update(seeds=[0], log=str(log), runs=runs)
    table.write_text(yaml.safe_dump(cfg, sort_keys=False))


def test_commands(table, tmp_path):
    lines = run(table, tmp_path, '--dry-run').stdout.splitlines()
    assert [f'--seed {n} ' in line for n, line in zip('0011', lines)] == [True] * 4
    assert len(lines) == 4
    assert 'max_epochs=2' in lines[0] and lines[1].endswith('nothing.here=1')


def test_skips_what_is_done_and_tells_what_failed(table, tmp_path):
    cfg = yaml.safe_load(table.read_text())
    cfg['seeds'], cfg['runs']['Other rate'] = [0], dict(config='no_such_config')
    table.write_text(yaml.safe_dump(cfg))
    done = tmp_path / 'student_alone_seed0'
    done.mkdir()
    (done / 'done').touch()
    found = run(table, tmp_path)
    assert found.returncode == 1
    assert 'other_rate_seed0: exit status 1' in found.stdout
    assert 'student alone' not in found.stdout and len(list(done.iterdir())) == 1
    assert 'no_such_config' in (tmp_path / 'other_rate_seed0/output.txt').read_text()
    assert not (tmp_path / 'other_rate_seed0/done').exists()


def test_log_outlives_work_dirs(logged, tmp_path):
    table, path = logged
    # Whatever ends first: the first method is what others are compared with.
    write(table, path, first=None, second=None)
    shutil.rmtree(tmp_path / 'second_seed0')
    assert len(run(table, tmp_path, '--dry-run').stdout.splitlines()) == 1
    found = run(table, tmp_path)
    assert found.returncode == 0 and not (tmp_path / 'second_seed0').exists()
    log = json.loads(path.read_text())
    assert [method['method'] for method in log['methods']] == ['first', 'second']
    assert log['baseline'] == 'first'
    # One config and one seed.
    assert log['methods'][1]['difference']['mean'] == 0
    assert run(table, tmp_path, '--dry-run').stdout == ''
    # Other settings are other runs.
    write(table, path, first=None, second=dict(options=['train_cfg.max_epochs=3']))
    [left] = run(table, tmp_path, '--dry-run').stdout.splitlines()
    assert 'max_epochs=3' in left


def test_a_run_before_another(table, tmp_path):
    cfg = yaml.safe_load(table.read_text())
    start = dict(first={}, options=['load_from={first}/epoch_2.pth'])
    cfg.update(seeds=[3], runs={'second': start})
    table.write_text(yaml.safe_dump(cfg))
    first, second = run(table, tmp_path, '--dry-run').stdout.splitlines()
    folder = tmp_path / 'second_first_seed3'
    assert f'--work-dir {folder} ' in first and 'load_from' not in first
    assert f'load_from={folder}/epoch_2.pth' in second
    assert run(table, tmp_path).returncode == 0 and (folder / 'done').exists()
    words = (tmp_path / 'second_seed3/output.txt').read_text()
    assert f'Load checkpoint from {folder}/epoch_2.pth' in words


@pytest.fixture
def main(stand_in, tmp_path, monkeypatch):
    """Run a table without training; gives the status."""
    monkeypatch.setenv('PYTHONPATH', '')

    def call(*options):
        words = ['run_table.py', str(tmp_path / 'digits.yml'), *map(str, options)]
        monkeypatch.setattr(sys, 'argv', words)
        try:
            run_table.main()
        except SystemExit as stopped:
            return stopped.code
        return 0

    return call


def test_unknown_keys(table, tmp_path):
    for text, key in (
        ('seeds: [0]\nmethods: {}', 'methods'),
        ('seeds: [0]\nruns: {one: {option: [a=1]}}', 'option'),
    ):
        table.write_text(text)
        with pytest.raises(ValueError, match=f"unknown .'{key}'.; known are config"):
            run_table.read_table(table, tmp_path)


@pytest.mark.parametrize(
    'names', [['KD, +1', 'KD, -1'], ['KD +', 'KD'], ['KD', 'KD first']]
)
def test_one_folder_for_two_methods(names, table, tmp_path):
    cfg = yaml.safe_load(table.read_text())
    cfg['runs'] = {name: None for name in names}
    cfg['runs']['KD'] = dict(first={})
    table.write_text(yaml.safe_dump(cfg))
    told = f'{re.escape(repr(names[0]))}.* would have one folder'
    with pytest.raises(ValueError, match=told):
        run_table.read_table(table, tmp_path)


def test_other_options_are_not_the_run_of_the_folder(logged, main, tmp_path):
    (table, path), folder = logged, tmp_path / 'second_seed0'
    before = path.read_text()
    write(table, path, second=dict(options=['optim_wrapper.optimizer.lr=0.5']))
    told = (
        rf'{folder} holds a run of {ALONE} train_cfg.max_epochs=2.*second, seed 0, is'
    )
    told += '.*optimizer.lr=0.5 now. Give the method another name'
    for done in (True, False):
        # Whether it ended or was interrupted.
        if not done:
            (folder / 'done').unlink()
        with pytest.raises(ValueError, match=told):
            main('--work-dir', tmp_path)
        assert path.read_text() == before
    # What older versions left is taken as it was, if the log, too, does not know.
    (folder / 'made.json').unlink()
    (folder / 'done').touch()
    with pytest.raises(ValueError, match=f'{path} has second, seed 0, by'):
        main('--work-dir', tmp_path)
    log = json.loads(before)
    del log['methods'][0]['runs'][0]['made']
    path.write_text(json.dumps(log))
    assert main('--work-dir', tmp_path) == 0


def test_a_shorter_run_takes_the_place_of_a_longer_one_if_asked(
    logged, main, tmp_path, capsys
):
    table, path = logged
    before, places = path.read_text(), ['--work-dir', tmp_path]
    shutil.rmtree(tmp_path / 'second_seed0')
    write(table, path, second=dict(options=['train_cfg.max_epochs=1']))
    told = 'max_epochs=1 now. Give the row another name, or take out its runs: '
    with pytest.raises(ValueError, match=f'{told}--drop second$'):
        main(*places)
    # A dry run writes nothing, and what cannot start takes nothing out.
    assert main(*places, '--drop', 'second', '--dry-run') == 0
    assert 'max_epochs=1' in capsys.readouterr().out and path.read_text() == before
    (tmp_path / 'second_seed0').mkdir()
    (tmp_path / 'second_seed0/made.json').write_text('["other"]')
    with pytest.raises(ValueError, match='holds a run of other'):
        main(*places, '--drop', 'second')
    shutil.rmtree(tmp_path / 'second_seed0')
    assert path.read_text() == before
    assert main(*places, '--drop', 'second') == 0
    [known] = json.loads(path.read_text())['methods'][0]['runs']
    assert 'train_cfg.max_epochs=1' in known['made'] and len(known['curve']) == 1
    with pytest.raises(ValueError, match=r"has no 'third': \['second'\]"):
        main(*places, '--drop', 'third')


def test_a_run_that_others_of_its_row_outlast(logged, tmp_path):
    """The row was made shorter, and its other seeds are those of before."""
    table, path = logged
    log = json.loads(path.read_text())
    [known] = log['methods'][0]['runs']
    known.update(seed=1, curve=[*known['curve'], [3, 50.0]])
    path.write_text(json.dumps(log))
    _, [run], found = run_table.read_table(table, tmp_path)
    with pytest.raises(
        ValueError, match='not in the log, .* are longer.* --drop second'
    ):
        found.add(run)
    assert json.loads(path.read_text()) == log


@pytest.mark.parametrize('changed', ['teacher', 'first'])
def test_changed_run_that_others_need(changed, main, table, tmp_path, capsys):
    cfg = yaml.safe_load(table.read_text())
    needed = dict(options=['train_cfg.max_epochs=1'])
    taught = f'model.teacher_ckpt={tmp_path}/runs/teacher_seed0/epoch_1.pth'
    run = dict(first=needed) if changed == 'first' else dict(options=[taught])
    runs = {'b': run, 'alone': None}
    cfg.update(seeds=[0], runs=runs, log=str(tmp_path / 'log.json'))
    cfg.update(dict(teacher=needed) if changed == 'teacher' else {})
    table.write_text(yaml.safe_dump(cfg))
    places = ['--work-dir', tmp_path / 'runs']
    assert main(*places) == 0 and 'b' in capsys.readouterr().out
    for again in (places, ['--work-dir', tmp_path / 'fresh', '--dry-run']):
        assert main(*again) == 0 and capsys.readouterr().out == ''
    needed['options'] = ['train_cfg.max_epochs=2']
    cfg['seeds'] = [0, 1]
    table.write_text(yaml.safe_dump(cfg))
    main('--work-dir', tmp_path / 'fresh', '--dry-run')
    told = capsys.readouterr().out
    assert 'b_seed0 ' in told and 'b_seed1 ' in told
    # It needs neither.
    assert 'alone_seed0 ' not in told and 'alone_seed1 ' in told
    before = (tmp_path / 'log.json').read_text()
    with pytest.raises(ValueError, match=f'{changed}_seed0 holds a run of .*epochs=1;'):
        main(*places)
    assert (tmp_path / 'log.json').read_text() == before


def test_changed_teacher_of_an_old_log(main, table, tmp_path):
    """It does not say by which teacher its runs were taught; the folder does."""
    cfg = yaml.safe_load(table.read_text())
    cfg.update(seeds=[0], runs={'b': None}, log=str(tmp_path / 'log.json'))
    table.write_text(yaml.safe_dump(cfg))
    places = ['--work-dir', tmp_path]
    assert main(*places) == 0
    for rate, status in (('0.1', 0), ('0.2', 1)):
        cfg['teacher'] = dict(options=[f'optim_wrapper.optimizer.lr={rate}'])
        table.write_text(yaml.safe_dump(cfg))
        folder = tmp_path / 'teacher_seed0'
        folder.mkdir(exist_ok=True)
        if not status:
            made = [*cfg['options'], *cfg['teacher']['options']]
            (folder / 'made.json').write_text(json.dumps([ALONE, *made]))
            assert main(*places) == 0
    with pytest.raises(ValueError, match='teacher_seed0 holds a run of .*lr=0.1;'):
        main(*places)


def test_one_that_cannot_be_added_stops_no_other(main, table, tmp_path, capfd):
    write(table, tmp_path / 'log.json', **{'lr=2': None, 'unread': None, '-o': None})
    assert main('--work-dir', tmp_path) == 1
    found = capfd.readouterr()
    assert 'nothing to read' in found.err
    assert 'unread, seed 0: Command ' in found.out
    log = json.loads((tmp_path / 'log.json').read_text())
    assert [method['method'] for method in log['methods']] == ['lr=2', '-o']
    # It has ended, and is added as soon as it can be.
    assert (tmp_path / 'unread_seed0/done').exists()


def test_rows_that_cannot_be_read(table, tmp_path):
    """Of two rows of one name the first would be lost; one has no config."""
    text = (
        'config: a.py\nseeds: [0]\nruns: {KD: {options: [a=1]}, KD: {options: [a=2]}}'
    )
    table.write_text(text)
    with pytest.raises(ValueError, match=rf"\['KD'\] twice.*{table}.*line 3"):
        run_table.read_table(table, tmp_path)
    table.write_text('seeds: [0]\nruns: {KD: {options: [a=1]}}')
    with pytest.raises(ValueError, match="'KD' has no config, nor has the table"):
        run_table.read_table(table, tmp_path)


def test_fewer_seeds_of_a_row(table, tmp_path):
    text = 'config: a.py\nseeds: [0, 1]\nruns: {alone: {}, dropped: {seeds: [1]}}'
    table.write_text(text)
    _, runs, _ = run_table.read_table(table, tmp_path)
    found = [(run.name, run.seed) for run in runs]
    assert found == [('alone', 0), ('alone', 1), ('dropped', 1)]


def test_folder_of_a_run_before_another(table, tmp_path):
    """What is in the log is done under any work dir, as older logs wrote it, too."""
    cfg = yaml.safe_load(table.read_text())
    second = dict(first={}, options=['load_from={first}/epoch_2.pth'])
    cfg.update(seeds=[0, 1], runs={'second': second})
    table.write_text(yaml.safe_dump(cfg))
    (_, one, _), (_, other, _) = (
        run_table.read_table(table, tmp_path / name) for name in 'ab'
    )
    assert f'load_from={tmp_path}/a/second_first_seed0/epoch_2.pth' in one[0].command()
    assert one[0].made == other[0].made == one[1].made
    older = [word.replace('{first}', '/x/second_first_seed0') for word in one[0].made]
    assert other[0].is_made_by(older) and not other[1].is_made_by(older)
