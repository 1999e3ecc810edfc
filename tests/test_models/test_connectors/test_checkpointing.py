# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""Connectors that compute twice instead of keeping features: the same training."""

import copy

import pytest
import torch
from mmengine.registry import MODELS

CHANNELS = [4, 8, 16]
SIZES = [8, 4, 1]
BATCH = 3
PLAIN = dict(in_channels=CHANNELS, out_channels=[6, 10, 12], sizes=SIZES)
REVIEWKD = dict(
    PLAIN,
    type='mmfakd.ReviewConnector',
    mid_channels=8,
    fusion=dict(type='mmfakd.AttentionBasedFusion'),
    transform=dict(type='mmfakd.ConvTransform'),
    always_match=True,
)
CONNECTORS = dict(
    review=dict(PLAIN, type='mmfakd.ReviewConnector'),
    reviewkd=REVIEWKD,
    # Their statistics count batches, instead of decaying.
    cumulative=dict(REVIEWKD, norm_cfg=dict(type='BN', momentum=None)),
    # As `sync_bn='torch'` makes of all others.
    synchronised=dict(
        PLAIN, type='mmfakd.ReviewConnector', norm_cfg=dict(type='SyncBN')
    ),
    layerwise=dict(PLAIN, type='mmfakd.LayerwiseConnector'),
)


@pytest.fixture(params=CONNECTORS)
def pair(request):
    """A connector, and one with the same weights that checkpoints."""
    cfg = CONNECTORS[request.param]
    plain = MODELS.build(dict(cfg))
    with_cp = MODELS.build(dict(cfg, with_cp=True))
    with_cp.load_state_dict(plain.state_dict())
    return plain, with_cp


def features():
    random = torch.Generator().manual_seed(1)
    return [
        torch.rand(BATCH, c, n, n, generator=random).requires_grad_()
        for c, n in zip(CHANNELS, SIZES)
    ]


def steps(connector, count=2):
    """Train, and return all that came of it."""
    optimizer = torch.optim.SGD(connector.parameters(), lr=0.1, momentum=0.9)
    for _ in range(count):
        inputs = features()
        predictions = connector(inputs)
        optimizer.zero_grad()
        sum(p.square().sum() for p in predictions).backward()
        optimizer.step()
    gradients = [x.grad for x in inputs] + [p.grad for p in connector.parameters()]
    return [*predictions, *gradients, *connector.state_dict().values()]


def test_outputs_gradients_and_statistics_are_the_same(pair):
    for plain, with_cp in zip(*map(steps, pair)):
        assert torch.equal(plain, with_cp)


def test_statistics_are_updated_once_a_step(pair):
    _, connector = pair
    counts = [
        key for key in connector.state_dict() if key.endswith('num_batches_tracked')
    ]
    assert counts
    steps(connector, count=3)
    assert {connector.state_dict()[key].item() for key in counts} == {3}


def kept_bytes(connector):
    """Memory for the backward pass beside inputs and weights."""
    inputs = features()
    known = {
        x.untyped_storage().data_ptr()
        for x in (*inputs, *connector.parameters(), *connector.buffers())
    }
    kept = {}

    def keep(x):
        storage = x.untyped_storage()
        if storage.data_ptr() not in known:
            # The tensor keeps its address from being given away again.
            kept[storage.data_ptr()] = (storage.nbytes(), x)
        return x

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda x: x):
        predictions = connector(inputs)
        loss = sum(p.square().sum() for p in predictions)
    loss.backward()
    return sum(size for size, _ in kept.values()), predictions


@pytest.mark.parametrize('name', ['review', 'reviewkd'])
def test_only_what_passes_between_levels_is_kept(name):
    """The predictions, which the loss keeps, and the fused feature of each level."""
    cfg = CONNECTORS[name]
    mid = [cfg.get('mid_channels', c) for c in CHANNELS]
    with_cp = MODELS.build(dict(cfg, with_cp=True))
    size, predictions = kept_bytes(with_cp)
    fused = [BATCH * c * n * n for c, n in zip(mid, SIZES)][1:]
    expected = 4 * (sum(p.numel() for p in predictions) + sum(fused))
    if name == 'review':
        # The deepest level has no fusion and as many channels: it is the input.
        expected -= 4 * fused[-1]
    assert size == expected
    assert kept_bytes(MODELS.build(dict(cfg)))[0] > 3 * size


def test_one_level():
    cfg = dict(
        type='mmfakd.FrequencyAttentionConnector',
        in_channels=4,
        out_channels=6,
        mid_channels=8,
        size=8,
    )
    plain = MODELS.build(dict(cfg))
    with_cp = MODELS.build(dict(cfg, with_cp=True))
    with_cp.load_state_dict(plain.state_dict())
    results = []
    for connector in (plain, with_cp):
        x = features()[0]
        connector(x).square().sum().backward()
        results.append([x.grad, *connector.state_dict().values()])
    for a, b in zip(*results):
        assert torch.equal(a, b)


def test_norms_are_as_before_after_an_error(monkeypatch):
    """What fails in the second computation leaves no norm behind as it was there."""
    connector = MODELS.build(dict(CONNECTORS['review'], with_cp=True))
    norm = connector.levels[0].norm
    predictions = connector(features())

    def fail(x):
        raise RuntimeError('out of memory')

    monkeypatch.setattr(connector.levels[0].transform, 'forward', fail)
    with pytest.raises(RuntimeError, match='out of memory'):
        sum(p.sum() for p in predictions).backward()
    assert norm.momentum == 0.1
    assert norm.num_batches_tracked == 1


def test_evaluation_keeps_nothing(pair):
    plain, with_cp = (copy.deepcopy(connector).eval() for connector in pair)
    with torch.no_grad():
        for a, b in zip(plain(features()), with_cp(features())):
            assert torch.equal(a, b)
            assert not b.requires_grad


def test_mixed_precision(pair):
    """The second computation runs under the autocast of the first."""
    with torch.autocast('cpu', dtype=torch.bfloat16):
        results = [steps(connector, count=1) for connector in pair]
    for plain, with_cp in zip(*results):
        assert torch.equal(plain, with_cp)


def test_errors_name_the_level():
    connector = MODELS.build(dict(CONNECTORS['review'], with_cp=True))
    bad = features()
    bad[1] = bad[1][:, :5]
    with pytest.raises(ValueError, match=r'level 1 .*got 5 channels.*expected 8'):
        connector(bad)
