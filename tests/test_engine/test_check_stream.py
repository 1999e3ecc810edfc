# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""Streams without a length: where MMEngine asks for it, and where it does not."""

import pytest
from mmengine.config import Config
from mmengine.hooks import Hook, LoggerHook
from mmengine.registry import LOOPS
from mmengine.runner import EpochBasedTrainLoop, IterBasedTrainLoop, LogProcessor
from torch.utils.data import DataLoader, RandomSampler

from mmfakd.engine.check_stream import asks_for_length, check_stream, explain_stream
from mmfakd.engine.hooks import CheckDataHook
from mmfakd.engine.launch import train as launch
from tests.helpers.tiny_runs import CountedStream, Stream, run_config, student, train


class OwnLogger(LoggerHook):
    """One that writes at the end alone."""

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        pass


class StreamLogger(LoggerHook):
    """One for streams, which have no end."""

    def end_of_epoch(self, dataloader, batch_idx):
        return False


class OwnText(LogProcessor):
    """A text of one's own, without a length."""

    def get_log_after_iter(self, runner, batch_idx, mode):
        return {}, ''


class OwnLength(LogProcessor):
    """One that has another word for it."""

    def _get_dataloader_size(self, runner, mode):
        return '?'


class Endless(RandomSampler):
    """A sampler of one's own, of which MMEngine's has a length."""

    __len__ = None


@LOOPS.register_module(force=True)
class OwnEpochs:
    """A loop of one's own, which may take streams."""


@pytest.mark.parametrize(
    ('loader', 'hooks', 'others'),
    [
        (DataLoader(Stream()), [LoggerHook(interval=1)], []),
        (DataLoader(Stream()), [Hook(), LoggerHook()], ['train_cfg']),
        (DataLoader(Stream()), [], ['param_scheduler']),
        (DataLoader([1, 2], sampler=Endless([1, 2])), [LoggerHook()], []),
    ],
)
def test_refused(loader, hooks, others):
    names = [*others, *['LoggerHook'] * bool(hooks)]
    kind = type(loader.dataset).__name__
    with pytest.raises(ValueError, match=rf'\({kind}\) .*\({", ".join(names)}\). Give'):
        check_stream(loader, hooks, others)


@pytest.mark.parametrize(
    ('data', 'hooks'),
    [
        (Stream(), []),
        (Stream(), [Hook(), OwnLogger()]),
        # They never look for the end of an epoch.
        (Stream(), [LoggerHook(interval=1, interval_exp_name=1)]),
        (Stream(), [StreamLogger()]),
        (CountedStream(), [LoggerHook()]),
        ([1, 2], [LoggerHook()]),
    ],
)
def test_not_refused(data, hooks):
    # Of a dict of loaders the length is another.
    check_stream(dict(one=DataLoader(Stream())), [LoggerHook()])
    others = [] if type(data) is Stream else ['train_cfg']
    own = (OwnText(by_epoch=True), OwnLength(by_epoch=True))
    for log_processor in (LogProcessor(by_epoch=False), *own, None):
        check_stream(DataLoader(data), hooks, others, log_processor)


@pytest.mark.parametrize(
    'logger', [StreamLogger(), LoggerHook(interval=1, interval_exp_name=1)]
)
def test_a_log_that_writes_the_length(logger):
    named = rf'\({type(logger).__name__} with log_processor.by_epoch\)'
    with pytest.raises(ValueError, match=named):
        check_stream(DataLoader(Stream()), [logger], log_processor=LogProcessor())


@pytest.mark.parametrize(
    ('cfg', 'keys'),
    [
        (dict(train_cfg=dict(by_epoch=True)), ['train_cfg']),
        (dict(train_cfg=dict(type=EpochBasedTrainLoop)), ['train_cfg']),
        (dict(train_cfg=dict(by_epoch=False)), []),
        (dict(train_cfg=dict(type='IterBasedTrainLoop')), []),
        (dict(train_cfg=dict(type='OwnEpochs')), []),
        (dict(param_scheduler=[]), []),
        (
            dict(
                train_cfg=dict(type=IterBasedTrainLoop),
                param_scheduler=dict(type='ConstantLR', by_epoch=False),
            ),
            ['param_scheduler'],
        ),
    ],
)
def test_what_asks(cfg, keys):
    assert asks_for_length(Config(cfg)) == keys


def streamed(work_dir, iters=2, **keys):
    cfg = run_config(work_dir, student(), epochs=1, iters=iters, **keys)
    data = dict(dataset=dict(type='Stream', images=20), sampler=None)
    cfg.train_dataloader = {**cfg.train_dataloader, **data}
    return cfg


def test_a_sampler_that_asks(work_dir):
    """MMEngine's, which base configs have; without it the same training goes on."""
    cfg = streamed(work_dir)
    cfg.default_hooks.logger = None
    cfg.train_dataloader.sampler = dict(type='InfiniteSampler')
    text = r'\(Stream\) .*\(train_dataloader.sampler\). Give .*loader.sampler=None.'
    with pytest.raises(ValueError, match=text):
        run(cfg)
    cfg = streamed(work_dir, iters=None)
    cfg.train_dataloader.sampler = dict(type='DefaultSampler')
    with pytest.raises(ValueError, match=r'\(train_dataloader.sampler, train_cfg\)'):
        run(cfg)


def run(cfg):
    with explain_stream(cfg):
        train(cfg, CheckDataHook())


def test_a_training_refuses(work_dir):
    with pytest.raises(ValueError, match=r'\(Stream\) do not say .*\(LoggerHook\)'):
        run(streamed(work_dir))


def test_a_loop_of_epochs(work_dir):
    with pytest.raises(ValueError, match=r'\(Stream\) do not say .*\(train_cfg\)'):
        run(streamed(work_dir, iters=None))


def test_the_command_refuses_schedules(work_dir, tmp_path):
    """They are built before any hook is called."""
    schedule = dict(type='ConstantLR', by_epoch=False)
    path = str(tmp_path / 'config.py')
    cfg = streamed(work_dir, param_scheduler=schedule, experiment_name='stream')
    cfg.dump(path)
    with pytest.raises(ValueError, match=r'do not say .*\(param_scheduler\)'):
        launch(path)()


def test_a_training_without_what_asks(work_dir):
    cfg = streamed(work_dir)
    cfg.default_hooks.logger = None
    run(cfg)


@pytest.mark.parametrize('sampler', [None, dict(type='DefaultSampler')])
def test_a_stream_of_validation(work_dir, sampler):
    """MMEngine's own error says where; of the training data nothing is wrong."""
    cfg = streamed(work_dir, validate=True)
    cfg.default_hooks.logger = None
    data = dict(dataset=dict(type='Stream', images=20), sampler=sampler)
    cfg.val_dataloader = {**cfg.val_dataloader, **data}
    with pytest.raises(TypeError, match=r"^object of type 'Stream' has no len\(\)"):
        run(cfg)


@pytest.mark.parametrize('text', ["object of type 'NoneType' has no len()", 'other'])
def test_other_errors_stay(work_dir, text):
    """Also of what is built where a stream would be asked, as a data set that fails."""

    def build_train_loop():
        raise TypeError(text)

    with pytest.raises(TypeError) as caught, explain_stream(streamed(work_dir)):
        build_train_loop()
    assert caught.value.args == (text,)
