# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""Arguments are brought to a model, and it is examined without a trace."""

from contextlib import nullcontext
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor, nn

from mmfakd.plain.inputs import fitted, left_alone, telling

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


@pytest.mark.parametrize(
    ('model', 'given', 'expected'),
    [
        # The images are as the model is: what is finer is meant so.
        (F32, (F32, F64), (F32, F64)),
        (F16, (F16, F32), (F16, F32)),
        (F32, (F32, F16), (F32, F32)),
        # They are not: all goes along.
        (F32, (F16, F32), (F32, F32)),
        (F16, (F32, F16), (F16, F16)),
        (F32, (F64, F64), (F32, F32)),
    ],
)
@pytest.mark.parametrize('turned', [False, True])
def test_precision_of_arguments(model, given, expected, turned):
    images, times = torch.rand(2, 3, 4, 4, dtype=given[0]), torch.rand(2).to(given[1])
    names = ['images', 'times'][:: -1 if turned else 1]
    arguments = {name: dict(images=images, times=times)[name] for name in names}
    found = fitted(dict(arguments, number=torch.arange(2)), nn.Linear(2, 2).to(model))
    assert (found['images'].dtype, found['times'].dtype) == expected
    assert found['number'].dtype == torch.int64


@dataclass
class Batch:
    images: Tensor
    size: int = 4


def test_data_classes_are_brought_along():
    batch = Batch(torch.rand(2, 3, 4, 4), 5)
    (found,), _ = fitted(((batch,), {}), nn.Linear(2, 2))
    assert found is batch
    (found,), _ = fitted(((batch,), {}), nn.Linear(2, 2).double())
    assert found.images.dtype == F64 and found.size == 5
    assert batch.images.dtype == F32


def test_noise_is_the_same_whatever_device_is_the_default():
    zeros = torch.zeros(2, 3, 4, 4)
    expected = telling(zeros)
    with torch.device('meta'):
        found = telling(zeros)
    assert found.std() > 0.5 and torch.equal(found, expected)
