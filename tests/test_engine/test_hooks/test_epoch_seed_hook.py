# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""A resumed run goes on as the uninterrupted one; epochs differ."""

import random
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.registry import FUNCTIONS

from mmfakd.engine.hooks.epoch_seed_hook import seed_generators
from tests.helpers.tiny_runs import Recorder, distillation, run_config, student, train

WORKERS = [
    dict(num_workers=0),
    dict(num_workers=2, persistent_workers=False),
    dict(num_workers=2, persistent_workers=True),
]


def config(work_dir, model=None, workers=WORKERS[0], shuffle=True, **kwargs):
    cfg = run_config(
        work_dir,
        model or student(),
        hooks=[dict(type='mmfakd.EpochSeedHook')],
        **kwargs,
    )
    cfg.train_dataloader.update(workers)
    cfg.train_dataloader.sampler.shuffle = shuffle
    return cfg


@pytest.mark.parametrize('workers', WORKERS, ids=['0', '2', '2-persistent'])
def test_resumed_run_equals_the_uninterrupted_one(workers, tmp_path, teacher_ckpt):
    """With random crops and flips, and mixup in the main process."""

    def mixup_config(work_dir, **kwargs):
        model = distillation(teacher_ckpt)
        model['architecture']['head']['loss']['use_soft'] = True
        cfg = config(work_dir, model, workers, epochs=3, **kwargs)
        cfg.data_preprocessor.batch_augments = dict(
            augments=dict(type='Mixup', alpha=0.8)
        )
        return cfg

    whole, first, second = Recorder(), Recorder(stop_after=1), Recorder()
    train(mixup_config(tmp_path / 'whole'), whole)
    train(mixup_config(tmp_path / 'parts'), first)
    # Whatever happened to the random state since.
    random.seed(5), np.random.seed(5), torch.manual_seed(5)
    train(mixup_config(tmp_path / 'parts', resume=True), second)

    assert (len(whole.losses), len(first.losses), len(second.losses)) == (6, 2, 4)
    for ours, theirs in zip(first.batches + second.batches, whole.batches):
        assert torch.equal(ours, theirs)
    assert first.losses + second.losses == whole.losses
    assert {'student.loss', 'distill.loss_level0'} < whole.losses[0].keys()


@pytest.mark.parametrize('workers', WORKERS[:2], ids=['0', '2'])
def test_images_that_are_kept_for_later_ones(workers, tmp_path, capfd):
    """A resumed run has none of those before."""

    def remembering(work_dir, **kwargs):
        cfg = config(work_dir, workers=workers, epochs=3, **kwargs)
        cfg.train_dataloader.dataset.pipeline.insert(0, dict(type='Remembering'))
        cfg.custom_hooks.append(dict(type='mmfakd.ResumeHook'))
        return cfg

    whole, first, second = Recorder(), Recorder(stop_after=1), Recorder()
    train(remembering(tmp_path / 'whole'), whole)
    train(remembering(tmp_path / 'parts'), first)
    train(remembering(tmp_path / 'parts', resume=True, log_level='WARNING'), second)
    for ours, theirs in zip(first.batches + second.batches, whole.batches):
        assert torch.equal(ours, theirs)
    assert 'Images that transforms keep' not in ''.join(capfd.readouterr())


@pytest.mark.parametrize('workers', WORKERS, ids=['0', '2', '2-persistent'])
def test_augmentation_differs_between_epochs_and_between_workers(workers, work_dir):
    recorder = Recorder()
    cfg = config(work_dir, workers=workers, shuffle=False, epochs=3)
    # The same image all over: whatever differs is augmentation.
    cfg.train_dataloader.dataset.update(indices=[0] * 20)
    train(cfg, recorder)
    epochs = [torch.cat(recorder.batches[i : i + 2]) for i in (0, 2, 4)]
    for one, other in ((0, 1), (0, 2), (1, 2)):
        assert not torch.equal(epochs[one], epochs[other])
    # The two batches of an epoch are those of two workers.
    assert not torch.equal(*recorder.batches[:2])


def test_same_seed_same_run_other_seed_another(tmp_path):
    recorders = [Recorder() for _ in range(3)]
    for i, (seed, recorder) in enumerate(zip((1, 1, 2), recorders)):
        cfg = config(tmp_path / str(i), shuffle=False, epochs=1)
        cfg.randomness.seed = seed
        train(cfg, recorder)
    one, same, other = recorders
    assert torch.equal(one.batches[0], same.batches[0])
    assert not torch.equal(one.batches[0], other.batches[0])


@FUNCTIONS.register_module(force=True)
def note_worker(worker_id, folder, **kwargs):
    """A user's own function for the start of a worker."""
    (Path(folder) / f'worker{worker_id}').touch()


def test_the_loaders_own_start_of_workers_is_kept(work_dir, tmp_path):
    workers = dict(
        num_workers=2,
        worker_init_fn=dict(type='note_worker', folder=str(tmp_path)),
    )
    train(config(work_dir, workers=workers, epochs=2))
    assert {'worker0', 'worker1'} <= {path.name for path in tmp_path.iterdir()}


def test_iteration_loop_warns(work_dir):
    with pytest.warns(UserWarning, match='needs an EpochBasedTrainLoop, got IterBased'):
        train(config(work_dir, iters=2))


def test_epoch_loop_does_not_warn(work_dir):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter('always')
        train(config(work_dir, epochs=1))
    assert not [w for w in caught if 'EpochSeedHook' in str(w.message)]


def draws(entropy):
    seed_generators(entropy)
    return random.random(), np.random.rand(), torch.rand(1).item()


def test_generators_differ_by_seed_epoch_rank_and_worker():
    """A process has three numbers, a worker four: no two meet."""
    entropies = [
        (seed, epoch, rank, *worker)
        for seed in (0, 1)
        for epoch in range(3)
        for rank in range(3)
        for worker in ((), (1,), (2,))
    ]
    drawn = [draws(entropy) for entropy in entropies]
    for generator in range(3):
        assert len({values[generator] for values in drawn}) == len(entropies)
    assert draws(entropies[7]) == drawn[7]
