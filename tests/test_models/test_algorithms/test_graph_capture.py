# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""A step obeys the rules of CUDA graphs, as far as they can be told without a GPU.

A capture forbids to wait for the device, to copy from memory of the host that is not
pinned, shapes that depend on values, and whatever the host decides by values. On the
device without data nothing of this goes unnoticed: there are no values.
"""

from contextlib import contextmanager

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten

from mmfakd.analysis.benchmark.launches import PATHS, ways_of
from mmfakd.version import parse_version
from tests.helpers.toy import (
    batch,
    feature_distill,
    layer_distiller,
    review_distiller,
    reviewkd_distiller,
)


class CaptureRules(TorchDispatchMode):
    """Refuses what a capture refuses; keeps the names of what ran."""

    def __init__(self):
        super().__init__()
        self.names = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        tags = {torch.Tag.data_dependent_output, torch.Tag.dynamic_output_shape}
        assert not tags & set(func.tags), f'{func} depends on values'
        out = func(*args, **kwargs)
        devices = {
            leaf.device.type
            for leaf in tree_flatten((args, kwargs, out))[0]
            # A scalar goes to a kernel as its argument.
            if isinstance(leaf, torch.Tensor) and leaf.numel() > 1
        }
        assert len(devices) < 2, f'{func} copies between the host and the device'
        self.names.append(str(func))
        return out


@contextmanager
def capturing():
    with CaptureRules() as rules:
        yield rules


ON_DEVICE = torch.empty(3, device='meta')


@pytest.mark.parametrize(
    'run',
    [
        lambda: torch.ones(3).sum().item(),
        lambda: torch.ones(3).nonzero(),
        lambda: bool(torch.ones(())),
        lambda: torch.ones(3)[torch.tensor([True, False, True])],
        lambda: torch.ones(3).to('meta'),
        lambda: ON_DEVICE.copy_(torch.ones(3)),
        lambda: torch.tensor([1.0, 2.0], device='meta').add_(torch.ones(2).to('meta')),
    ],
)
def test_rules_bite(run):
    with pytest.raises(AssertionError), capturing():
        run()


def test_rules_let_pass_what_may_pass():
    with capturing():
        y = ON_DEVICE.new_zeros(2).add_(1).mul(torch.tensor(2.0))
        y.new_full((), 0.5)


def modes(**kwargs):
    """FAM-KD with filters for any size."""
    cfg = review_distiller(**kwargs)
    del cfg['connector']['sizes']
    cfg['connector']['transform'] = dict(type='mmfakd.FrequencyAttention', modes=4)
    return cfg


DISTILLERS = dict(
    fam_kd=review_distiller(warmup=dict(by_epoch=True, begin=0, end=20)),
    weights=review_distiller(loss_weight=[1, 2, 3, 4]),
    modes=modes(),
    reviewkd=reviewkd_distiller(),
    checkpointed=review_distiller(),
    fft_loss=layer_distiller(loss='mmfakd.FFTFeatureLoss'),
)
DISTILLERS['checkpointed']['connector'] = dict(
    DISTILLERS['checkpointed']['connector'], with_cp=True
)


@pytest.mark.parametrize('path', [path for path in PATHS if path != 'CPU'])
@pytest.mark.parametrize('distiller', DISTILLERS.values(), ids=DISTILLERS)
def test_step(distiller, path):
    """From the batch on the device to the gradients, after one step to warm up."""
    old = parse_version(torch.__version__) < (2, 2)
    if old and distiller.get('connector', {}).get('with_cp'):
        pytest.skip('checkpoints of torch 2.1 have no meta device')
    model = feature_distill(
        distiller=distiller,
        report=False,
        teacher_preprocessor=dict(mean=[120.0] * 3, std=[60.0] * 3),
        data_preprocessor=dict(mean=[100.0] * 3, std=[50.0] * 3),
    )
    model.to('meta')
    data = batch()
    data['inputs'] = data['inputs'].to('meta')
    data['data_samples'] = [sample.to('meta') for sample in data['data_samples']]
    data = model.data_preprocessor(data, True)

    def step():
        losses = model(**data, mode='loss')
        model.parse_losses(losses)[0].backward()
        # Kept, as a graph writes its gradients to one place.
        return losses

    with ways_of(path):
        step()
        with capturing() as rules:
            step()
    assert len(rules.names) > 100
    kernels = [name for name in rules.names if name.startswith('mmfakd.')]
    wants = path == 'GPU, Triton' and distiller is not DISTILLERS['reviewkd']
    assert bool(kernels) == wants
