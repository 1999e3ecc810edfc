# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""Arguments are brought to a model, and it is examined without a trace."""

from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from mmfakd.plain.inputs import fitted, left_alone, telling
from mmfakd.plain.layer import tensors_in

F16, F32, F64 = torch.float16, torch.float32, torch.float64


class Merging(nn.Linear):
    """Merges its low-rank weights in evaluation mode, as loralib's layers do."""

    def __init__(self):
        super().__init__(3, 3)
        self.low_rank = nn.Parameter(torch.rand(3, 3))
        self.merged = False

    def train(self, mode=True):
        super().train(mode)
        if mode == self.merged:
            self.weight.data += self.low_rank.data * (-1 if mode else 1)
            self.merged = not mode
        return self


class NormEval(nn.Sequential):
    """Holds its norms in evaluation mode, as backbones with `norm_eval` do."""

    def train(self, mode=True):
        super().train(mode)
        for module in self.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.eval()
        return self


def modes_of(model):
    return [module.training for module in model.modules()]


@pytest.mark.parametrize('fails', [False, True])
def test_what_evaluation_did_beside_is_undone(fails):
    trained, still = Merging(), Merging().eval()
    # Of any order: a module within one that is still learns.
    model = nn.Sequential(trained, nn.Sequential(still, Merging()).eval(), still)
    model[1][1].train()
    before, weight = modes_of(model), trained.weight.clone()
    outcome = pytest.raises(ZeroDivisionError) if fails else nullcontext()
    with outcome, left_alone(model):
        assert trained.merged and not any(modes_of(model))
        assert 1 // (not fails)
    assert modes_of(model) == before
    assert [trained.merged, still.merged, model[1][1].merged] == [False, True, False]
    torch.testing.assert_close(trained.weight, weight)


@pytest.mark.parametrize('norm_learns', [False, True])
def test_modes_are_those_of_before_whatever_train_sets(norm_learns):
    model = nn.Sequential(NormEval(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4)), nn.ReLU())
    model.train()
    model[0][1].train(norm_learns)
    before = modes_of(model)
    with left_alone(model):
        assert not any(modes_of(model))
    assert modes_of(model) == before


@pytest.mark.parametrize('model', [F32, F16, F64])
@pytest.mark.parametrize('given', [(F32, F64), (F16, F32), (F64, F64)])
def test_precision_of_arguments(model, given):
    images, times = torch.rand(2, 3, 4, 4).to(given[0]), torch.rand(2).to(given[1])
    arguments = dict(images=images, times=times, number=torch.arange(2))
    found = fitted(arguments, nn.Linear(2, 2).to(model))
    assert (found['images'].dtype, found['times'].dtype) == (model, model)
    assert found['number'].dtype == torch.int64


@dataclass
class Batch:
    images: Tensor
    whole: Any = None

    def __post_init__(self):
        self.images = self.images - 1


def test_data_classes_are_handed_on_as_they_are():
    """Their constructors may do anything, and they may refer to themselves."""
    batch = Batch(torch.rand(2, 3, 4, 4, dtype=F64))
    batch.whole = batch
    number = torch.rand(2, dtype=F64)
    (found, given), _ = fitted(((batch, number), {}), nn.Linear(2, 2))
    assert found is batch and batch.images.dtype == F64 and given.dtype == F32
    assert [path for path, _ in tensors_in(batch)] == [('images',)]


def test_noise_is_the_same_whatever_device_is_the_default():
    zeros = torch.zeros(2, 3, 4, 4)
    expected = telling(zeros)
    with torch.device('meta'):
        found = telling(zeros)
    assert found.std() > 0.5 and torch.equal(found, expected)


class Freezing(nn.Sequential):
    """Freezes its first layer whenever it is to train."""

    def train(self, mode=True):
        super().train(mode)
        self[0].requires_grad_(not mode)
        return self


class Refusing(nn.Linear):
    """Is never to train."""

    def train(self, mode=True):
        if mode:
            raise RuntimeError('frozen')
        return super().train(mode)


def test_models_that_freeze_or_refuse():
    model = Freezing(nn.Linear(2, 2), Refusing(2, 2))
    with left_alone(model):
        assert not model.training
    assert model.training and model[1].training and model[0].weight.requires_grad
