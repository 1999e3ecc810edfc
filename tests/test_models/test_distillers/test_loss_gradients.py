# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""Gradients of single losses: right, and nothing of the training changes."""

import copy
import math

import pytest
import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils.checkpoint import checkpoint

from mmfakd.models.distillers.loss_gradients import (
    GradientsNotMeasured,
    _all_finite,
    loss_gradients,
)
from tests.helpers.half_precision import needs_cpu_float16
from tests.helpers.two_processes import run_twice


class Net(nn.Module):
    """Two stages, a norm and dropout; the second may lie in a checkpoint."""

    def __init__(self, reentrant=None, kept=True):
        super().__init__()
        self.first = nn.Linear(4, 5)
        self.second = nn.Sequential(
            nn.Linear(5, 6), nn.BatchNorm1d(6), nn.Dropout(0.5), nn.ReLU()
        )
        self.head = nn.Linear(6, 3)
        self.reentrant, self.kept = reentrant, kept

    def forward(self, x):
        low = self.first(x)
        if self.reentrant is None:
            high = self.second(low)
        else:
            high = checkpoint(
                self.second,
                low,
                use_reentrant=self.reentrant,
                preserve_rng_state=self.kept,
            )
        out = self.head(high)
        return dict(
            own=out.square().mean(),
            low=low.square().mean() * 3,
            high=high.square().mean(),
        )


def net(**kwargs):
    torch.manual_seed(0)
    return Net(**kwargs), torch.randn(8, 4)


def naive(model, x, name):
    """Gradient of one loss by a backward pass of its own."""
    model = copy.deepcopy(model)
    torch.manual_seed(1)
    model(x)[name].backward()
    return {n: p.grad for n, p in model.named_parameters() if p.grad is not None}


def norm(gradients):
    return torch.cat([g.flatten() for g in gradients]).norm()


def measure(model, x, **kwargs):
    torch.manual_seed(1)
    losses = model(x)
    own = losses.pop('own')
    kwargs.setdefault('modules', [model])
    return loss_gradients(own, losses, list(model.parameters()), **kwargs), own, losses


@pytest.mark.parametrize('reentrant', [None, True, False])
def test_norms_are_those_of_backward_passes_alone(reentrant):
    model, x = net(reentrant=reentrant)
    found, _, _ = measure(model, x)
    own = naive(model, x, 'own')
    sums = {}
    for name in ('low', 'high'):
        gradients = naive(model, x, name)
        assert found[name].reached == sum(g.numel() for g in gradients.values())
        torch.testing.assert_close(found[name].norm, norm(gradients.values()))
        shared = norm(own[n] for n in gradients)
        torch.testing.assert_close(found[name].own_norm, shared)
        assert found[name].ratio == pytest.approx(
            float(norm(gradients.values()) / shared)
        )
        for key, value in gradients.items():
            sums[key] = sums.get(key, 0) + value
    torch.testing.assert_close(found['total'].norm, norm(sums.values()))
    # The first linear layer alone, and that with the second and its norm.
    assert found['low'].reached == 25
    assert found['total'].reached == found['high'].reached == 25 + 36 + 12


@pytest.mark.parametrize('reentrant', [None, True, False])
@pytest.mark.parametrize('kept', [True, False])
def test_the_training_goes_on_as_if_nothing_were(reentrant, kept):
    """Two accumulated steps: gradients, statistics and random state bit for bit."""
    after = []
    for look in (False, True):
        model, x = net(reentrant=reentrant, kept=kept)
        torch.manual_seed(2)
        for step in range(2):
            losses = model(x)
            if look and step == 1:
                before = [p.grad for p in model.parameters()]
                values = [g.clone() for g in before]
                own = losses['own']
                others = {k: losses[k] for k in ('low', 'high')}
                loss_gradients(own, others, list(model.parameters()), [model])
                for p, grad, value in zip(model.parameters(), before, values):
                    assert p.grad is grad and torch.equal(grad, value)
            sum(losses.values()).backward()
        gradients = [p.grad for p in model.parameters()]
        after.append([*gradients, *model.state_dict().values(), torch.get_rng_state()])
    for ours, theirs in zip(*after):
        assert torch.equal(ours, theirs)


def test_losses_that_reach_nothing_or_weigh_nothing():
    model, x = net()
    losses = model(x)
    own = losses.pop('own')
    for p in model.first.parameters():
        p.requires_grad_(False)
    others = dict(
        detached=losses['high'].detach(), nought=0 * losses['high'], low=losses['low']
    )
    found = loss_gradients(own, others, [*model.second.parameters()])
    assert [found[n].reached for n in others] == [0, 48, 0]
    assert [float(found[n].norm) for n in others] == [0, 0, 0]
    assert float(found['low'].own_norm) == 0
    assert found['total'].reached == 48


def test_without_an_own_loss_there_is_nothing_to_compare_with():
    model, x = net()
    losses = model(x)
    found = loss_gradients(None, dict(high=losses['high']), [*model.parameters()])
    assert found['high'].norm > 0
    assert found['high'].own_norm.isnan()


@needs_cpu_float16
def test_float16_neither_underflows_nor_overflows():
    """On the CPU, whose kernels have half precision."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 5), nn.Linear(5, 3))
    x = torch.randn(8, 4)
    exact = {}
    with torch.no_grad():
        reference = copy.deepcopy(model)
    for name, factor in dict(small=1e-9, large=1e4).items():
        reference.zero_grad()
        (factor * reference(x).square().mean()).backward()
        exact[name] = float(norm(p.grad for p in reference.parameters()))
    with torch.autocast('cpu', dtype=torch.float16):
        mean = model(x).float().square().mean()
        losses = dict(small=1e-9 * mean, large=1e4 * mean)
        found = loss_gradients(mean, losses, list(model.parameters()))
        assert torch.is_autocast_enabled('cpu')
    for name, value in exact.items():
        assert float(found[name].norm) == pytest.approx(value, rel=0.02)


def test_bfloat16_weights_in_any_dtype():
    for dtype in (torch.bfloat16, torch.float64):
        model, x = net()
        model.to(dtype)
        found, _, _ = measure(model, x.to(dtype))
        reference = norm(g.double() for g in naive(model, x.to(dtype), 'high').values())
        assert found['high'].norm.dtype == torch.float32
        assert float(found['high'].norm) == pytest.approx(float(reference), rel=1e-2)


def test_no_graph_stays_alive():
    model, x = net()
    found, *_ = measure(model, x)
    assert not any(
        tensor.requires_grad
        for one in found.values()
        for tensor in (one.norm, one.own_norm)
    )
    copy.deepcopy(found)


def test_reentrant_checkpoint_of_a_stranger_is_not_measured():
    model, x = net(reentrant=True)
    with pytest.raises(GradientsNotMeasured, match='with_cp=True.*disturb'):
        measure(model, x, modules=())


@pytest.fixture
def process_group(tmp_path):
    dist.init_process_group(
        'gloo', store=dist.FileStore(str(tmp_path / 'store'), 1), rank=0, world_size=1
    )
    yield
    dist.destroy_process_group()


class Looking(nn.Module):
    """Losses of a net, with a look at them within the wrapped forward pass."""

    def __init__(self, inner, look):
        super().__init__()
        self.inner, self.look, self.why = inner, look, ''

    def forward(self, x):
        losses = self.inner(x)
        if self.look:
            others = {k: losses[k] for k in ('low', 'high')}
            try:
                loss_gradients(
                    losses['own'], others, list(self.inner.parameters()), [self.inner]
                )
            except GradientsNotMeasured as error:
                self.why = str(error)
        return sum(losses.values())


@pytest.mark.parametrize('reentrant', [None, True, False])
@pytest.mark.parametrize(
    'options',
    [{}, dict(static_graph=True), dict(gradient_as_bucket_view=True)],
    ids=lambda o: next(iter(o), 'plain'),
)
def test_the_reducer_of_ddp_is_left_alone(process_group, reentrant, options):
    after = []
    for look in (False, True):
        model, x = net(reentrant=reentrant)
        wrapped = DistributedDataParallel(Looking(model, look), **options)
        torch.manual_seed(1)
        for step in range(3):
            wrapped.module.look = look and step < 2
            wrapped(x).backward()
        after.append([p.grad for p in model.parameters()])
    unsure = reentrant is True and 'static_graph' in options
    assert ('static_graph=True' in wrapped.module.why) == unsure
    for ours, theirs in zip(*after):
        assert torch.equal(ours, theirs)


def overflows(rank):
    """Where one process overflows all take the next scale, as all norms are shared."""
    device = torch.device('cpu')
    for there, here in ((1.0, 1.0), (math.inf, 1.0), (1.0, math.inf)):
        mine = [None, torch.tensor([1.0, here if rank else there])]
        finite = _all_finite(mine, device)
        assert finite == (math.isfinite(there) and math.isfinite(here))


def test_two_processes_agree_on_an_overflow():
    run_twice(overflows)
