# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""What is learned is read from the logs as `mmfakd compare` reads scores and losses."""

import json

import pytest

from mmfakd.analysis.learning_courses import read_courses, read_first_step
from mmfakd.analysis.read_run import read_run

RATIO = 'learning/loss_level0/ratio'


def write_log(work_dir, start, length, steps, interval=1, **config):
    """The log of one start: epochs of `length` iterations, each looked at.

    Losses and ratios are the number of the start. Rows of training are those of
    MMEngine's hook, with what it leaves out at the end of an epoch.
    """
    folder = work_dir / f'2026010{start}_000000/vis_data'
    folder.mkdir(parents=True)
    logger = dict(type='LoggerHook', interval=interval)
    config.update(train_cfg=dict(by_epoch=True, max_epochs=9))
    config.update(default_hooks=dict(logger=logger), work_dir=str(work_dir))
    text = '\n'.join(f'{key} = {value!r}' for key, value in config.items())
    (folder / 'config.py').write_text(text)
    rows = []
    for step in steps:
        epoch, inner = (step - 1) // length + 1, (step - 1) % length + 1
        if inner % interval == 0 or inner == length < interval:
            rows.append(dict(loss=start, time=1.0, epoch=epoch, iter=step, step=step))
        rows.append({RATIO: start, 'step': step})
        if inner == length:
            rows.append({'accuracy/top1': start, 'step': epoch})
    # Killed while it wrote.
    lines = [*map(json.dumps, rows), '{"learning/l']
    (folder / 'scalars.json').write_text('\n'.join(lines))


def course(work_dir):
    return list(read_courses(str(work_dir))['loss_level0']['ratio'].items())


def starts(*counts):
    """Iterations 1, 2, ... with the start that each is of."""
    whose = [start for start, count in enumerate(counts, 1) for _ in range(count)]
    return list(enumerate(whose, 1))


@pytest.mark.parametrize('interval', [1, 3, 50])
@pytest.mark.parametrize(
    ('then', 'now', 'steps', 'expected'),
    [
        # Epochs of as many iterations: at the end of one, within one.
        (10, 10, range(11, 31), (10, 20)),
        (10, 10, range(16, 31), (15, 15)),
        # Half the batch, after epoch 1, 2 and 3.
        (10, 20, range(21, 61), (10, 40)),
        (10, 20, range(41, 61), (20, 20)),
        (10, 20, range(61, 81), (30, 20)),
        # Twice the batch, which counts iterations that were there before once more.
        (10, 5, range(6, 16), (10, 10)),
        (10, 5, range(11, 16), (20, 5)),
        (10, 5, range(16, 26), (30, 10)),
    ],
)
def test_resumed_training(then, now, steps, expected, interval, tmp_path):
    """Three epochs; what a resumption did again is there once."""
    write_log(tmp_path, 1, then, range(1, 31), interval)
    write_log(tmp_path, 2, now, steps, interval, resume=True)
    assert course(tmp_path) == starts(*expected)
    # Scores and losses are of the same starts.
    run = read_run(tmp_path)
    first = (steps[0] - 1) // now + 1
    within = (steps[0] - 1) % now
    scores = run.scores['accuracy/top1']
    assert all(scores[epoch] == (1 if epoch < first else 2) for epoch in scores)
    for epoch, loss in run.losses.items():
        assert loss == (1 if epoch < first else 2) or (within and epoch == first)


def test_interrupted_and_resumed_with_another_batch_size(tmp_path):
    """After iteration 15, half of epoch 2: what was done of it stays."""
    write_log(tmp_path, 1, 10, range(1, 16))
    write_log(tmp_path, 2, 20, range(31, 61), resume=True)
    assert course(tmp_path) == starts(15, 30)
    assert read_run(tmp_path).seconds == 45


def test_batch_size_of_before(tmp_path):
    """Resumed from the checkpoint before it was changed: both counts are as before."""
    write_log(tmp_path, 1, 10, range(1, 31))
    write_log(tmp_path, 2, 20, range(41, 61), resume=True)
    write_log(tmp_path, 3, 20, range(61, 81), resume=True)
    assert course(tmp_path) == starts(20, 20, 20)
    write_log(tmp_path, 4, 10, range(21, 41), resume=True)
    assert course(tmp_path) == [*starts(20), *((step, 4) for step in range(21, 41))]


def test_training_started_anew(tmp_path):
    write_log(tmp_path, 1, 10, range(1, 31))
    write_log(tmp_path, 2, 10, range(1, 11))
    assert course(tmp_path) == [(step, 2) for step in range(1, 11)]
    other = dict(resume=True, load_from=f'{tmp_path}_other/epoch_1.pth')
    write_log(tmp_path, 3, 10, range(11, 21), **other)
    assert course(tmp_path) == [(step, 3) for step in range(11, 21)]


def test_looks_between_rows(tmp_path):
    """A resumption from between two rows of training is seen by its looks."""
    write_log(tmp_path, 1, 100, range(1, 98), interval=50)
    write_log(tmp_path, 2, 100, range(71, 201), interval=50, resume=True)
    assert course(tmp_path) == starts(70, 130)


def test_losses_with_a_slash_in_their_name(tmp_path):
    write_log(tmp_path, 1, 10, range(1, 3))
    [log] = tmp_path.glob('*/vis_data/scalars.json')
    log.write_text(log.read_text().replace('loss_level0', 'a/loss'))
    assert read_courses(str(tmp_path)) == {'a/loss': {'ratio': {1: 1, 2: 1}}}


@pytest.mark.parametrize(
    'text',
    [
        *('[]', '', '{', '[' * 100_000, '{"levels": 5}', '{"levels": [3]}'),
        *('{"levels": [{"name": "a"}]}', '{"levels": [{"name": "a", "ratio": "x"}]}'),
    ],
    ids=lambda text: text[:40],
)
def test_report_that_is_none(text, tmp_path):
    path = tmp_path / 'distillation.json'
    path.write_text(text)
    with pytest.raises(ValueError, match=rf'{path} is no .*Remove it') as raised:
        read_first_step(str(tmp_path))
    assert len(str(raised.value)) < 400


def test_report_of_the_first_step(tmp_path):
    assert read_first_step(str(tmp_path)) == {}
    for report in ({}, dict(levels=[dict(name='a', ratio=r) for r in (1, 0.5, None)])):
        (tmp_path / 'distillation.json').write_text(json.dumps(report))
        assert read_first_step(str(tmp_path)) == report


def test_no_logs(tmp_path):
    assert read_courses(str(tmp_path)) == {}
