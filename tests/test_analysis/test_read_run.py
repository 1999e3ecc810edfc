# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""What is read from the work dir of a training, on logs that real ones wrote."""

import json
import shutil

import numpy as np
import pytest
import torch

from mmfakd.analysis.compare_runs import compare
from mmfakd.analysis.compare_work_dirs import compare_work_dirs
from mmfakd.analysis.comparison_table import format_table
from mmfakd.analysis.read_run import read_run
from mmfakd.analysis.run_log import _may_be_one
from tests.helpers.compared_runs import (
    TOP1,
    logs,
    rows,
    scripted,
    seed,
    short,
    train_in,
)
from tests.helpers.tiny_runs import (
    Recorder,
    run_config,
    student,
)


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


def test_log_of_no_time(folder, tmp_path):
    """As of a clock that was set back to where it was."""
    shutil.copytree(folder / 'alone_seed0', tmp_path / 'run')
    [log] = logs(tmp_path / 'run')
    entries = [{**row, 'time': 0.0} for row in rows(log)]
    log.write_text(''.join(f'{json.dumps(row)}\n' for row in entries))
    run = read_run(tmp_path / 'run')
    assert (run.seconds, run.data_share) == (0, None)


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


def test_score_that_is_not_finite_is_none(folder, tmp_path):
    """A diverged last epoch must not pass for the score of the one before."""
    shutil.copytree(folder / 'alone_seed0', tmp_path / 'run')
    [log] = logs(tmp_path / 'run')
    last = rows(log)[-1]
    text = log.read_text().replace(json.dumps(last), json.dumps({**last, TOP1: np.nan}))
    log.write_text(text)
    [note] = compare({'alone': [read_run(tmp_path / 'run')]})['notes']
    assert f'its last {TOP1} is that of epoch 2, 3 were asked for' in note
