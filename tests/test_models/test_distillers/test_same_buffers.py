# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""Buffers are what they were before a pass, and those that cannot be written stay."""

import pytest
import torch
from torch import nn

from mmfakd.models.distillers.same_buffers import same_buffers


def network(**buffers):
    net = nn.Module()
    for name, value in buffers.items():
        net.register_buffer(name, value)
    return net


def test_changed_and_replaced_buffers_are_put_back():
    net = network(mean=torch.zeros(2), seen=torch.tensor(3), grid=torch.ones(2))
    mean, seen, grid = net.mean, net.seen, net.grid
    with same_buffers([net]):
        net.mean.add_(1)
        net.seen += 1
        net.grid = torch.zeros(5)
    assert net.mean is mean and not mean.any()
    assert net.seen is seen and seen == 3
    assert net.grid is grid and grid.sum() == 2


@pytest.mark.parametrize('value', [1.0, float('nan')])
def test_expanded_buffers_stay(value):
    net = network(wide=torch.full((1,), value).expand(3), mean=torch.zeros(2))
    wide = net.wide
    with same_buffers([net]):
        net.wide = torch.zeros(3)
        net.mean.add_(1)
    assert net.wide is wide and not net.mean.any()


def test_kinds_that_compare_to_nothing():
    net = network(sparse=torch.eye(2).to_sparse())
    sparse = net.sparse
    with same_buffers([net]):
        pass
    assert net.sparse is sparse and torch.equal(sparse.to_dense(), torch.eye(2))
