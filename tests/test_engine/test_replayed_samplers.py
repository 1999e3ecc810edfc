# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""Samplers stand where those of an uninterrupted training stood."""

from types import SimpleNamespace
from unittest.mock import Mock

import pytest
from mmengine.runner import EpochBasedTrainLoop, IterBasedTrainLoop

from mmfakd.engine.replayed_samplers import replay_epochs

samplers = pytest.importorskip('mmdet.datasets.samplers')


class Joined:
    datasets = [range(3), range(20)]


class Own(samplers.CustomSampleSizeSampler):
    """One of a user's, of the stock kind."""


def draw(sampler, epochs):
    """The images of each epoch."""
    found = []
    for epoch in epochs:
        sampler.set_epoch(epoch)
        found.append(list(sampler))
    return found


def loop_of(kind, sampler, epoch):
    loader = SimpleNamespace(dataset=Joined(), sampler=sampler)
    return Mock(spec=kind, dataloader=loader, epoch=epoch)


@pytest.mark.parametrize('kind', [samplers.CustomSampleSizeSampler, Own])
def test_epochs_that_are_done(kind):
    whole, rest = kind(Joined(), [-1, 7], seed=1), kind(Joined(), [-1, 7], seed=2)
    expected = draw(whole, range(6))
    rest.seed = 1
    replay_epochs(loop_of(EpochBasedTrainLoop, rest, 4))
    assert draw(rest, [4, 5]) == expected[4:]
    # Those of loops of iterations are drawn anew.
    replay_epochs(loop_of(IterBasedTrainLoop, rest, 4))
    assert draw(rest, range(6)) == expected


def test_what_only_has_the_name():
    class CustomSampleSizeSampler:
        def __init__(self):
            self.seed = 1

    replay_epochs(loop_of(EpochBasedTrainLoop, CustomSampleSizeSampler(), 4))
