# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""Loaders that were built take another seed."""

from itertools import islice
from types import SimpleNamespace
from unittest.mock import Mock

import pytest
from mmengine.runner import BaseLoop, Runner

from mmfakd.engine.data_seed import take_data_seed


class Images:
    """Forty pictures, every third one upright."""

    # As of joined data sets.
    cumulative_sizes = [30, 40]
    datasets = [range(30), range(10)]

    def __len__(self):
        return 40

    def __getitem__(self, index):
        return index

    def get_data_info(self, index):
        return dict(width=1, height=2 if index % 3 else 0)


def build(seed, **loader):
    cfg = dict(dict(dataset=Images(), batch_size=4, num_workers=0), **loader)
    return Runner.build_dataloader(cfg, seed=seed)


def first(loader):
    return list(islice(loader.batch_sampler, 8))


def take(loaders, then, now, cfg=()):
    randomness = dict(seed=None)
    runner = SimpleNamespace(seed=then, _randomness_cfg=randomness, cfg=dict(cfg))
    runner._train_loop = Mock(spec=BaseLoop)
    runner.train_dataloader = loaders
    take_data_seed(runner, now)


@pytest.mark.parametrize(
    'loader',
    [
        dict(sampler=dict(type='DefaultSampler')),
        dict(sampler=dict(type='InfiniteSampler')),
        dict(
            sampler=dict(
                type='mmdet.MultiSourceSampler', batch_size=4, source_ratio=[1, 1]
            )
        ),
        dict(
            sampler=dict(type='DefaultSampler'),
            batch_sampler=dict(type='mmdet.AspectRatioBatchSampler'),
        ),
    ],
    ids=['by epoch', 'endless', 'of two sources', 'by shape'],
)
def test_the_order_is_that_of_a_loader_that_has_the_seed(loader):
    pytest.importorskip('mmdet.datasets')
    expected, present, drawn = (build(seed, **loader) for seed in (7, 7, 8))
    assert first(build(8, **loader)) != first(expected)
    # Endless ones are consumed.
    expected = build(7, **loader)
    take([present, drawn], 8, 7)
    order = first(expected)
    assert first(present) == order and first(drawn) == order
    assert drawn.worker_init_fn.keywords == expected.worker_init_fn.keywords


def test_what_stays():
    """A seed that a sampler has of its own; all, where the checkpoint has none."""
    own = build(8, sampler=dict(type='DefaultSampler', seed=1))
    drawn = build(8, sampler=dict(type='DefaultSampler'), worker_init_fn=dict(type=len))
    take(dict(a=own), 8, 7)
    assert own.sampler.seed == 1
    cfg = dict(dataset=dict(type='Digits'), sampler=dict(type='A', seed=1))
    take(own, 1, 7, dict(train_dataloader=cfg))
    assert own.sampler.seed == 1
    take(drawn, 8, None)
    assert drawn.sampler.seed == 8
    take(drawn, 8, 7)
    assert drawn.sampler.seed == 7 and drawn.worker_init_fn.func is len


class Shown:
    """A sampler of batches that shows the seed of what it batches."""

    def __init__(self, sampler):
        self.sampler = sampler

    @property
    def seed(self):
        return self.sampler.seed


def test_seeds_that_cannot_be_set():
    inner = build(8, sampler=dict(type='DefaultSampler')).sampler
    loader = SimpleNamespace(dataset=[0], batch_sampler=Shown(inner))
    take(loader, 8, 7)
    assert inner.seed == 7


def test_loaders_that_are_not_built_are_left_alone():
    """As of a validation with the config of a resumed training."""
    take_data_seed(SimpleNamespace(_train_loop=dict(type='EpochBasedTrainLoop')), 7)
