# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""Deterministic mode: every shipped method, and what it replaces."""

import os

import pytest
import torch
import torch.nn.functional as F
from mmengine.config import Config
from mmengine.registry import MODELS, init_default_scope
from torch.utils._python_dispatch import TorchDispatchMode

from mmfakd.ops.determinism import average_pool, resize_bilinear
from tests.helpers.toy import (
    batch,
    feature_distill,
    layer_distiller,
    losses_of,
    review_distiller,
    reviewkd_distiller,
)

# What the documentation of `torch.use_deterministic_algorithms` lists as an error on
# GPUs, as far as it can be met here, by the names that the dispatcher has.
REFUSED = {
    '_adaptive_avg_pool2d_backward',
    'adaptive_max_pool2d_backward',
    'bincount',
    'cumsum',
    'grid_sampler_2d_backward',
    'histc',
    'kthvalue',
    'median',
    'nll_loss2d_forward',
    'put_',
    'reflection_pad1d_backward',
    'reflection_pad2d_backward',
    'replication_pad1d_backward',
    'replication_pad2d_backward',
    'upsample_bicubic2d_backward',
    'upsample_bilinear2d_backward',
    'upsample_linear1d_backward',
    '_upsample_bilinear2d_aa_backward',
}


class Names(TorchDispatchMode):
    """Names of all operations that run."""

    def __init__(self):
        super().__init__()
        self.seen = set()

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        self.seen.add(function.overloadpacket.__name__)
        return function(*args, **(kwargs or {}))


@pytest.fixture
def deterministic(monkeypatch):
    """Deterministic mode within a block; memory is filled with NaN then."""

    def switch(on):
        torch.use_deterministic_algorithms(on)

    monkeypatch.delenv('CUBLAS_WORKSPACE_CONFIG', raising=False)
    yield switch
    switch(False)


def run(compute, switch, on, *shapes):
    switch(on)
    torch.manual_seed(0)
    inputs = [torch.randn(shape, requires_grad=True) for shape in shapes]
    with Names() as names:
        out = compute(*inputs)
        (out * torch.linspace(-1, 1, out.numel()).view(out.shape)).sum().backward()
    return [out, *(x.grad for x in inputs)], names.seen & REFUSED


@pytest.mark.parametrize('size', [(3, 4), (7, 5), (8, 16), (13, 9), (1, 1), (29, 2)])
def test_bilinear_resizing(size, deterministic):
    def compute(x):
        return resize_bilinear(x, size)

    expected, refused = run(compute, deterministic, False, (2, 3, 7, 9))
    found, none = run(compute, deterministic, True, (2, 3, 7, 9))
    reference = F.interpolate(torch.ones(1, 1, 7, 9), size=size, mode='bilinear')
    assert found[0].shape[-2:] == reference.shape[-2:]
    assert refused and not none
    for a, b in zip(found, expected):
        assert (a - b).abs().max() <= 1e-6 * b.abs().max()


@pytest.mark.parametrize('shape', [(8, 8), (5, 7), (13, 6), (9, 30)])
@pytest.mark.parametrize('size', [4, 2, 1])
def test_pooling(shape, size, deterministic):
    def compute(x):
        return average_pool(x, size)

    expected, _ = run(compute, deterministic, False, (2, 3, *shape))
    found, none = run(compute, deterministic, True, (2, 3, *shape))
    assert not none
    for a, b in zip(found, expected):
        assert (a - b).abs().max() <= 1e-6 * b.abs().max()


def _step(model, data):
    losses = losses_of(model, data)
    model.parse_losses(losses)[0].backward()
    return losses


@pytest.mark.parametrize(
    'distiller',
    [
        review_distiller(),
        reviewkd_distiller(),
        layer_distiller(),
        layer_distiller(loss='mmfakd.FFTFeatureLoss'),
        layer_distiller(loss='mmrazor.ATLoss'),
    ],
)
def test_layers_and_losses(distiller, deterministic):
    """Forward and backward: nothing is refused, and the numbers stay."""
    data, found = batch(size=8), []
    for on in (False, True):
        deterministic(on)
        torch.manual_seed(0)
        model = feature_distill(distiller=distiller)
        with Names() as names:
            losses = _step(model, data)
        found.append((losses, [p.grad for p in model.parameters()]))
    assert names.seen and not names.seen & REFUSED
    (expected, gradients), (losses, others) = found
    for name in losses:
        torch.testing.assert_close(losses[name], expected[name], rtol=1e-5, atol=1e-6)
    for a, b in zip(others, gradients):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-4)
    # cuBLAS is refused without.
    assert os.environ['CUBLAS_WORKSPACE_CONFIG'] == ':4096:8'


METHODS = (
    'at',
    'crd',
    'dkd',
    'fakd_layer',
    'fakd_review',
    'fitnet',
    'kd',
    'ofd',
    'rkd',
)


@pytest.mark.parametrize('method', [*METHODS, 'reviewkd'])
def test_shipped_methods(method, deterministic):
    cfg = Config.fromfile(f'configs/fakd/cifar100/{method}_r56_r20_1xb64_cifar100.py')
    init_default_scope('mmpretrain')
    deterministic(True)
    torch.manual_seed(0)
    model = dict(cfg.model, data_preprocessor=cfg.data_preprocessor)
    model['teacher_ckpt'] = None
    model = MODELS.build(model)
    data = batch(count=4, size=32, num_classes=100)
    if method == 'crd':
        negatives = cfg.train_dataloader.dataset.get('num_negatives', 16384)
        for i, sample in enumerate(data['data_samples']):
            sample.set_field(torch.tensor(i), 'sample_idx', dtype=None)
            drawn = torch.arange(negatives + 1, dtype=torch.int32)
            sample.set_field(drawn, 'contrast_sample_idxs', dtype=None)
    with Names() as names:
        losses = _step(model, data)
    assert names.seen and not names.seen & REFUSED
    assert all(torch.as_tensor(loss).isfinite().all() for loss in losses.values())
