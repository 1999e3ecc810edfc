# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""Constants outlive every way of building, moving and loading a module."""

import copy

import pytest
import torch
from torch import nn

from mmfakd.models.layers import FrequencyAttention
from mmfakd.models.losses import MultiLevelLogitsLoss
from mmfakd.ops.derived_buffers import DerivedBuffers


class Constants(DerivedBuffers):
    """Has one constant beside a weight, or alone."""

    def __init__(self, weight=True):
        super().__init__()
        if weight:
            self.weight = nn.Parameter(torch.ones(2))
        self.register_derived()

    def derived(self):
        return dict(constant=torch.tensor([1.0, 2.5]))


def spoiled(module):
    """As `to_empty` may leave it."""
    for tensor in [*module.parameters(), *module.buffers()]:
        tensor.data.fill_(7)
    return module


@pytest.mark.parametrize('weight', [True, False])
@pytest.mark.parametrize('assign', [True, False])
def test_built_without_values(weight, assign):
    state = Constants(weight).state_dict()
    assert [*state] == ['weight'] * weight
    with torch.device('meta'):
        module = Constants(weight)
    assert module.constant.is_meta
    if not assign:
        module.to_empty(device='cpu')
        assert module.constant.tolist() == [1, 2.5]
        spoiled(module)
    nn.ModuleList([module]).load_state_dict(
        {f'0.{key}': value for key, value in state.items()}, assign=assign
    )
    assert module.constant.device.type == 'cpu'
    assert module.constant.tolist() == [1, 2.5]
    assert 'constant' not in module.state_dict()


def test_loading_writes_in_place_and_moving_keeps_device_and_dtype():
    """A captured graph reads where the constant was."""
    module = Constants()
    before = module.constant
    module.load_state_dict(Constants().state_dict())
    assert module.constant is before and not before.requires_grad
    module.half()
    assert module.constant.dtype == torch.float16
    assert copy.deepcopy(module).constant.tolist() == [1, 2.5]
    assert module.to('meta').constant.is_meta
    # Weights that stay behind are not given a constant of elsewhere.
    module.load_state_dict({}, strict=False)
    assert module.constant.is_meta


def test_whatever_mode_and_default_device_there_are():
    with torch.inference_mode():
        module = Constants()
        module.load_state_dict(module.state_dict())
    module.float()
    assert not module.constant.is_inference()
    with torch.device('meta'):
        module.load_state_dict(Constants(False).state_dict(), strict=False)
    assert module.constant.tolist() == [1, 2.5]


@pytest.mark.parametrize('assign', [True, False])
@pytest.mark.parametrize('grid', [dict(size=32), dict(modes=5), dict(size=7)])
def test_filters_built_without_values(grid, assign):
    reference = FrequencyAttention(3, 4, **grid)
    with torch.device('meta'):
        layer = FrequencyAttention(3, 4, **grid)
    if not assign:
        spoiled(layer.to_empty(device='cpu'))
    layer.load_state_dict(reference.state_dict(), assign=assign)
    size = grid.get('size', 12)
    x = torch.randn(2, 3, size, size)
    assert torch.equal(layer(x), reference(x))
    assert torch.equal(copy.deepcopy(layer).double()(x), reference.double()(x))


@pytest.mark.parametrize('assign', [True, False])
def test_temperatures_built_without_values(assign):
    reference = MultiLevelLogitsLoss()
    with torch.device('meta'):
        loss = MultiLevelLogitsLoss()
    if not assign:
        spoiled(loss.to_empty(device='cpu'))
    loss.load_state_dict(reference.state_dict(), assign=assign)
    assert loss.taus.flatten().tolist() == [4, 3, 5, 2, 6]
    logits = torch.randn(4, 5), torch.randn(4, 5)
    assert torch.equal(loss(*logits), reference(*logits))
