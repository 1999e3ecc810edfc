# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""Resumed anywhere, a training goes on as the uninterrupted one would have."""

import os
import random
import re
import time
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.runner import Runner

from mmfakd.checkpoints.latest import find_checkpoint
from mmfakd.compat import load_checkpoint_file
from mmfakd.engine.hooks.resume_hook import ResumeHook
from tests.helpers.cpu_scaler import needs_cpu_scaler
from tests.helpers.tiny_runs import Recorder, distillation, run_config, train
from tests.helpers.toy_detectors import detection_run, retinanet
from tests.helpers.two_processes import run_twice
from tests.helpers.weight_server import weight_server

# Of MMEngine, on every resume within a cycle of accumulation.
LOST = 'the gradient of some iterations is lost'


class Stop(Exception):
    """A training that ends in the middle."""


class Breaker(Hook):
    """Ends a training after an iteration, once all hooks have seen it."""

    priority = 'LOWEST'

    def __init__(self, after=None, at='train_iter'):
        self.after, self.at = after, at

    def after_train_iter(self, runner, *args, **kwargs):
        if self.at == 'train_iter' and runner.iter + 1 == self.after:
            raise Stop

    def after_train_epoch(self, runner):
        if self.at == 'train_epoch' and runner.epoch + 1 == self.after:
            raise Stop

    def before_val_epoch(self, runner):
        if self.at == 'val' and runner.epoch == self.after:
            raise Stop


def config(work_dir, teacher_ckpt, workers=0, accumulate=1, seeded=True, **kwargs):
    """Epochs of four iterations, with dropout of random numbers in the main process."""
    model = distillation(teacher_ckpt)
    model['architecture']['head']['loss']['use_soft'] = True
    hooks = [dict(type='mmfakd.ResumeHook'), *kwargs.pop('hooks', [])]
    if seeded:
        hooks.append(dict(type='mmfakd.EpochSeedHook'))
    kwargs.setdefault('epochs', 3)
    cfg = run_config(work_dir, model, hooks=hooks, **kwargs)
    cfg.train_dataloader.update(batch_size=5, num_workers=workers)
    cfg.data_preprocessor.batch_augments = dict(augments=dict(type='Mixup', alpha=0.8))
    cfg.default_hooks.checkpoint.type = 'mmfakd.SafeCheckpointHook'
    cfg.optim_wrapper.accumulative_counts = accumulate
    return cfg


def in_parts(work_dir, make, breaker):
    """Train until it breaks off, and resume.

    Returns:
        The losses of both parts.
    """
    first, second = Recorder(), Recorder()
    with pytest.raises(Stop):
        train(make(work_dir), first, breaker)
    # Whatever happened to the random state since.
    random.seed(5), np.random.seed(5), torch.manual_seed(5)
    train(make(work_dir, resume=True), second)
    return first.losses, second.losses


def assert_equal_files(one, other):
    """Compare the checkpoints of two work dirs."""
    names = [{f.name for f in Path(d).glob('*.pth')} for d in (one, other)]
    assert names[0] == names[1]
    for name in names[0]:
        states = [
            load_checkpoint_file(Path(d, name))['state_dict'] for d in (one, other)
        ]
        assert states[0].keys() == states[1].keys()
        for key, value in states[0].items():
            assert torch.equal(value, states[1][key]), (name, key)


@pytest.mark.parametrize(
    'workers, interval, accumulate', [(0, 1, 3), (0, 3, 1), (2, 1, 1), (2, 3, 3)]
)
def test_within_an_epoch(workers, interval, accumulate, tmp_path, teacher_ckpt, capfd):
    def make(work_dir, **kwargs):
        checkpoint = dict(by_epoch=False, interval=interval, max_keep_ckpts=2)
        return config(
            work_dir,
            teacher_ckpt,
            workers,
            accumulate,
            checkpoint=checkpoint,
            validate=True,
            log_level='WARNING',
            **kwargs,
        )

    whole = Recorder()
    train(make(tmp_path / 'whole'), whole)
    first, second = in_parts(tmp_path / 'parts', make, Breaker(after=7))
    assert LOST not in ''.join(capfd.readouterr())
    assert (len(whole.losses), len(first)) == (12, 7)
    begin = 12 - len(second)
    assert begin == 7 // interval * interval
    assert first + second[7 - begin :] == whole.losses
    assert_equal_files(tmp_path / 'whole', tmp_path / 'parts')


@pytest.fixture(scope='module')
def within_a_cycle(tmp_path_factory, teacher_ckpt):
    """A checkpoint after one of three batches of a cycle."""
    folder = tmp_path_factory.mktemp('cycle')
    kwargs = dict(checkpoint=dict(by_epoch=False, interval=1), epochs=2)
    kwargs['hooks'] = [dict(type='mmfakd.ProvenanceHook')]
    with pytest.raises(Stop):
        train(config(folder, teacher_ckpt, 0, 3, **kwargs), Breaker(after=7))
    return folder / 'iter_7.pth'


RESTORED = 'cycle of accumulation are restored'


@pytest.mark.parametrize(
    ('age', 'accumulate', 'told'),
    [
        ('new', 3, f'INFO - .*{RESTORED}\\.'),
        ('new', 2, f'WARNING - .*{RESTORED}, but .* 1 of 3 batches .*now 1 of 2'),
        ('new', 7, 'WARNING - .* are left out: .* a cycle begins here'),
        ('old', 3, f'INFO - .*{RESTORED}\\.'),
        ('old', 2, f'WARNING - .*{RESTORED}, but .* 1 of 3 batches .*now 1 of 2'),
        # Without ProvenanceHook.
        ('oldest', 3, f'WARNING - .*{RESTORED}, but the checkpoint does not say'),
        ('of two', 3, f'WARNING - .*{RESTORED}, but .* mean of .* 2 processes .now 1'),
        ('without', 3, f'WARNING - .*{LOST}'),
    ],
)
def test_what_is_told_of_gradients(
    age, accumulate, told, tmp_path, teacher_ckpt, within_a_cycle, capfd
):
    """One message, MMEngine's only where there are none."""
    state = load_checkpoint_file(within_a_cycle)
    position = state['position']
    assert position['cycles'] == [[1, 3]]
    if age.startswith('old'):
        del position['cycles']
    if age == 'oldest':
        del state['meta']['mmfakd']
    elif age == 'of two':
        position['gradients'] *= 2
    elif age == 'without':
        position['gradients'] = [{}]
    file = str(tmp_path / 'iter_7.pth')
    torch.save(state, file)
    kwargs = dict(epochs=2, log_level='INFO', resume=True, load_from=file)
    runner = train(config(tmp_path, teacher_ckpt, 0, accumulate, **kwargs))
    # Of another training with this optimizer MMEngine's is right.
    assert 'initialize_count_status' not in vars(runner.optim_wrapper)
    out = ''.join(capfd.readouterr())
    assert re.search(told, out), out
    assert len(re.findall(f'{RESTORED}|are left out|{LOST}', out)) == 1


class Head(Hook):
    """Keeps the student's last layer after each iteration."""

    priority = 'LOWEST'

    def __init__(self):
        self.weights = {}

    def after_train_iter(self, runner, *args, **kwargs):
        head = runner.model.architecture.head.fc
        self.weights[runner.iter + 1] = head.weight.detach().clone()


def in_precision(precision, work_dir, teacher_ckpt, **kwargs):
    """Cycles of three batches, with a loss scaler or without."""
    checkpoint = dict(by_epoch=False, interval=7)
    cfg = config(work_dir, teacher_ckpt, 0, 3, checkpoint=checkpoint, **kwargs)
    if precision == 'amp':
        cfg.optim_wrapper.update(type='CpuAmpOptimWrapper', init_scale=65536.0)
    return cfg


@pytest.fixture(scope='module')
def whole_cycles(tmp_path_factory, teacher_ckpt):
    """Weights of a training in each precision, and a checkpoint within a cycle."""
    runs = {}
    for precision in ('amp', 'plain'):
        folder, head = tmp_path_factory.mktemp(precision), Head()
        with pytest.raises(Stop):
            cfg = in_precision(precision, folder, teacher_ckpt)
            train(cfg, head, Breaker(after=9))
        runs[precision] = head.weights, str(folder / 'iter_7.pth')
    return runs


@needs_cpu_scaler
@pytest.mark.parametrize(
    'then, now', [('amp', 'plain'), ('plain', 'amp'), ('amp',) * 2]
)
def test_gradients_in_another_precision(
    then, now, tmp_path, teacher_ckpt, whole_cycles
):
    """The scale that they are multiplied by is that of who goes on."""
    weights, file = whole_cycles[then]
    head = Head()
    with pytest.raises(Stop):
        kwargs = dict(resume=True, load_from=file)
        cfg = in_precision(now, tmp_path, teacher_ckpt, **kwargs)
        train(cfg, head, Breaker(after=9))
    expected, found = (each[9] - weights[7] for each in (weights, head.weights))
    assert expected.any() and weights[8].equal(weights[7])
    # bfloat16 is as exact as a hundredth.
    assert then != now or found.equal(expected)
    assert (found - expected).abs().max() < 0.05 * expected.abs().max()


def test_validation_with_the_config_of_a_resume(tmp_path, teacher_ckpt, within_a_cycle):
    """As of the config that a work dir holds: no optimizer is built."""
    kwargs = dict(validate=True, resume=True, load_from=str(within_a_cycle))
    cfg = config(tmp_path, teacher_ckpt, 0, 3, **kwargs)
    assert 'accuracy/top1' in Runner.from_cfg(cfg).val()


@pytest.fixture
def named(tmp_path, within_a_cycle, monkeypatch):
    """Let the hook look at a file in the user's home, with a byte of it turned."""
    content = bytearray(within_a_cycle.read_bytes())
    content[len(content) // 2] ^= 1
    (tmp_path / 'damaged.pth').write_bytes(content)
    (tmp_path / 'good.pth').write_bytes(within_a_cycle.read_bytes())
    torch.save(dict(meta={}, state_dict={}), tmp_path / 'student.pth')
    for variable in ('HOME', 'MMENGINE_HOME'):
        monkeypatch.setenv(variable, str(tmp_path))
    monkeypatch.setenv('no_proxy', '127.0.0.1')

    def choose(source):
        runner = SimpleNamespace(_resume=True, _load_from=source, hooks=[])
        runner.param_schedulers = []
        hook = ResumeHook()
        hook.before_run(runner)
        return hook, runner

    with weight_server(tmp_path) as server:
        yield lambda source: choose(source.replace('URL', server.url))


def test_a_checkpoint_in_the_home_or_at_an_address(named, tmp_path):
    """Under other launchers, too, where nothing has looked at it before."""
    for place in ('~', 'URL'):
        with pytest.raises(ValueError, match='damaged.pth" is damaged: a checksum'):
            named(f'{place}/damaged.pth')
        with pytest.raises(ValueError, match='/student.pth: it is a student file'):
            named(f'{place}/student.pth')
    # As those look for it that come after.
    assert named('~/good.pth')[1]._load_from == str(tmp_path / 'good.pth')
    assert named('URL/good.pth')[1]._load_from.startswith('http://')
    with pytest.raises(FileNotFoundError, match='missing.pth.* is neither a file'):
        named('~/missing.pth')


def test_a_checkpoint_of_a_store_is_looked_at_when_it_is_there(named):
    """It may be large, and is not fetched twice."""
    hook, runner = named('s3://bucket/student.pth')
    match = '--resume s3://bucket/student.pth: it is a student file'
    with pytest.raises(ValueError, match=match):
        hook.after_load_checkpoint(runner, dict(meta={}, state_dict={}))


class Validations(Hook):
    """Notes the scores of every validation."""

    def __init__(self):
        self.seen = []

    def after_val_epoch(self, runner, metrics=None):
        self.seen.append((runner.epoch, runner.iter, dict(metrics)))


@pytest.mark.parametrize('epoch, seeded', [(1, True), (2, False), (3, True)])
def test_a_validation_that_was_cut_off_is_run(epoch, seeded, tmp_path, teacher_ckpt):
    """Also the last one, behind which there is nothing else to do."""

    def make(work_dir, **kwargs):
        checkpoint = dict(save_best='accuracy/top1', max_keep_ckpts=1)
        return config(
            work_dir,
            teacher_ckpt,
            seeded=seeded,
            validate=True,
            checkpoint=checkpoint,
            **kwargs,
        )

    whole, parts = Validations(), Validations()
    losses = Recorder()
    train(make(tmp_path / 'whole'), whole, losses)
    first, second = Recorder(), Recorder()
    with pytest.raises(Stop):
        train(make(tmp_path / 'parts'), first, parts, Breaker(epoch, 'val'))
    train(make(tmp_path / 'parts', resume=True), second, parts)
    assert first.losses + second.losses == losses.losses
    assert parts.seen == whole.seen and len(whole.seen) == 3
    assert_equal_files(tmp_path / 'whole', tmp_path / 'parts')


def test_a_finished_validation_is_not_repeated(tmp_path, teacher_ckpt):
    """Its best checkpoint was the last that was written."""

    def make(work_dir, **kwargs):
        cfg = config(
            work_dir,
            teacher_ckpt,
            validate=True,
            checkpoint=dict(save_best='score', rule='greater'),
            **kwargs,
        )
        cfg.val_evaluator = dict(
            type='ScriptedScore', counter='epoch', score=[1.0, 2.0, 3.0]
        )
        return cfg

    parts = Validations()
    with pytest.raises(Stop):
        train(make(tmp_path), parts, Breaker(after=5))
    train(make(tmp_path, resume=True), parts)
    assert [epoch for epoch, *_ in parts.seen] == [1, 2, 3]


@pytest.mark.parametrize('workers', [0, 2])
def test_iteration_based_loop(workers, tmp_path, teacher_ckpt):
    def make(work_dir, **kwargs):
        checkpoint = dict(interval=3)
        return config(
            work_dir,
            teacher_ckpt,
            workers,
            iters=10,
            seeded=False,
            validate=True,
            checkpoint=checkpoint,
            **kwargs,
        )

    whole = Recorder()
    train(make(tmp_path / 'whole'), whole)
    first, second = in_parts(tmp_path / 'parts', make, Breaker(after=7))
    assert first[:6] + second == whole.losses
    assert_equal_files(tmp_path / 'whole', tmp_path / 'parts')


SEEDS = [
    (None, None),
    (dict(seed=None, diff_rank_seed=True),) * 2,
    (dict(seed=3), dict(seed=5)),
]


@pytest.mark.parametrize(
    ('in_epochs', 'workers', 'seeds'),
    [
        (True, 0, SEEDS[0]),
        (True, 1, SEEDS[1]),
        (False, 0, SEEDS[2]),
        (False, 2, SEEDS[0]),
    ],
)
def test_the_seed_is_that_of_the_first_run(
    in_epochs, workers, seeds, tmp_path, teacher_ckpt
):
    """Also where MMEngine draws one at each start, as under stock launchers."""

    def make(randomness, **kwargs):
        length = dict(epochs=2) if in_epochs else dict(iters=8)
        checkpoint = dict(by_epoch=False, interval=5)
        kwargs.update(length, seeded=in_epochs, checkpoint=checkpoint)
        cfg = config(tmp_path, teacher_ckpt, workers, **kwargs)
        cfg.pop('randomness')
        return cfg if randomness is None else Config(dict(cfg, randomness=randomness))

    whole, rest = Recorder(), Recorder()
    train(make(seeds[0]), whole)
    train(make(seeds[1], resume=True, load_from=str(tmp_path / 'iter_5.pth')), rest)
    assert len(rest.batches) == 3 and rest.losses == whole.losses[5:]
    assert all(map(torch.equal, rest.batches, whole.batches[5:]))


@pytest.mark.parametrize('seeds', [SEEDS[2], SEEDS[0]], ids=['given', 'drawn'])
@pytest.mark.parametrize(
    ('length', 'after'), [('epochs', 8), ('epochs', 6), ('iters', 6)]
)
def test_samplers_that_go_on_across_epochs(
    length, after, seeds, tmp_path, teacher_ckpt
):
    """Each epoch takes 7 of 20 images of the one set, those that follow."""
    pytest.importorskip('mmdet.datasets')

    def make(randomness, **kwargs):
        # MMEngine waits two seconds where a loop of iterations begins an epoch.
        kwargs[length] = 4 if length == 'epochs' else 8
        checkpoint = dict(by_epoch=False, interval=after)
        kwargs.update(seeded=length == 'epochs', checkpoint=checkpoint)
        cfg = config(tmp_path, teacher_ckpt, **kwargs)
        cfg.pop('randomness')
        data = cfg.train_dataloader.dataset
        cfg.train_dataloader = dict(
            batch_size=6,
            num_workers=0,
            dataset=dict(type='ConcatDataset', datasets=[data, data]),
            sampler=dict(type='mmdet.CustomSampleSizeSampler', dataset_size=[-1, 7]),
        )
        return cfg if randomness is None else Config(dict(cfg, randomness=randomness))

    whole, rest = Recorder(), Recorder()
    train(make(seeds[0]), whole)
    start = str(tmp_path / f'iter_{after}.pth')
    train(make(seeds[1], resume=True, load_from=start), rest)
    assert rest.batches and rest.losses == whole.losses[after:]
    assert all(map(torch.equal, rest.batches, whole.batches[after:]))


@pytest.mark.parametrize(
    ('place', 'mixup', 'workers'),
    [
        ('within', False, 0),
        # It draws numbers of the generator that transforms draw from.
        ('within', True, 0),
        ('within', True, 2),
        ('unseeded epoch', False, 0),
        ('iterations', False, 0),
        ('iterations', True, 0),
    ],
)
def test_images_that_are_kept(place, mixup, workers, tmp_path, teacher_ckpt, capfd):
    """It says so where those that transforms keep are others, and only there."""
    in_epochs = place != 'iterations'

    def make(work_dir, **kwargs):
        cfg = config(
            work_dir,
            teacher_ckpt,
            workers,
            **(dict(epochs=2) if in_epochs else dict(iters=8)),
            seeded=place == 'within',
            checkpoint=dict(by_epoch=place == 'unseeded epoch', interval=1),
            log_level='WARNING',
            **kwargs,
        )
        cfg.train_dataloader.dataset.pipeline.insert(2, dict(type='Remembering'))
        if not mixup:
            cfg.data_preprocessor.pop('batch_augments')
            cfg.model.architecture.head.loss.use_soft = False
        return cfg

    whole = Recorder()
    train(make(tmp_path / 'whole'), whole)
    _, second = in_parts(tmp_path / 'parts', make, Breaker(after=6))
    told = 'Images that transforms keep' in ''.join(capfd.readouterr())
    exact = whole.losses[8 - len(second) :] == second
    if place != 'unseeded epoch':
        assert told is not exact
        assert exact or (mixup and not workers) or not in_epochs
    elif not workers:
        assert told and not exact


def test_a_clock_that_is_behind(tmp_path, teacher_ckpt, monkeypatch):
    """What a training saved last is the newest, on whatever machine."""

    def make(resume=False):
        return config(tmp_path, teacher_ckpt, epochs=3, resume=resume)

    with pytest.raises(Stop):
        train(make(), Breaker(after=1, at='train_epoch'))
    clock = time.time
    for behind, epoch in ((86400, 2), (2 * 86400, 3)):
        monkeypatch.setattr(time, 'time', lambda behind=behind: clock() - behind)
        with pytest.raises(Stop):
            train(make(resume=True), Breaker(after=epoch, at='train_epoch'))
        assert find_checkpoint(tmp_path).path.endswith(f'epoch_{epoch}.pth')
    times = [
        load_checkpoint_file(tmp_path / f'epoch_{i}.pth')['position']['time']
        for i in (1, 2, 3)
    ]
    assert times[0] < times[1] < times[2] < times[0] + 1
    monkeypatch.undo()
    with pytest.raises(Stop):
        cfg = make(resume=True)
        cfg.load_from = str(tmp_path / 'epoch_1.pth')
        train(cfg, Breaker(after=2, at='train_epoch'))
    assert find_checkpoint(tmp_path).path.endswith('epoch_2.pth')


@pytest.mark.parametrize('iters', [None, 4])
def test_nothing_is_left_to_train(iters, tmp_path, teacher_ckpt, lines):
    """As where the length is a smaller one now, or a job is started once more."""
    make = partial(config, tmp_path, teacher_ckpt, epochs=1, iters=iters)
    train(make())
    assert not [line for line in lines if 'NOTHING IS LEFT' in line]
    again = Recorder()
    train(make(resume=True), again)
    (line,) = [line for line in lines if 'NOTHING IS LEFT' in line]
    place, key = ('epoch 1', 'max_epochs') if iters is None else ('iter 4', 'max_iters')
    assert f'after {place}, and' in line and f'larger `train_cfg.{key}`' in line
    assert again.losses == []


def stopping(work_dir, teacher_ckpt, **kwargs):
    """Six epochs, of which two without a better score make the fourth the last."""
    cfg = config(
        work_dir,
        teacher_ckpt,
        epochs=6,
        validate=True,
        hooks=[dict(type='EarlyStoppingHook', monitor='score', patience=2)],
        **kwargs,
    )
    cfg.custom_hooks[1].rule = 'greater'
    scores = [1.0, 2.0, 1.5, 1.0, 3.0, 4.0]
    cfg.val_evaluator = dict(type='ScriptedScore', counter='epoch', score=scores)
    return cfg


@pytest.fixture(scope='module')
def stopped_losses(tmp_path_factory, teacher_ckpt):
    """Losses of a training that stops early, uninterrupted."""
    whole = Recorder()
    train(stopping(tmp_path_factory.mktemp('whole'), teacher_ckpt), whole)
    assert len(whole.losses) == 16
    return whole.losses


@pytest.mark.parametrize(
    'breaker',
    [Breaker(after=9), Breaker(after=15), Breaker(after=4, at='val')],
    ids=['third epoch', 'last epoch', 'deciding validation'],
)
def test_early_stopping_counts_on(breaker, tmp_path, teacher_ckpt, stopped_losses):
    """Two epochs without a better score end a training, whenever it was resumed."""
    first, second = Recorder(), Recorder()
    with pytest.raises(Stop):
        train(stopping(tmp_path, teacher_ckpt), first, breaker)
    train(stopping(tmp_path, teacher_ckpt, resume=True), second)
    done = breaker.after // 4 * 4 if breaker.at == 'train_iter' else 16
    assert first.losses[:done] + second.losses == stopped_losses


@pytest.mark.parametrize('interval', [1, 3])
def test_what_has_stopped_early_is_not_gone_on_with(interval, tmp_path, teacher_ckpt):
    """Its last epoch is there, whatever the interval, and stays as it is."""
    checkpoint = dict(interval=interval, max_keep_ckpts=1)
    train(stopping(tmp_path, teacher_ckpt, checkpoint=checkpoint))
    before = {path.name: path.read_bytes() for path in tmp_path.glob('*.pth')}
    assert 'epoch_4.pth' in before
    again = Recorder()
    train(stopping(tmp_path, teacher_ckpt, checkpoint=checkpoint, resume=True), again)
    assert again.losses == []
    assert {path.name: path.read_bytes() for path in tmp_path.glob('*.pth')} == before


@pytest.mark.parametrize(
    'kept', ['sizes', 'sizes of earlier versions', 'dropped share']
)
def test_numbers_that_modules_keep(kept, tmp_path):
    """They are in no state dict, and change what the next batches teach."""

    def make(work_dir, **kwargs):
        model = retinanet()
        if kept == 'dropped share':
            drop = dict(type='DropBlock', drop_prob=0.5, block_size=1, warmup_iters=30)
            model['neck'].update(type='FPN_DropBlock', plugin=drop)
        else:
            # YOLOX's, drawn every third iteration here.
            resize = dict(random_size_range=(64, 160), size_divisor=32, interval=3)
            resize.update(type='mmdet.BatchSyncRandomResize')
            model['data_preprocessor']['batch_augments'] = [resize]
        cfg = detection_run(tmp_path, model, epochs=3)
        for key in [key for key in cfg if key.startswith(('val_', 'test_'))]:
            cfg.pop(key)
        checkpoint = dict(type='mmfakd.SafeCheckpointHook', interval=1)
        cfg.default_hooks = dict(checkpoint=checkpoint)
        cfg.custom_hooks = [dict(type='mmfakd.ResumeHook')]
        cfg.update(work_dir=str(work_dir), **kwargs)
        return cfg

    whole, rest = Recorder(), Recorder()
    train(make(tmp_path / 'whole'), whole)
    file = tmp_path / 'whole' / 'epoch_2.pth'
    if 'earlier' in kept:
        state = load_checkpoint_file(file)
        ((name, size),) = state['position'].pop('numbers')[0].items()
        state['position']['sizes'] = {name[: -len('._input_size')]: size}
        torch.save(state, file)
    train(make(tmp_path / 'rest', resume=True, load_from=str(file)), rest)
    assert len(whole.losses) == 6 and rest.losses == whole.losses[4:]


class Counts(Hook):
    """Notes how iterations are counted, factors of losses, and old gradients."""

    priority = 'LOWEST'

    def __init__(self):
        self.seen, self.factors, self.with_gradient = [], set(), []

    def before_train_iter(self, runner, *args, **kwargs):
        self.seen.append((runner.epoch, runner.iter))
        self.factors.add(runner.optim_wrapper.scale_loss(torch.ones(())).item())
        if any(p.grad is not None and p.grad.any() for p in runner.model.parameters()):
            self.with_gradient.append(runner.iter)


def in_other_units(work_dir, make, breaker, batch, accumulate=1):
    """Break off with four batches an epoch, and resume with a batch of this size.

    Returns:
        The counts of the second part.
    """
    counts = Counts()
    with pytest.raises(Stop):
        train(make(work_dir), breaker)
    cfg = make(work_dir, resume=True)
    cfg.train_dataloader.batch_size = batch
    cfg.optim_wrapper.accumulative_counts = accumulate
    train(cfg, counts)
    return counts


@pytest.mark.parametrize(
    ('before', 'batch', 'accumulate', 'expected'),
    [
        (4, 10, 2, [(1, 3), (2, 4), (2, 5)]),
        (4, 10, 1, [(1, 3), (2, 4), (2, 5)]),
        (1, 20, 1, [(1, 1), (2, 2)]),
        (2, 2, 2, [(1, n) for n in range(15, 20)] + [(2, n) for n in range(20, 30)]),
    ],
)
def test_other_batches(
    before, batch, accumulate, expected, tmp_path, teacher_ckpt, capfd
):
    """An epoch goes on after the same share, and gradients keep their weight."""

    def make(work_dir, **kwargs):
        checkpoint = dict(by_epoch=False, interval=1)
        kwargs.update(checkpoint=checkpoint, log_level='WARNING')
        return config(work_dir, teacher_ckpt, 0, before, **kwargs)

    counts = in_other_units(tmp_path, make, Breaker(after=6), batch, accumulate)
    assert counts.seen == expected
    assert counts.factors == {1 / accumulate}
    # Those of the cycle that was broken off, where this one is within one.
    begin = expected[0][1]
    assert (begin in counts.with_gradient) == (before == 4 and begin % accumulate > 0)
    told = ''.join(capfd.readouterr())
    # MMEngine's, of what the checkpoint has no gradients of.
    assert (LOST in told) == (before == 2)
    # One alone, of where the cycle was and is.
    within = 'restored, but are those of 2 of 4 batches of a cycle (now 1 of 2)'
    assert (within in told) == (before == 4 and accumulate == 2)


def test_other_batches_after_a_whole_epoch(tmp_path, teacher_ckpt):
    """Of MMEngine's own hook, which notes no position."""

    def make(work_dir, **kwargs):
        cfg = config(work_dir, teacher_ckpt, **kwargs)
        cfg.default_hooks.checkpoint.type = 'CheckpointHook'
        return cfg

    counts = in_other_units(tmp_path, make, Breaker(after=5), batch=10)
    assert counts.seen == [(1, 2), (1, 3), (2, 4), (2, 5)]


@pytest.mark.parametrize(
    ('breaker', 'epochs'),
    [(Breaker(1, 'val'), [1, 2, 3]), (Breaker(after=5), [2, 3])],
)
def test_validations_with_other_batches(breaker, epochs, tmp_path, teacher_ckpt):
    """A finished one is known, though iterations are counted otherwise."""
    after = Validations()

    def make(work_dir, **kwargs):
        checkpoint = dict(by_epoch=False, interval=1)
        return config(
            work_dir, teacher_ckpt, validate=True, checkpoint=checkpoint, **kwargs
        )

    with pytest.raises(Stop):
        train(make(tmp_path), breaker)
    cfg = make(tmp_path, resume=True)
    cfg.train_dataloader.batch_size = 20
    train(cfg, after)
    assert [epoch for epoch, *_ in after.seen] == epochs


def test_iterations_do_not_go_on_as_epochs(tmp_path, teacher_ckpt):
    cfg = config(tmp_path, teacher_ckpt, iters=10, checkpoint=dict(interval=3))
    with pytest.raises(Stop):
        train(cfg, Breaker(after=3))
    cfg = config(tmp_path, teacher_ckpt, resume=True)
    match = 'of an iteration based loop, stopped after iteration 3, and train_cfg has'
    with pytest.raises(ValueError, match=match):
        train(cfg)


def two_machines(rank, folder, teacher_ckpt, named):
    """Each has a work dir of its own, and the first alone has a checkpoint."""
    os.environ['LOCAL_RANK'] = rank = str(rank)
    hooks = [dict(type='mmfakd.ProvenanceHook')]
    cfg = config(Path(folder, rank), teacher_ckpt, hooks=hooks, resume=True)
    cfg.launcher = 'pytorch'
    cfg.model_wrapper_cfg = dict(
        type='MMDistributedDataParallel', device_ids=None, broadcast_buffers=False
    )
    if named and rank == '1':
        cfg.update(resume=False)
    elif named:
        cfg.load_from = str(Path(folder, '0', 'epoch_1.pth'))
    text = r"resume, checkpoint\): \[\(True, 'epoch_1.pth'\), \(False, None\)\].*shared"
    with pytest.raises(RuntimeError, match=text):
        train(cfg)


@pytest.mark.parametrize('named', ['', 'named'])
def test_machines_without_a_shared_folder(named, tmp_path, teacher_ckpt):
    train(config(tmp_path / '0', teacher_ckpt, epochs=1))
    run_twice(two_machines, str(tmp_path), teacher_ckpt, named)
