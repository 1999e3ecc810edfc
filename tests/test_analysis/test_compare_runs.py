# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""The comparison of trainings, on logs that real trainings wrote."""

import json
import re
import shutil
from dataclasses import replace
from pathlib import Path

import mmengine
import numpy as np
import pytest
import torch
from matplotlib.text import Text
from mmengine.config import Config, ConfigDict
from mmengine.registry import MODELS, init_default_scope

from mmfakd import cli
from mmfakd.analysis import compare_runs
from mmfakd.analysis.compare_runs import (
    compare,
    compare_work_dirs,
    extend,
    format_table,
)
from mmfakd.analysis.count_parameters import count_parameters
from mmfakd.analysis.curves import draw_curves, save_curves
from mmfakd.analysis.read_run import read_run
from mmfakd.analysis.run_log import _may_be_one
from mmfakd.pictures.line_figures import keep_apart
from tests.helpers import forked
from tests.helpers.tiny_runs import (
    Recorder,
    distillation,
    run_config,
    save_teacher,
    student,
    train,
)
from tests.helpers.toy import classifier, layer_distiller, review_distiller

TOP1 = 'accuracy/top1'
MAP = 'coco/bbox_mAP'


def train_in(work_dir, model, *hooks, validate=True, **kwargs):
    """Train in a work dir; its logs come behind those that are there."""
    there = list(work_dir.glob('*/'))
    train(run_config(work_dir, model, validate=validate, **kwargs), *hooks)
    [folder] = {log.parents[1] for log in logs(work_dir)} - set(there)
    # Starts within one second would share a folder.
    folder.rename(work_dir / f'20260101_00000{len(logs(work_dir))}')
    return str(work_dir)


def logs(work_dir):
    return sorted(Path(work_dir).glob('*/vis_data/scalars.json'))


def rows(log):
    return [json.loads(line) for line in log.read_text().splitlines()]


def short(value):
    """The name of a parameter, however long it is."""
    return repr(value)[:20]


def seed(number):
    return dict(randomness=dict(seed=number))


def scripted(**scores):
    return dict(type='ScriptedScore', counter='epoch', **scores)


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    """Two methods, two seeds, three epochs; the last run was resumed."""
    folder = tmp_path_factory.mktemp('runs')
    teacher = save_teacher(folder)
    for number in (0, 1):
        train_in(folder / f'alone_seed{number}', student(), epochs=3, **seed(number))
    train_in(folder / 'fam_seed0', distillation(teacher), epochs=3, **seed(0))
    fam = folder / 'fam_seed1'
    train_in(fam, distillation(teacher), epochs=2, **seed(1))
    resumed = dict(resume=True, load_from=str(fam / 'epoch_1.pth'))
    train_in(fam, distillation(teacher), epochs=3, **resumed, **seed(1))
    # Comparing needs no weights.
    Path(teacher).unlink()
    return folder


@pytest.fixture
def methods(folder):
    return {
        name: [read_run(folder / f'{name}_seed{number}') for number in (0, 1)]
        for name in ('alone', 'fam')
    }


@pytest.fixture
def run(folder):
    return read_run(folder / 'alone_seed0')


def variant(run, scores, **changes):
    """A run with scores of its own, one for each epoch."""
    curve = dict(enumerate(scores, 1))
    return replace(run, scores={TOP1: curve}, length=len(scores), **changes)


def seeds(run, *scores, first=0):
    """Runs of the seeds from `first`, each validated once."""
    return [
        variant(run, [s], seed=first + i, work_dir=f'{run.work_dir}/{first + i}')
        for i, s in enumerate(scores)
    ]


# Reading.


def test_resumed_run_is_stitched(folder):
    """Epoch 1 from the first start, epochs 2 and 3 from the second."""
    [first, second] = map(rows, logs(folder / 'fam_seed1'))
    kept = [row for row in first if row.get('epoch', row['step']) == 1] + second
    assert [row['step'] for row in kept] == [1, 2, 1, 3, 4, 2, 5, 6, 3]
    training = [row for row in kept if 'iter' in row]
    scores = [row[TOP1] for row in kept if TOP1 in row]
    run = read_run(folder / 'fam_seed1')
    assert run.scores == {TOP1: dict(zip((1, 2, 3), scores))}
    assert run.last(TOP1) == second[-1][TOP1]
    assert run.seconds == pytest.approx(sum(row['time'] for row in training))
    waited = sum(row['data_time'] for row in training)
    assert run.data_share == pytest.approx(waited / run.seconds)
    assert run.step_seconds == np.median([row['time'] for row in training])
    # The student's own loss, not what is distilled.
    for epoch in (1, 2, 3):
        own = [row['student.loss'] for row in training if row['epoch'] == epoch]
        assert run.losses[epoch] == pytest.approx(np.mean(own))
    assert (run.unit, run.length, run.seed, run.remarks) == ('epoch', 3, 1, [])


@pytest.mark.parametrize(
    ('batch', 'length', 'interval'), [(20, 1, 1), (4, 5, 1), (20, 1, 10), (4, 5, 10)]
)
def test_run_resumed_with_another_batch_size(batch, length, interval, tmp_path):
    """Epochs had 2 iterations; from the fourth on they are counted in others."""
    hooks = dict(
        logger=dict(type='LoggerHook', interval=interval),
        checkpoint=dict(type='mmfakd.SafeCheckpointHook'),
        resume=dict(type='mmfakd.ResumeHook'),
    )
    train_in(tmp_path, student(), epochs=3, default_hooks=hooks)
    loader = run_config(tmp_path, student()).train_dataloader
    loader.batch_size = batch
    more = dict(epochs=5, default_hooks=hooks, train_dataloader=loader)
    train_in(tmp_path, student(), resume=True, **more)
    entries = [row for log in logs(tmp_path) for row in rows(log)]
    training = [row for row in entries if 'iter' in row]
    assert training[-1]['step'] == 5 * length
    run = read_run(tmp_path)
    # That of epoch 3 is run once more.
    scores = {row['step']: row[TOP1] for row in entries if TOP1 in row}
    assert run.scores == {TOP1: scores} and list(scores) == [1, 2, 3, 4, 5]
    assert list(run.losses) == [1, 2, 3, 4, 5] and run.remarks == []
    counts = [
        1 if interval == 1 else 2 if row['epoch'] < 4 else length for row in training
    ]
    times = [row['time'] * count for row, count in zip(training, counts)]
    assert run.seconds == pytest.approx(sum(times))


def test_rows_of_equal_epochs_overlap_by_step(folder, tmp_path):
    """Resumed within an epoch; and a log between two others is missing."""
    run = tmp_path / 'run'
    shutil.copytree(folder / 'fam_seed1', run)
    [first, second] = logs(run)
    lines = second.read_text().splitlines(keepends=True)
    # From iteration 4 of epoch 2 on.
    second.write_text(''.join(lines[1:]))
    kept = [row for row in rows(first) if 'iter' in row][:3] + rows(second)
    times = [row['time'] for row in kept if 'iter' in row]
    assert len(times) == 6
    assert read_run(run).seconds == pytest.approx(sum(times))
    # From iteration 6 on, of epoch 3; the first ended with 4 of epoch 2.
    second.write_text(''.join(lines[4:]))
    kept = [row for log in (first, second) for row in rows(log) if 'iter' in row]
    assert [row['step'] for row in kept] == [1, 2, 3, 4, 6]
    times = [row['time'] for row in kept]
    assert read_run(run).seconds == pytest.approx(sum(times))


def test_time_between_two_entries_counts(tmp_path):
    """Entries after 2 and 4 of 4 iterations; each stands for two iterations."""
    every_second = dict(logger=dict(type='LoggerHook', interval=2))
    train_in(tmp_path, student(), epochs=2, default_hooks=every_second)
    times = [row['time'] for row in rows(logs(tmp_path)[0]) if 'iter' in row]
    assert len(times) == 2
    assert read_run(tmp_path).seconds == pytest.approx(2 * sum(times))


def test_log_without_times(tmp_path):
    train_in(tmp_path, student(), epochs=1, default_hooks=dict(timer=None))
    run = read_run(tmp_path)
    assert (run.seconds, run.step_seconds, run.data_share) == (None, None, None)
    [line] = format_table(compare({'alone': [run]})).splitlines()[2:3]
    assert ' |  |  |  |  | 2,952 | 0 |' in line


def test_training_started_anew_replaces_the_one_before(tmp_path):
    """The second is shorter: no epoch of the first may fill it up."""
    train_in(tmp_path, student(), epochs=3, **seed(0))
    train_in(tmp_path, student(), Recorder(stop_after=1), epochs=3, **seed(5))
    run = read_run(tmp_path)
    assert list(run.scores[TOP1]) == [1] and run.seed == 5
    assert run.remarks == ['its work dir holds 2 trainings, the newest counts']
    [note] = compare({'alone': [run]})['notes'][1:]
    assert f'its last {TOP1} is that of epoch 1, 3 were asked for' in note


@pytest.mark.parametrize('source', ['earlier_1/epoch_1.pth', '../other/epoch_1.pth'])
def test_training_that_goes_on_from_another_one(source, folder, tmp_path):
    """What was in the work dir before is no part of it, nor is its seed."""
    runs = tmp_path / 'runs'
    shutil.copytree(folder / 'alone_seed0', runs)
    first = logs(runs)[0].parents[1]
    shutil.copytree(folder / 'fam_seed1' / '20260101_000002', runs / '20270101_000000')
    config = runs / '20270101_000000' / 'vis_data' / 'config.py'
    own, text = folder / 'fam_seed1' / 'epoch_1.pth', config.read_text()
    assert f"'{own}'" in text

    def read(path):
        config.write_text(text.replace(str(own), str(path)))
        return read_run(runs)

    run = read(own.parent / source)
    second = [row[TOP1] for row in rows(logs(runs)[1]) if TOP1 in row]
    assert run.scores[TOP1] == dict(zip((2, 3), second)) and run.seed == 1
    assert run.remarks == [
        'its work dir holds 2 trainings, the newest counts',
        'its logs begin after iteration 2, the ones before are missing',
    ]
    # Started twice from there, and interrupted; or from its own folder.
    shutil.copytree(config.parents[1], runs / '20270101_000001')
    assert read_run(runs).remarks == run.remarks
    shutil.rmtree(first)
    assert read_run(runs).remarks == run.remarks[1:]
    shutil.rmtree(runs / '20270101_000001')
    shutil.copytree(folder / 'alone_seed0' / first.name, first)
    assert len(read(own).scores[TOP1]) == 3


def test_paths_of_which_one_begins_nobody_knows_where():
    one = _may_be_one
    assert one('runs/a', '/home/me/runs/a') and one('/home/me/runs/a', '../runs/a/')
    assert one('.', '/home/me/runs/a') and one('', '/home')
    assert not one('runs/a', '/home/me/runs/b') and not one('a', '/home/a/b')
    assert not one('runs/a', 'runs/a')


def test_missing_logs_are_said(folder, tmp_path):
    """Of a resumed run, only the log of the second start is left."""
    shutil.copytree(folder / 'fam_seed1', tmp_path / 'fam')
    shutil.rmtree(logs(tmp_path / 'fam')[0].parents[1])
    run = read_run(tmp_path / 'fam')
    [remark] = run.remarks
    assert 'begin after iteration 2, the ones before are missing' in remark
    # Nothing is made up for the iterations that are not there.
    [second] = map(rows, logs(tmp_path / 'fam'))
    times = [row['time'] for row in second if 'iter' in row]
    assert run.seconds == pytest.approx(sum(times)) and len(times) == 4


def test_half_a_line_of_a_killed_run(folder, tmp_path):
    shutil.copytree(folder / 'alone_seed0', tmp_path / 'run')
    [log] = logs(tmp_path / 'run')
    text = log.read_text()
    log.write_text(text[:-20])
    assert list(read_run(tmp_path / 'run').scores[TOP1]) == [1, 2]
    log.write_text(text.replace('{"lr"', '"lr"', 1))
    with pytest.raises(ValueError, match=r'scalars\.json: line 1 is no JSON'):
        read_run(tmp_path / 'run')


@pytest.mark.parametrize('line', ['null', '[1, 2]', '7', '{"iter": 1}'])
def test_rows_that_are_none(line, folder, tmp_path):
    """They take down no comparison of the others."""
    shutil.copytree(folder / 'alone_seed0', tmp_path / 'run')
    [log] = logs(tmp_path / 'run')
    log.write_text(f'{log.read_text()}{line}\n')
    last = len(log.read_text().splitlines())
    with pytest.raises(ValueError, match=rf'scalars\.json: line {last} is no row'):
        read_run(tmp_path / 'run')
    table = compare_work_dirs([f'a={tmp_path}/run', f'b={folder}/alone_seed1'])
    assert f'- Left out: {log}: line {last} is no row' in table


@pytest.mark.parametrize('log_by_epoch', [True, False])
def test_iteration_loop_with_prefixed_keys(log_by_epoch, tmp_path):
    """Validated after 2, 4 and 5 iterations, though the log may say epoch 0."""
    train_in(
        tmp_path,
        student(),
        iters=5,
        train_cfg=dict(by_epoch=False, max_iters=5, val_interval=2),
        log_processor=dict(by_epoch=False, log_with_hierarchy=True),
        default_hooks=dict(
            logger=dict(type='LoggerHook', interval=1, log_metric_by_epoch=log_by_epoch)
        ),
    )
    steps = [row['step'] for row in rows(logs(tmp_path)[0]) if f'val/{TOP1}' in row]
    assert steps == ([0, 0, 0] if log_by_epoch else [2, 4, 5])
    run = read_run(tmp_path)
    assert (run.unit, run.length) == ('iteration', 5)
    assert list(run.scores[TOP1]) == [2, 4, 5]
    assert list(run.losses) == [1, 2, 3, 4, 5]


def train_by_iteration(work_dir, iters, interval, log_by_epoch, **cfg):
    """Scores of a training are the iterations after which it was validated."""
    loop = dict(by_epoch=False, max_iters=iters, **cfg.pop('loop'))
    logger = dict(
        type='LoggerHook', interval=interval, log_metric_by_epoch=log_by_epoch
    )
    checkpoint = dict(type='CheckpointHook', interval=4, by_epoch=False)
    evaluator = dict(scripted(**{TOP1: range(1, 99)}), counter='iter')
    train_in(
        work_dir,
        student(),
        iters=iters,
        train_cfg=loop,
        val_evaluator=evaluator,
        default_hooks=dict(logger=logger, checkpoint=checkpoint),
        **cfg,
    )


LOOPS = {
    'more often than logged': (5, dict(val_interval=2), [2, 4, 6, 8, 10, 11]),
    'before the first row': (50, dict(val_interval=3), [3, 6, 9, 11]),
    'later': (5, dict(val_interval=2, val_begin=7), [8, 10, 11]),
    'whole floats': (5, dict(val_interval=4.0, val_begin=0), [4, 8, 11]),
    'other intervals': (
        3,
        dict(val_interval=4, dynamic_intervals=[(6, 3), (9, 1)]),
        [4, 6, 8, 9, 10, 11],
    ),
    'never but at the end': (5, {}, [11]),
}


@pytest.mark.parametrize('log_by_epoch', [True, False])
@pytest.mark.parametrize('name', LOOPS)
def test_validations_of_iteration_loops(name, log_by_epoch, tmp_path):
    """Each is of the iteration that the loop's schedule says; the log says 0."""
    interval, loop, expected = LOOPS[name]
    train_by_iteration(tmp_path, 11, interval, log_by_epoch, loop=loop)
    entries = [row for row in rows(logs(tmp_path)[0]) if TOP1 in row]
    assert any(row['step'] for row in entries) != log_by_epoch
    run = read_run(tmp_path)
    assert run.scores[TOP1] == {step: step for step in expected}
    assert compare({'it': [run]})['notes'] == []


@pytest.mark.parametrize('log_by_epoch', [True, False])
@pytest.mark.parametrize('interval', [3, 5, 10])
def test_resumed_iteration_loop(interval, log_by_epoch, tmp_path):
    """From before its last row, with another schedule, and anew."""
    every = dict(loop=dict(val_interval=2))
    train_by_iteration(tmp_path, 11, interval, log_by_epoch, **every)
    resumed = dict(resume=True, load_from=str(tmp_path / 'iter_8.pth'))
    # Scores of what is run again are marked.
    train_by_iteration(
        tmp_path, 17, interval, log_by_epoch, loop=dict(val_interval=3), **resumed
    )
    log = logs(tmp_path)[1]
    again = [
        {**row, TOP1: row[TOP1] + 100} if TOP1 in row else row for row in rows(log)
    ]
    log.write_text('\n'.join(map(json.dumps, again)))
    scores = read_run(tmp_path).scores[TOP1]
    assert {step: score for step, score in scores.items() if score > 100} == {
        step: step + 100 for step in (9, 12, 15, 17)
    }
    assert {step for step, score in scores.items() if score < 100} >= {2, 4, 6, 8}
    train_by_iteration(tmp_path, 6, interval, log_by_epoch, **every)
    assert read_run(tmp_path).scores[TOP1] == {2: 2, 4: 4, 6: 6}


def test_validation_before_the_first_iteration(tmp_path):
    """Hooks may ask for one; it takes the place of none."""
    train_by_iteration(tmp_path, 6, 5, True, loop=dict(val_interval=2))
    [log] = logs(tmp_path)
    first = json.dumps({TOP1: 50, 'step': 0})
    log.write_text(f'{first}\n{log.read_text()}')
    assert read_run(tmp_path).scores[TOP1] == {0: 50, 2: 2, 4: 4, 6: 6}


def changed(folder, tmp_path, **values):
    """A work dir whose first row of training has other values."""
    shutil.copytree(folder / 'alone_seed0', tmp_path / 'run')
    [log] = logs(tmp_path / 'run')
    first, *others = rows(log)
    log.write_text('\n'.join(map(json.dumps, [{**first, **values}, *others])))
    return str(tmp_path / 'run')


@pytest.mark.parametrize(
    ('key', 'value', 'expected'),
    [
        ('loss', 'x', 'a number'),
        ('loss', [1], 'a number'),
        ('loss', 10**400, 'a number'),
        ('student.loss', 'a', 'a number'),
        ('time', '1', 'a number'),
        ('data_time', 'z', 'a number'),
        ('epoch', '2', 'a whole number'),
        ('epoch', None, 'a whole number'),
        (TOP1, 10**400, 'a number'),
        ('learning/loss_level0/ratio', 'x', 'a number'),
    ],
    ids=short,
)
def test_values_that_no_training_logs(key, value, expected, folder, tmp_path):
    """The run is left out, and the others are compared."""
    run = changed(folder, tmp_path, **{key: value})
    message = rf'scalars\.json: line 1: "{key}" is .*; expected {expected}\.'
    with pytest.raises(ValueError, match=message):
        read_run(run)
    table = compare_work_dirs([f'a={run}', f'b={folder}/alone_seed1'])
    assert f'- Left out: {run}/' in table and f'"{key}" is' in table


def test_null_is_what_strict_json_has_for_nan(folder, tmp_path):
    run = read_run(changed(folder, tmp_path, time=None, loss=None, note='seen', lr='x'))
    assert (run.seconds, run.step_seconds, run.data_share) == (None, None, None)
    whole = read_run(folder / 'alone_seed0')
    assert run.scores == whole.scores and list(run.losses) == [1, 2, 3]
    table = compare_work_dirs([f'a={tmp_path}/run'])
    assert 'nan' not in table and '| a | 0 |' in table


def test_scores_that_are_no_numbers(folder, tmp_path):
    """mmdet logs texts, mmpretrain lists; they are no mistake."""
    shutil.copytree(folder / 'alone_seed0', tmp_path / 'run')
    [log] = logs(tmp_path / 'run')
    others = {'coco/copypaste': '0.1 0.2', 'classwise': [1, 2], 'ok': True, 'no': None}
    lines = [{**row, **others} if TOP1 in row else row for row in rows(log)]
    log.write_text('\n'.join(map(json.dumps, lines)))
    assert list(read_run(tmp_path / 'run').scores) == [TOP1]


@pytest.mark.parametrize(
    ('line', 'message'),
    [
        ('randomness = [1]', r'randomness is \[1\]; expected a dict'),
        ('train_cfg = [1]', r'train_cfg is \[1\]; expected a dict'),
        ('default_hooks = [1]', r'default_hooks is \[1\]; expected a dict'),
        (
            'default_hooks = dict(logger=5)',
            'default_hooks.logger is 5; expected a dict',
        ),
        (
            'default_hooks = dict(logger=dict(interval=0))',
            'logger.interval is 0; expected a whole number above 0',
        ),
        ('model = [1]', r'model is \[1\]; expected a dict'),
        ('custom_hooks = 5', 'custom_hooks is 5; expected a list'),
        ("randomness = dict(seed='a')", "randomness.seed is 'a'; expected a whole"),
        ("train_cfg = dict(max_iters='5')", "max_iters is '5'; expected a whole"),
        (
            'train_cfg = dict(max_iters=5, val_interval=0)',
            "train_cfg has {'val_interval': 0}, by which no iteration",
        ),
        ('x =', 'expected|invalid'),
        ('# \udcff', "can't decode byte 0xff"),
    ],
)
def test_configs_that_no_training_dumps(line, message, folder, tmp_path):
    shutil.copytree(folder / 'alone_seed0', tmp_path / 'run')
    [log] = logs(tmp_path / 'run')
    lines = [dict(row, step=0) if TOP1 in row else row for row in rows(log)]
    log.write_text('\n'.join(map(json.dumps, lines)))
    with open(log.with_name('config.py'), 'a', errors='surrogateescape') as file:
        file.write(f'\n{line}\n')
    with pytest.raises(ValueError, match=rf'vis_data/config\.py: .*{message}'):
        read_run(tmp_path / 'run')
    table = compare_work_dirs([f'a={tmp_path}/run', f'b={folder}/alone_seed1'])
    assert f'- Left out: {tmp_path}/run/' in table and '| b | 1 |' in table


@pytest.mark.parametrize(
    'line',
    [
        'default_hooks = None',
        'default_hooks = dict(logger=None)',
        'randomness = None',
        'train_cfg = dict(max_epochs=3.0, val_interval=0)',
        'train_cfg = None',
        'custom_hooks = [5]',
    ],
)
def test_configs_that_trainings_dump(line, folder, tmp_path):
    shutil.copytree(folder / 'alone_seed0', tmp_path / 'run')
    [log] = logs(tmp_path / 'run')
    with open(log.with_name('config.py'), 'a') as file:
        file.write(f'\n{line}\n')
    run = read_run(tmp_path / 'run')
    assert run.scores == read_run(folder / 'alone_seed0').scores
    assert run.length == (None if 'train_cfg = None' in line else 3)


def test_bytes_that_are_no_text(folder, tmp_path):
    """In the runner's log they are passed over; in the numbers they are told."""
    shutil.copytree(folder / 'alone_seed0', tmp_path / 'run')
    [log] = logs(tmp_path / 'run')
    with open(log.with_name('config.py'), 'a') as file:
        file.write('\nrandomness = dict(seed=None)\n')
    text = log.parents[1] / 'runner.log'
    for old in log.parents[1].glob('*.log'):
        old.unlink()
    text.write_bytes(b'caf\xe9\n    seed: 5\n')
    assert read_run(tmp_path / 'run').seed == 5
    log.write_bytes(b'{"x": "\xff"}\n' + log.read_bytes())
    with pytest.raises(ValueError, match=r'scalars\.json: line 1 is no JSON'):
        read_run(tmp_path / 'run')


def test_notes_name_what_is_left_out(folder, tmp_path, monkeypatch):
    """Whatever is wrong with it, and though the error may name nothing."""
    shutil.copytree(folder / 'alone_seed0', tmp_path / 'run')
    [log] = logs(tmp_path / 'run')
    log.unlink()
    log.mkdir()
    items = [f'a={tmp_path}/run', f'b={folder}/alone_seed1']
    table = compare_work_dirs(items)
    assert f"Is a directory: '{log}'" in table and '| b | 1 |' in table

    def fail(work_dir):
        raise ValueError('no name in it')

    monkeypatch.setattr(compare_runs, 'read_run', fail)
    with pytest.raises(ValueError, match=f'Left out: {tmp_path}/run: no name in it'):
        compare_work_dirs(items)


def test_links_in_a_work_dir(folder, tmp_path):
    """Those that lead in circles, to the newest log, and to the work dir itself."""
    shutil.copytree(folder / 'alone_seed0', tmp_path / 'run')
    [log] = logs(tmp_path / 'run')
    for name in ('last', 'latest', 'newest'):
        (tmp_path / 'run' / name).symlink_to('.')
    (tmp_path / 'run' / 'log').symlink_to(log.parents[1].name)
    (tmp_path / 'link').symlink_to('run')
    whole = read_run(folder / 'alone_seed0')
    for name in ('run', 'link'):
        run = read_run(tmp_path / name)
        assert (run.scores, run.remarks) == (whole.scores, [])
        with pytest.raises(FileExistsError, match='that this command reads'):
            compare_work_dirs([f'a={tmp_path}/{name}'], out=[str(log)])
    # A log that lies elsewhere is read, too.
    shutil.move(log.parents[1], tmp_path / 'elsewhere')
    (tmp_path / 'run' / '20260101_000009').symlink_to('../elsewhere')
    moved = tmp_path / 'elsewhere/vis_data/scalars.json'
    with pytest.raises(FileExistsError, match='that this command reads'):
        compare_work_dirs([f'a={tmp_path}/link'], out=[str(moved)])


def test_seed_that_the_runner_drew(tmp_path):
    """The config has none; the log of the first start names it, resumed or not."""
    drawn = dict(randomness=dict(seed=None), log_level='INFO')
    train_in(tmp_path, student(), epochs=1, **drawn)
    number = torch.load(tmp_path / 'epoch_1.pth', weights_only=False)['meta']['seed']
    train_in(tmp_path, student(), epochs=2, resume=True, **drawn)
    assert len(logs(tmp_path)) == 2
    assert read_run(tmp_path).seed == number


def test_folder_without_a_training(tmp_path):
    with pytest.raises(FileNotFoundError, match=r'no log of a training.*scalars\.json'):
        read_run(tmp_path)


def test_name_of_a_run(folder, tmp_path):
    """That of the config's file; without a file, of the work dir without its seed."""
    assert read_run(folder / 'fam_seed1').name == 'fam'
    shutil.copytree(folder / 'fam_seed1', tmp_path / 'run')
    config = next(folder.glob('fam_seed1/*.py'))
    shutil.copy(config, tmp_path / 'run/kd_digits.py')
    assert read_run(tmp_path / 'run').name == 'kd_digits'
    # Of a test, and of a training beside its config.
    shutil.copy(config, tmp_path / 'run/student.test.py')
    assert read_run(tmp_path / 'run').name == 'kd_digits'
    shutil.copy(config, tmp_path / 'run/own.dump.py')
    assert read_run(tmp_path / 'run').name == 'own'


# Parameters.


def size(cfg):
    return sum(p.numel() for p in MODELS.build(ConfigDict(cfg)).parameters())


def test_parameters(methods):
    """Student and connectors, counted apart; the teacher's file is gone."""
    kept, added = size(student()), size(review_distiller(width=2, teacher_width=4))
    assert count_parameters(methods['alone'][0].config) == (kept, 0)
    assert count_parameters(methods['fam'][1].config) == (kept, added)


def test_parameters_under_mmrazor(tmp_path):
    """Its teacher is a module of the model, and loaded while that is built."""
    model = dict(
        type='mmrazor.SingleTeacherDistill',
        architecture=classifier(),
        teacher=classifier(width=8),
        teacher_ckpt=str(tmp_path / 'gone.pth'),
        distiller=layer_distiller(),
    )
    expected = size(classifier()), size(layer_distiller())
    assert count_parameters(Config(dict(model=model))) == expected


def test_parameters_of_detectors(monkeypatch):
    """Models by the paths of stock configs, whose weights are not fetched."""
    pytest.importorskip('mmcv.ops', reason='detection needs the full mmcv')
    monkeypatch.setattr(
        'mmengine.runner.checkpoint.CheckpointLoader.load_checkpoint',
        lambda *args, **kwargs: pytest.fail('weights were loaded'),
    )
    path = 'mmdet::retinanet/retinanet_r18_fpn_1x_coco.py'
    recorders = dict(neck=dict(type='mmrazor.ModuleOutputs', source='neck'))
    connector = dict(
        type='mmfakd.FrequencyAttentionConnector',
        in_channels=256,
        out_channels=256,
        mid_channels=16,
        modes=4,
    )
    distiller = dict(
        type='mmrazor.ConfigurableDistiller',
        student_recorders=recorders,
        teacher_recorders=recorders,
        connectors=dict(fam=connector),
        distill_losses=dict(loss=dict(type='mmrazor.L2Loss')),
        loss_forward_mappings=dict(
            loss=dict(
                s_feature=dict(
                    recorder='neck', data_idx=0, from_student=True, connector='fam'
                ),
                t_feature=dict(recorder='neck', data_idx=0, from_student=False),
            )
        ),
    )
    init_default_scope('mmdet')
    expected = size(Config.fromfile(detector_file(path)).model), size(connector)
    for algorithm in ('mmfakd.FeatureDistill', 'mmrazor.SingleTeacherDistill'):
        model = dict(
            type=algorithm,
            architecture=dict(cfg_path=path),
            teacher=dict(cfg_path=path, pretrained=True),
            distiller=distiller,
        )
        config = Config(dict(model=model, default_scope='mmdet'))
        assert count_parameters(config) == expected, algorithm


def detector_file(path):
    import mmdet

    return Path(mmdet.__file__).parent / '.mim/configs' / path.partition('::')[2]


def test_model_that_cannot_be_built(run):
    config = Config(dict(run.config.to_dict(), custom_imports=dict(imports='not_here')))
    comparison = compare({'alone': [replace(run, config=config)]})
    [note] = comparison['notes']
    assert note.startswith('alone: parameters unknown, building the model failed with')
    assert 'not_here' in note
    assert format_table(comparison).splitlines()[2].endswith('|  |  |')


# Comparing.


def test_comparison_of_real_runs(folder, methods):
    last, best = {}, {}
    for name in methods:
        curves = [
            [row[TOP1] for log in logs(folder / f'{name}_seed{i}') for row in rows(log)
             if TOP1 in row]
            for i in (0, 1)
        ]  # fmt: skip
        # The first start of the resumed run reached epoch 2, which was trained again.
        if name == 'fam':
            del curves[1][1]
        last[name] = [curve[-1] for curve in curves]
        best[name] = [max(curve) for curve in curves]
    comparison = compare(methods)
    assert (comparison['metric'], comparison['baseline']) == (TOP1, 'alone')
    assert comparison['notes'] == [] and comparison['teacher'] is None
    [alone, fam] = comparison['methods']
    for name, method in (('alone', alone), ('fam', fam)):
        for key, values in (('last', last[name]), ('best', best[name])):
            assert method[key]['mean'] == pytest.approx(np.mean(values))
            assert method[key]['spread'] == pytest.approx(np.std(values, ddof=1))
        assert [run['seed'] for run in method['runs']] == [0, 1]
        times = [run['seconds'] for run in method['runs']]
        assert method['seconds'] == pytest.approx(np.mean(times))
        assert method['parameters'] == size(student())
    differences = np.subtract(last['fam'], last['alone'])
    assert alone['difference'] is None
    assert fam['difference']['mean'] == pytest.approx(differences.mean())
    error = differences.std(ddof=1) / np.sqrt(2)
    assert fam['difference']['standard_error'] == pytest.approx(error)


def test_difference_is_paired_by_seed(run):
    """Differences 1, 3, 5, whatever the order: mean 3, standard error 2 / sqrt(3)."""
    alone, ours = seeds(run, 80, 70, 75), seeds(run, 81, 73, 80)
    comparison = compare({'alone': alone, 'ours': ours[::-1]})
    assert comparison['notes'] == []
    lines = format_table(comparison).splitlines()
    assert lines[0].startswith(
        '| method | seeds | last accuracy/top1 | best | minus alone | train time |'
    )
    assert lines[2].startswith('| alone | 0-2 | 75.00 (5.00) | 75.00 (5.00) |  |')
    assert lines[3].startswith(
        '| ours | 0-2 | 78.00 (4.36) | 78.00 (4.36) | +3.00 ± 1.15 |'
    )
    assert lines[5].startswith('Scores: higher is better; mean over the seeds (')
    other = compare({'alone': alone, 'ours': ours}, baseline='ours')
    assert other['methods'][0]['difference']['mean'] == -3


def test_runs_of_another_day_are_added(run):
    alone, ours = seeds(run, 80, 70, 75), seeds(run, 81, 73, 80)
    whole = compare({'alone': alone, 'ours': ours})
    # A round trip by a file, and one run anew.
    first = json.loads(json.dumps(compare({'ours': seeds(run, 99, 73)})))
    again = compare({'ours': [ours[0], ours[2]]})
    found = extend(first, again)
    found['methods'][0]['runs'][0]['kept'] = 1
    found = extend(found, compare({'alone': alone}), baseline='alone')
    assert found['methods'][0]['runs'][0].pop('kept') == 1
    assert json.loads(json.dumps(found['methods'][::-1])) == json.loads(
        json.dumps(whole['methods'])
    )
    assert (found['baseline'], found['notes']) == ('alone', [])
    with pytest.raises(ValueError, match=r"baseline 'other': expected one of \['ours'"):
        extend(found, again, baseline='other')
    with pytest.raises(ValueError, match=r'mIoU was compared before, accuracy/top1'):
        extend(dict(found, metric='mIoU'), again)


def test_configs_of_another_day(run):
    """Runs that are added are remarked on as those of one call are."""
    other = Config(run.config.to_dict())
    other.optim_wrapper.optimizer.lr = 0.5
    other.work_dir = 'another'
    first, *later = seeds(run, 80, 70, 75)
    later[1].config = other
    for added in (later, later[1:]):
        whole = json.loads(json.dumps(compare({'alone': [first]})))
        found = extend(whole, compare({'alone': added}))
        notes = [note for note in found['notes'] if 'its config differs from' in note]
        assert notes[0] == (
            f'alone seed 2 ({later[1].work_dir}): its config differs from that of '
            f'alone seed 0 ({first.work_dir}) in optim_wrapper.'
        )
        assert all(note.startswith('alone seed 2 ') for note in notes)
    # Once more, and by one that takes the place of the first.
    again = extend(json.loads(json.dumps(found)), compare({'alone': added}))
    assert again['notes'] == found['notes']
    odd = replace(first, config=other)
    again = extend(compare({'alone': [first, later[0]]}), compare({'alone': [odd]}))
    assert again['notes'] == [
        f'alone seed 0 ({first.work_dir}): its config differs from that of alone seed '
        f'1 ({later[0].work_dir}) in optim_wrapper.'
    ]
    # Files of older versions have none to compare with.
    for one in whole['methods'][0]['runs']:
        assert len(json.dumps(one.pop('config'))) < 1000
    assert not extend(whole, compare({'alone': later[1:]}))['notes']


def test_unfinished_run_replaces_no_finished_one(run):
    """Seed 0 is trained again, and has one epoch of two so far."""
    finished = [
        variant(run, [60, 80 + i], seed=i, work_dir=f'wd{i}', remarks=['it is old'])
        for i in (0, 1)
    ]
    whole = json.loads(json.dumps(compare({'alone': finished})))
    begun = replace(variant(run, [50], seed=0, work_dir='again'), length=2)
    found = extend(whole, compare({'alone': [begun]}))
    [alone] = found['methods']
    assert [one['work_dir'] for one in alone['runs']] == ['wd0', 'wd1']
    assert alone['last']['mean'] == 80.5
    notes = found['notes']
    assert 'alone seed 0 (wd0), alone seed 1 (wd1): it is old.' in notes
    [note] = [note for note in notes if 'compared before has 2' in note]
    assert note.startswith('alone seed 0 (again): ends at 1; left out')
    # Once it has got as far it takes its place, and what was said is said no more.
    done = variant(run, [50, 90], seed=0, work_dir='again')
    found = extend(json.loads(json.dumps(found)), compare({'alone': [done]}))
    assert [one['work_dir'] for one in found['methods'][0]['runs']] == ['again', 'wd1']
    assert found['notes'] == ['alone seed 1 (wd1): it is old.']
    # Differences are those of now.
    other = compare({'other': [variant(run, [1, 2], seed=1, work_dir='o')]})
    found = extend(found, other, baseline='other')
    assert found['methods'][0]['difference']['mean'] == 79
    assert extend(found, other, baseline='alone')['methods'][0]['difference'] is None


def test_epochs_and_iterations_of_one_method(run):
    whole = compare({'alone': seeds(run, 80)})
    later = [replace(one, unit='iteration') for one in seeds(run, 70, first=1)]
    with pytest.raises(ValueError, match='alone: its runs counted by epoch before, '):
        extend(whole, compare({'alone': later}))


def test_method_without_a_score_of_its_own(run):
    """What was known of it stays."""
    whole = compare({'alone': seeds(run, 80), 'ours': seeds(run, 82)})
    begun = replace(variant(run, [], seed=5), scores={})
    later = compare({'ours': [begun], 'third': seeds(run, 70)}, TOP1, 'third')
    found = {one['method']: one for one in extend(whole, later)['methods']}
    assert [one['seed'] for one in found['ours']['runs']] == [0]
    assert (found['ours']['unit'], found['ours']['last']['mean']) == ('epoch', 82)


def test_shorter_run_of_another_day_is_left_out(run):
    whole = compare({'alone': seeds(run, 80, 70)})
    longer = variant(run, [60, 90], seed=2, work_dir='later')
    found = extend(whole, compare({'alone': [longer]}))
    assert [one['seed'] for one in found['methods'][0]['runs']] == [2]
    assert found['methods'][0]['last']['mean'] == 90
    [note] = [note for note in found['notes'] if 'ends at 1; left out' in note]
    assert 'alone seed 0' in note and 'alone seed 1' in note


def figures(**changed):
    """A file of figures without a method, with other keys."""
    return json.dumps({**dict(metric=TOP1, baseline='a', methods=[]), **changed})


@pytest.mark.parametrize(
    ('name', 'text', 'message'),
    [
        ('log.txt', None, 'FILE.json'),
        ('zoo.json', '{"models": []}', 'as it is'),
        ('empty.json', '', 'as it is'),
        ('deep.json', '[' * 100_000, 'as it is'),
        ('dict.json', figures(methods={'a': 1}), 'as it is'),
        ('runless.json', figures(methods=[{'method': 'a'}]), 'as it is'),
        ('curveless.json', figures(methods=[{'runs': [{'seed': 0}]}]), 'as it is'),
        ('remarks.json', figures(remarks=5), 'as it is'),
        ('metric.json', figures(metric=1), 'as it is'),
        ('nested.json', figures(x=json.loads('[' * 200 + ']' * 200)), 'as it is'),
    ],
    ids=short,
)
def test_files_that_are_no_comparison(name, text, message, folder, tmp_path):
    path = tmp_path / name
    if text is not None:
        path.write_text(text)
    with pytest.raises(ValueError, match=f'--add-to .*{name}: expected .*{message}'):
        compare_work_dirs([f'alone={folder}/alone_seed*'], add_to=str(path))
    assert (path.read_text() if path.exists() else None) == text


@pytest.mark.parametrize(
    ('change', 'good'),
    [
        (lambda whole: whole['methods'][0]['runs'][0].pop('curve'), False),
        (lambda whole: whole['methods'][0]['runs'][0].update(curve=[]), False),
        (lambda whole: whole['methods'][0]['runs'][0].update(last=None), False),
        (lambda whole: whole['methods'][0]['runs'][0].update(best=10**400), False),
        (lambda whole: whole['methods'][0]['runs'][0].update(config=[]), False),
        (lambda whole: whole['methods'][0].update(last=1), False),
        (lambda whole: whole.update(teacher={}), False),
        # What older versions wrote, and what others have added.
        (lambda whole: whole['methods'][0]['runs'][0].pop('config'), True),
        (lambda whole: (whole.pop('teacher'), whole.pop('remarks')), True),
        (lambda whole: whole['methods'][0]['runs'][0].update(fit={'a': [1]}), True),
        (lambda whole: whole['methods'][0]['runs'][0].update(seconds=None), True),
    ],
)
def test_figures_of_another_shape(change, good, folder, tmp_path):
    path = tmp_path / 'figures.json'
    compare_work_dirs([f'alone={folder}/alone_seed*'], add_to=str(path))
    whole = json.loads(path.read_text())
    change(whole)
    path.write_text(json.dumps(whole))
    items = [f'fam={folder}/fam_seed*']
    if good:
        assert '| alone |' in compare_work_dirs(items, add_to=str(path))
        return
    with pytest.raises(ValueError, match=f'--add-to {path}: expected what'):
        compare_work_dirs(items, add_to=str(path))
    assert json.loads(path.read_text()) == whole


def test_files_that_cannot_be_written(folder, tmp_path):
    """Told before any log is read."""
    for name in ('notes.txt', 'curves', 'a.b/c'):
        with pytest.raises(ValueError, match=rf'-o {name}: expected figures \(.json\)'):
            compare_work_dirs(['not there'], out=['a.json', name])
    [log] = logs(folder / 'alone_seed0')
    before = log.read_text()
    with pytest.raises(FileExistsError, match='that this command reads'):
        compare_work_dirs([f'{folder}/alone_seed0'], out=[str(log)])
    assert log.read_text() == before


def test_command_adds_to_a_file(folder, tmp_path, capsys):
    path = str(tmp_path / 'figures.json')
    for name in ('fam', 'alone'):
        runs = f'{name}={folder}/{name}_seed*'
        table = compare_work_dirs([runs], add_to=path, baseline=name)
    assert 'minus alone' in table and '| fam |' in table
    both = [f'{name}={folder}/{name}_seed*' for name in ('fam', 'alone')]
    compare_work_dirs(both, baseline='alone', out=[f'{tmp_path}/whole.json'])
    assert mmengine.load(path) == mmengine.load(f'{tmp_path}/whole.json')
    assert [file.name for file in tmp_path.iterdir() if 'part' in file.name] == []
    # The earlier baseline stands where none is named.
    table = compare_work_dirs([f'fam={folder}/fam_seed*'], add_to=path)
    assert 'minus alone' in table


def test_one_seed_has_no_spread(run):
    comparison = compare({'alone': seeds(run, 80), 'ours': seeds(run, 82)})
    assert '| ours | 0 | 82.00 | 82.00 | +2.00 |' in format_table(comparison)


def test_seeds_without_a_partner(run):
    """Seeds 0 to 2 against 1 to 4: the pairs are 1 and 2."""
    alone, ours = seeds(run, 80, 70, 75), seeds(run, 71, 78, 90, 90, first=1)
    comparison = compare({'alone': alone, 'ours': ours})
    [note] = comparison['notes']
    assert note == 'ours and alone: 4 and 3 runs, the difference is that of 2 pairs.'
    difference = comparison['methods'][1]['difference']
    assert difference['mean'] == pytest.approx((71 - 70 + 78 - 75) / 2)
    assert [Path(mine).name for mine, _ in difference['pairs']] == ['1', '2']
    assert '| ours | 1-4 |' in format_table(comparison)


@pytest.mark.parametrize(
    ('numbers', 'reason', 'shown'),
    [
        ((0, None), 'not all seeds are known', '0, 1 unknown'),
        ((0, 0), 'a seed is there twice', '0, 0'),
        ((7, 9), 'they have no seed in common', '7, 9'),
    ],
)
def test_pairing_in_the_order_given(numbers, reason, shown, run):
    alone = seeds(run, 80, 70)
    ours = [replace(r, seed=n) for r, n in zip(seeds(run, 81, 73), numbers)]
    comparison = compare({'alone': alone, 'ours': ours})
    [note] = comparison['notes']
    assert note == f'ours and alone: paired in the order given, as {reason}.'
    assert comparison['methods'][1]['difference']['mean'] == 2
    assert f'| ours | {shown} |' in format_table(comparison)


def test_shorter_run_is_left_out(run):
    """A crashed seed changes no mean, and is named."""
    ours = [variant(run, [10, 20], seed=0), variant(run, [10, 24], seed=1)]
    crashed = replace(variant(run, [90], seed=2, work_dir='crashed'), length=2)
    comparison = compare({'ours': [crashed, *ours]})
    [method] = comparison['methods']
    assert method['last']['mean'] == 22
    assert [run['seed'] for run in method['runs']] == [0, 1]
    [note] = comparison['notes']
    assert note == (
        f'ours seed 2 (crashed): its last {TOP1} is that of epoch 1, 2 were asked for; '
        'left out, as the longest run of this method has 2.'
    )


def test_methods_of_unequal_length(run):
    comparison = compare(
        {'alone': [variant(run, [10, 20])], 'ours': [variant(run, [10, 20, 30])]}
    )
    assert comparison['notes'] == [
        'Runs of unequal length: they end, alone at epoch 2; ours at epoch 3.',
        'Unequal numbers of validations: alone 2; ours 3; `best` is a maximum over '
        'them.',
    ]


def test_unfinished_runs_are_named_together(run):
    """One note for both; their means are shown all the same."""
    ours = [replace(r, length=5) for r in seeds(run, 30, 40)]
    comparison = compare({'ours': ours})
    [note] = comparison['notes']
    assert note.count('ours seed') == 2 and 'epoch 1, 5 were asked for' in note
    assert comparison['methods'][0]['last']['mean'] == 35


def test_run_without_validation(run, tmp_path):
    """A real one, and one whose validations hold another score."""
    train_in(tmp_path / 'blind', student(), validate=False, epochs=1, **seed(3))
    other = replace(run, scores={'accuracy/top5': {1: 90.0}}, work_dir='other')
    comparison = compare(
        {'alone': [run, read_run(tmp_path / 'blind'), other], 'ours': [other]}
    )
    assert comparison['notes'] == [
        f'alone seed 3 ({tmp_path}/blind): no {TOP1} in its logs (no validation), left '
        'out.',
        f'alone seed 0 (other), ours seed 0 (other): no {TOP1} in its logs '
        '(accuracy/top5), left out.',
    ]
    assert [method['last']['mean'] for method in comparison['methods']] == [
        run.last(TOP1),
        None,
    ]
    assert '| ours | none |  |  |  |' in format_table(comparison)
    with pytest.raises(ValueError, match="but \\['accuracy/top5'\\]"):
        other.last(TOP1)


def test_runs_of_one_method_with_another_config(run):
    """Other seeds and work dirs are as they should be, another rate is not."""
    config = Config(run.config.to_dict())
    config.optim_wrapper.optimizer.lr = 0.1
    config.work_dir, config.randomness.seed = 'elsewhere', 1
    [note] = compare({'ours': [run, replace(run, config=config, seed=1)]})['notes']
    assert note.endswith('in optim_wrapper.optimizer.lr.')
    assert f'ours seed 1 ({run.work_dir}): its config differs' in note


def test_metric_of_detectors(tmp_path):
    """The one that is there is found; fractions get more digits than percents."""
    scores = {MAP: [0.312, 0.374, 0.368], 'coco/bbox_mAP_50': [0.5, 0.6, 0.7]}
    train_in(
        tmp_path / 'det_seed0', student(), epochs=3, val_evaluator=scripted(**scores)
    )
    run = read_run(tmp_path / 'det_seed0')
    assert run.scores[MAP] == {1: 0.312, 2: 0.374, 3: 0.368}
    comparison = compare({'det': [run]})
    assert comparison['metric'] == MAP and comparison['notes'] == []
    assert f'| last {MAP} |' in format_table(comparison)
    assert '| det | 0 | 0.3680 | 0.3740 |' in format_table(comparison)
    comparison = compare({'det': [run]}, metric='coco/bbox_mAP_50')
    assert comparison['methods'][0]['last']['mean'] == 0.7


def test_score_that_is_not_finite_is_none(folder, tmp_path):
    """A diverged last epoch must not pass for the score of the one before."""
    shutil.copytree(folder / 'alone_seed0', tmp_path / 'run')
    [log] = logs(tmp_path / 'run')
    last = rows(log)[-1]
    text = log.read_text().replace(json.dumps(last), json.dumps({**last, TOP1: np.nan}))
    log.write_text(text)
    [note] = compare({'alone': [read_run(tmp_path / 'run')]})['notes']
    assert f'its last {TOP1} is that of epoch 2, 3 were asked for' in note


def test_teacher_is_listed_but_not_compared(run):
    teacher = variant(run, [98.8, 97.0], seed=None)
    comparison = compare({'alone': seeds(run, 80)}, teacher=teacher)
    assert comparison['notes'] == []
    line = format_table(comparison).splitlines()[2]
    assert line.startswith('| teacher | 1 unknown | 97.00 | 98.80 |  |')


@pytest.mark.parametrize('score', [17.9, 80])
def test_teacher_no_better_than_the_student_alone(score, run):
    teacher = variant(run, [98.8, score], seed=None)
    methods = {'alone': seeds(run, 80), 'kd': seeds(run, 70)}
    comparison = compare(methods, teacher=teacher)
    said = (
        f'teacher: its last score, {score:.4g}, is not above that of alone, 80: it may '
        'have nothing to teach; see what it was trained on, and for how long.'
    )
    assert comparison['notes'] == [said]
    added = extend(comparison, compare({'kd': seeds(run, 71)}))
    assert added['notes'] == [said]
    better = compare({'kd': seeds(run, 71)}, teacher=variant(run, [98.0], seed=None))
    assert extend(comparison, better)['notes'] == []


def test_figures_of_an_older_version_name_no_teacher(run):
    older = compare({'alone': seeds(run, 80)})
    del older['teacher']
    found = extend(older, compare({'kd': seeds(run, 81)}))
    assert found['teacher'] is None and len(found['methods']) == 2


def both_metrics(run):
    return replace(run, scores={TOP1: {1: 5.0}, MAP: {1: 0.5}})


@pytest.mark.parametrize(
    ('change', 'options', 'message'),
    [
        (None, dict(baseline='kd'), r"baseline 'kd': expected one of \['alone'\]"),
        (None, dict(metric='top1'), r"'top1': the logs hold \['accuracy/top1'\]"),
        (both_metrics, {}, r'accuracy/top1 and coco/bbox_mAP in the logs.*--metric'),
        (lambda run: replace(run, scores={'f1': {1: 1.0}}), {}, r"hold \['f1'\]"),
        (lambda run: replace(run, scores={}), {}, 'hold no validation'),
    ],
)
def test_refused_comparisons(change, options, message, run):
    with pytest.raises(ValueError, match=message):
        compare({'alone': [change(run) if change else run]}, **options)


def test_method_of_two_kinds_of_loops(run):
    other = replace(run, unit='iteration')
    with pytest.raises(ValueError, match='alone: some of its runs count epochs'):
        compare({'alone': [run, other]})


@pytest.mark.parametrize(
    ('seconds', 'text'),
    [
        (None, ''),
        (0.0512, '51.2 ms'),
        (1.25, '1.2 s'),
        (119, '119.0 s'),
        (120, '2.0 min'),
        (7200, '2.0 h'),
    ],
)
def test_durations(seconds, text):
    assert compare_runs._duration(seconds) == text


# Drawing.


def test_curves(methods, run):
    """A line per method, the mean of its seeds, within the band of its seeds."""
    comparison = compare(methods, teacher=variant(run, [98.0]))
    figure = draw_curves(comparison)
    [score, loss] = figure.axes
    for axis, key in ((score, 'curve'), (loss, 'losses')):
        lines = {line.get_label(): line for line in axis.lines}
        assert set(lines) - {'teacher'} == {'alone', 'fam'}
        bands = dict(zip(('alone', 'fam'), axis.collections))
        for method in comparison['methods']:
            name = method['method']
            values = np.array([[y for _, y in run[key]] for run in method['runs']])
            assert list(lines[name].get_xdata()) == [1, 2, 3]
            np.testing.assert_allclose(lines[name].get_ydata(), values.mean(0))
            [path] = bands[name].get_paths()
            low, high = path.get_extents().get_points()[:, 1]
            assert (low, high) == pytest.approx((values.min(), values.max()))
        written = {text.get_text(): text.get_color() for text in axis.texts}
        assert written == {name: line.get_color() for name, line in lines.items()}
        looks = [(lines[n].get_color(), lines[n].get_linestyle()) for n in methods]
        assert looks[0][0] != looks[1][0] and looks[0][1] != looks[1][1]
        assert axis.get_xlabel() == 'epoch'
    assert TOP1 in score.get_ylabel() and 'loss' in loss.get_ylabel()
    [teacher] = [line for line in score.lines if line.get_label() == 'teacher']
    assert set(teacher.get_ydata()) == {98.0}
    assert loss.get_yscale() == 'log'


def test_labels_keep_their_distance(run):
    """Methods that end at the same score: each label on a line of its own."""
    ours = {f'method {i}': [variant(run, [10, 50 + i / 1000])] for i in range(7)}
    figure = draw_curves(compare(ours))
    figure.draw_without_rendering()
    # Without the line that leads from the curve to the text.
    boxes = [Text.get_window_extent(text) for text in figure.axes[0].texts]
    boxes.sort(key=lambda box: box.y0)
    assert all(low.y1 <= high.y0 for low, high in zip(boxes, boxes[1:]))
    assert len({line.get_color() for line in figure.axes[0].lines}) == 7


@pytest.mark.parametrize('name', ['kd', 'fakd_review_r18w32_r18w4_1xb50_digits'])
def test_long_names_leave_room_for_the_curves(name, run):
    figure = draw_curves(compare({name: [run]}))
    figure.draw_without_rendering()
    for axis in figure.axes:
        box = axis.get_window_extent()
        assert 1.5 < box.width / figure.dpi < 2.5
        [text] = axis.texts
        assert text.get_window_extent().x1 <= figure.bbox.x1


def test_labels_move_no_farther_than_needed():
    """Two in each other's way move apart equally, the third stays."""
    spread = keep_apart([0.1, 0.50, 0.54], gap=0.1)
    assert spread == pytest.approx([0.1, 0.47, 0.57])
    # Pushed together, the pool meets the first.
    spread = keep_apart([0.45, 0.50, 0.51], gap=0.1)
    mean = (0.45 + 0.40 + 0.31) / 3
    assert spread == pytest.approx([mean, mean + 0.1, mean + 0.2])


@pytest.mark.parametrize('name', [r'$\bad$', 'a|b', 'two\nlines', '_x'])
def test_names_with_signs_of_their_own(name, run, tmp_path):
    """They are no formula in the picture, and no cell or row more in the table."""
    comparison = compare({name: [run], 'other': [variant(run, [1, 2, 3])]})
    figure = draw_curves(comparison)
    figure.draw_without_rendering()
    assert figure.axes[0].texts[-1].get_text() == name
    save_curves(comparison, f'{tmp_path}/curves.svg')
    table = format_table(comparison).partition('\n\n')[0].splitlines()
    assert len(table) == 4
    assert len({len(re.findall(r'(?<!\\)\|', line)) for line in table}) == 1


def test_only_scores_are_drawn_without_losses(run):
    """And no line for a teacher that was not validated."""
    teacher = replace(run, scores={})
    figure = draw_curves(compare({'alone': [replace(run, losses={})]}, teacher=teacher))
    assert len(figure.axes) == 1 and len(figure.axes[0].lines) == 1


def test_epochs_and_iterations_share_no_axis(run):
    other = replace(run, unit='iteration')
    comparison = compare({'alone': [run], 'ours': [other]})
    with pytest.raises(ValueError, match='alone counts epochs, ours iterations'):
        draw_curves(comparison)


def test_nothing_to_draw(run):
    teacher, blind = run, replace(run, scores={})
    with pytest.raises(ValueError, match='no run to draw'):
        draw_curves(compare({'alone': [blind]}, teacher=teacher))


# The command line.


def test_command(folder, tmp_path):
    """Names and globs, and names left out; the table, the JSON, the picture."""
    command = ['-m', 'mmfakd', 'compare', 'alone=alone_seed*', 'fam_seed1']
    command += ['fam_seed0', '--plot', tmp_path / 'curves.png']
    process = forked.run(*command, '--json', tmp_path / 'runs.json', cwd=folder)
    assert process.returncode == 0, process.stderr
    lines = process.stdout.splitlines()
    assert [line.split(' | ')[0] for line in lines[2:4]] == ['| alone', '| fam']
    assert lines[4] == '' and 'Notes' not in process.stdout
    comparison = json.loads((tmp_path / 'runs.json').read_text())
    assert [method['method'] for method in comparison['methods']] == ['alone', 'fam']
    fam = comparison['methods'][1]
    assert [run['work_dir'] for run in fam['runs']] == ['fam_seed1', 'fam_seed0']
    assert fam['difference']['pairs'] == [
        ['fam_seed1', 'alone_seed1'],
        ['fam_seed0', 'alone_seed0'],
    ]
    resumed = read_run(folder / 'fam_seed1')
    assert fam['runs'][0]['curve'] == [list(p) for p in resumed.scores[TOP1].items()]
    assert fam['added'] == size(review_distiller(width=2, teacher_width=4))
    header = (tmp_path / 'curves.png').read_bytes()
    assert header.startswith(b'\x89PNG') and len(header) > 20_000


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        (['kd=nowhere*'], "'nowhere*': no such folder; expected NAME=DIR"),
        (['nowhere'], "'nowhere': no such folder; expected NAME=DIR"),
        (['a=alone_seed0', 'b=alone_seed*'], 'alone_seed0: given twice'),
        (['.'], 'Left out: .: no log of a training'),
        (['kd=.'], 'Left out: .: no log of a training'),
        (['alone_seed0', '--metric', 'f1'], "metric 'f1': the logs hold"),
    ],
)
def test_refused_commands(arguments, message, folder, monkeypatch):
    monkeypatch.chdir(folder)
    with pytest.raises(SystemExit) as stopped:
        cli.main(['compare', *arguments])
    assert message in str(stopped.value)


def test_folder_without_a_log_among_others(folder, monkeypatch, capsys):
    """A run of a glob that has not logged yet stops nothing, and is named."""
    (folder / 'alone_seed2').mkdir()
    monkeypatch.chdir(folder)
    cli.main(['compare', 'alone=alone_seed*'])
    (folder / 'alone_seed2').rmdir()
    printed = capsys.readouterr().out
    assert '| alone | 0, 1 |' in printed
    assert '- Left out: alone_seed2: no log of a training' in printed


def test_order_of_a_glob(tmp_path):
    for number in (10, 9, 0):
        (tmp_path / f'kd_seed{number}').mkdir()
    name, folders = compare_runs._work_dirs(f'kd={tmp_path}/kd_seed*')
    assert name == 'kd'
    assert [Path(path).name for path in folders] == [
        'kd_seed0',
        'kd_seed9',
        'kd_seed10',
    ]


def test_folders_with_signs_of_their_own(tmp_path):
    """No name, glob or list, where a folder has the signs of one."""
    for path in ('lr=0.1_seed0', 'run[0]', 'lr=0.1,wd=1'):
        (tmp_path / path).mkdir()
        item = str(tmp_path / path)
        assert compare_runs._work_dirs(item) == (None, [item])
        assert compare_runs._work_dirs(f'kd={item}') == ('kd', [item])
    item = str(tmp_path / 'lr=0.1,wd=*')
    assert compare_runs._work_dirs(item) == (None, [str(tmp_path / 'lr=0.1,wd=1')])
    several = f'{tmp_path / "lr=0.1_seed0"},{tmp_path / "run[0]"}'
    assert compare_runs._work_dirs(f'kd={several}') == ('kd', several.split(','))
