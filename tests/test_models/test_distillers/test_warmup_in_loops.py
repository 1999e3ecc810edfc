# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""What counts epochs or iterations, in real loops."""

import warnings

import pytest
from mmengine.hooks import Hook
from mmengine.registry import LOOPS
from mmengine.runner import IterBasedTrainLoop, Runner

from tests.helpers.tiny_runs import (
    Recorder,
    distillation,
    run_config,
    save_teacher,
    train,
)
from tests.helpers.toy import review_distiller


@LOOPS.register_module(force=True)
class OwnLoop(IterBasedTrainLoop):
    """A loop of the user's own."""


@pytest.fixture
def model(tmp_path):
    path = save_teacher(tmp_path)

    def build(**warmup):
        distiller = review_distiller(width=2, teacher_width=4)
        return distillation(path, distiller=dict(distiller, warmup=warmup or None))

    return build


def factors(cfg, *hooks):
    recorder = Recorder()
    train(cfg, recorder, *hooks)
    return [losses['distill.warmup'] for losses in recorder.losses]


@pytest.mark.parametrize('kind', [None, 'OwnLoop'])
def test_epochs_of_an_iteration_loop(tmp_path, model, kind):
    cfg = run_config(tmp_path, model(begin=0, end=2), iters=4)
    if kind:
        cfg.train_cfg = dict(type=kind, max_iters=4)
    message = rf'by_epoch=True, begin=0, end=2.* in a {kind or "Iter"}.*of 4 in all'
    with pytest.raises(ValueError, match=message):
        train(cfg)


def test_epochs_of_an_epoch_loop(tmp_path, model):
    cfg = run_config(tmp_path, model(end=2), epochs=3)
    assert factors(cfg) == pytest.approx([0.5, 0.5, 1, 1, 1, 1])


@pytest.mark.parametrize('iters', [None, 6])
def test_iterations_are_batches_also_under_accumulation(tmp_path, model, iters):
    warmup = dict(by_epoch=False, begin=1, end=5)
    cfg = run_config(tmp_path, model(**warmup), epochs=3, iters=iters)
    cfg.optim_wrapper.accumulative_counts = 2
    assert factors(cfg) == pytest.approx([0, 0.25, 0.5, 0.75, 1, 1])


@pytest.mark.parametrize('iters', [None, 8])
def test_a_resumed_warmup_goes_on(tmp_path, model, iters):
    warmup = dict(by_epoch=False, begin=0, end=8)
    cfg = run_config(tmp_path, model(**warmup), epochs=2, iters=iters and 4)
    before = factors(cfg)
    cfg = run_config(tmp_path, model(**warmup), epochs=4, iters=iters)
    cfg.resume = True
    after = factors(cfg)
    assert before + after == pytest.approx([n / 8 for n in range(1, 9)])


def built(folder, name, model):
    """A runner that is built and does not train yet, as in a cell of a notebook."""
    cfg = run_config(folder / name, model, epochs=3)
    cfg.experiment_name = f'{folder.name}-{name}'
    runner = Runner.from_cfg(cfg)
    recorder = Recorder()
    runner.register_hook(recorder)
    return runner, recorder


def test_several_runners_in_one_process(tmp_path, model):
    """Each has its own progress, not that of the one which was built last."""
    runs = [built(tmp_path, name, model(end=3)) for name in 'abc']
    for i in (1, 0, 2):
        runner, recorder = runs[i]
        runner.train()
        factors = [losses['distill.warmup'] for losses in recorder.losses]
        assert factors == pytest.approx([n / 3 for n in (1, 1, 2, 2, 3, 3)])
        assert runner.model.first_step is not None


def test_no_counter(tmp_path, model):
    cfg = run_config(tmp_path, model(by_epoch=False, end=4), iters=2)
    cfg.default_hooks.runtime_info = None
    with pytest.raises(RuntimeError, match='no RuntimeInfoHook'):
        train(cfg)


def test_validation_needs_none(tmp_path, model):
    cfg = run_config(tmp_path, model(end=2), iters=2, validate=True)
    assert 'accuracy/top1' in Runner.from_cfg(cfg).val()


class SwitchesLate(Hook):
    """As mmdet's PipelineSwitchHook."""

    def __init__(self):
        self.switch_epoch = 3

    def before_train_epoch(self, runner):
        """Nothing."""


class ActsInTheEnd(SwitchesLate):
    """As mmdet's YOLOXModeSwitchHook."""

    def __init__(self):
        self.num_last_epochs = 15


class HasSteps(SwitchesLate):
    """Has a schedule, but of no epochs."""

    def __init__(self):
        self.schedule = dict(stem=1, head=2)


def test_hooks_and_schedulers_that_wait_for_an_epoch(tmp_path, model, capsys):
    cfg = run_config(
        tmp_path,
        model(),
        iters=2,
        checkpoint=dict(by_epoch=True),
        log_level='WARNING',
        param_scheduler=dict(type='MultiStepLR', milestones=[1], by_epoch=True),
    )
    train(cfg, SwitchesLate(), ActsInTheEnd(), HasSteps())
    said = capsys.readouterr().out
    assert 'HasSteps' not in said
    assert "ActsInTheEnd got {'num_last_epochs': 15}" in said
    assert 'it acts at the first iteration, for the whole training' in said
    assert "SwitchesLate got {'switch_epoch': 3}, but in a IterBasedTrainLoop" in said
    assert 'CheckpointHook got by_epoch=True' in said
    assert 'The scheduler MultiStepLR got by_epoch=True' in said and '`lr`' in said


def test_a_distillation_that_would_never_stop(tmp_path, model):
    hook = dict(type='mmrazor.StopDistillHook', stop_epoch=1)
    with pytest.raises(ValueError, match=r"StopDistillHook got {'stop_epoch': 1}"):
        train(run_config(tmp_path, model(), iters=2, hooks=[hook]))
    recorder = Recorder()
    train(run_config(tmp_path, model(), epochs=2, hooks=[hook]), recorder)
    stopped = ['distill.loss_stopped' in losses for losses in recorder.losses]
    assert stopped == [False, False, True, True]


def test_a_log_after_the_distillation(tmp_path, model):
    """It shows no losses of levels that are over, nor does a resumed training."""
    hook = dict(type='mmrazor.StopDistillHook', stop_epoch=1)
    recorder = Recorder()
    for epochs in (2, 3):
        cfg = run_config(tmp_path, model(end=1), epochs=epochs, hooks=[hook])
        cfg.resume = epochs == 3
        train(cfg, recorder)
    before, after = recorder.losses[0], recorder.losses[2:]
    names = [name for name in before if name.startswith('distill.')]
    assert len(names) == 5 and all(before[name] > 0 for name in names)
    assert len(after) == 4
    for losses in after:
        assert all(losses[name] == 0 for name in names)
        own = sum(v for k, v in losses.items() if k.startswith('student.loss'))
        assert losses['loss'] == pytest.approx(own)


@pytest.mark.parametrize(
    ('warmup', 'told'),
    [
        (dict(end=1), None),
        (dict(end=2), 'StopDistillHook stops the distillation at 1: the full weight'),
        (dict(by_epoch=False, end=2), None),
        (dict(by_epoch=False, end=3), 'the distillation at 2: the full weight'),
        (dict(by_epoch=False, begin=2, end=3), 'nothing is ever distilled'),
    ],
)
def test_distillation_that_stops_before_the_warmup_ends(tmp_path, model, warmup, told):
    hook = dict(type='mmrazor.StopDistillHook', stop_epoch=1)
    cfg = run_config(tmp_path, model(**warmup), epochs=3, hooks=[hook])
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter('always')
        train(cfg)
    texts = [str(w.message) for w in caught if 'warm-up ends' in str(w.message)]
    assert len(texts) == (told is not None)
    assert all(told in text for text in texts)
