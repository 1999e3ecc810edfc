# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""The report of the first step is kept, once a training."""

import json

import pytest
from mmengine.runner import Runner

from tests.helpers.tiny_runs import distillation, run_config, save_teacher

HOOK = dict(type='mmfakd.FirstStepHook')


def config(folder, model=None, **kwargs):
    model = distillation(save_teacher(folder), **(model or {}))
    return run_config(folder / 'work', model, hooks=[dict(HOOK)], **kwargs)


def scalars(work_dir):
    """Numbers of the first step in the visualizer's files."""
    lines = [
        json.loads(line)
        for path in sorted(work_dir.glob('*/vis_data/scalars.json'))
        for line in path.read_text().splitlines()
    ]
    return [line for line in lines if any('first_step/' in key for key in line)]


@pytest.mark.parametrize(
    'loop', [dict(epochs=1), dict(iters=2)], ids=['epochs', 'iters']
)
def test_kept_in_work_dir_and_visualizer(tmp_path, loop):
    cfg = config(tmp_path, **loop)
    cfg.optim_wrapper.accumulative_counts = 2
    runner = Runner.from_cfg(cfg)
    runner.train()
    report = json.loads((tmp_path / 'work/distillation.json').read_text())
    assert report == runner.model.first_step.as_dict()
    assert [row['name'] for row in report['levels']] == [
        f'loss_level{i}' for i in range(4)
    ]
    assert report['total']['ratio'] > 0 and report['errors'] == []
    [line] = scalars(tmp_path / 'work')
    assert line['first_step/total/ratio'] == pytest.approx(report['total']['ratio'])
    assert line['step'] == 1
    assert not list((tmp_path / 'work').glob('*.part'))


def test_a_resumed_training_keeps_that_of_its_beginning(tmp_path):
    Runner.from_cfg(config(tmp_path, epochs=1)).train()
    path = tmp_path / 'work/distillation.json'
    path.write_text('that of the beginning')
    cfg = config(tmp_path, epochs=2)
    cfg.resume, cfg.load_from = True, str(tmp_path / 'work/epoch_1.pth')
    runner = Runner.from_cfg(cfg)
    runner.train()
    assert runner.epoch == 2 and runner.model.first_step is None
    assert path.read_text() == 'that of the beginning'
    assert len(scalars(tmp_path / 'work')) == 1


def test_what_the_optimizer_leaves_out_is_an_error(tmp_path):
    """Before any weight has moved, and nothing is kept of it."""
    cfg = config(tmp_path, epochs=1)
    cfg.optim_wrapper.paramwise_cfg = dict(
        custom_keys={'architecture.backbone': dict(lr_mult=0)}
    )
    with pytest.raises(ValueError, match='the optimizer moves none of the'):
        Runner.from_cfg(cfg).train()


def test_any_model_and_a_switch(tmp_path):
    runner = Runner.from_cfg(config(tmp_path, dict(report=False), epochs=1))
    runner.train()
    assert not (tmp_path / 'work/distillation.json').exists()
