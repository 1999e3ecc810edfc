# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""Weights are found in checkpoints of all kinds, long lists of keys are cut."""

from collections import OrderedDict

import pytest
import torch

from mmfakd.checkpoints.state_dict import find_state_dict, some


@pytest.mark.parametrize(
    'wrap', [dict, lambda s: {'state_dict': s, 'model': 3}, lambda s: {'model': s}]
)
def test_tensors_are_found(wrap):
    layer = torch.nn.BatchNorm2d(2)
    found = find_state_dict(wrap(layer.state_dict()))
    assert isinstance(found, OrderedDict)
    assert found.keys() == layer.state_dict().keys()
    assert all(torch.equal(found[key], value) for key, value in found.items())


def test_layout_versions_are_kept():
    state_dict = torch.nn.BatchNorm2d(2).state_dict()
    assert find_state_dict(dict(model=state_dict))._metadata == state_dict._metadata
    assert find_state_dict(dict(weight=torch.ones(1)))._metadata == {}


def test_what_is_no_tensor_is_left_out():
    found = find_state_dict(dict(epoch=3, weight=torch.ones(1)))
    assert list(found) == ['weight']


@pytest.mark.parametrize('checkpoint', [{}, dict(epoch=3), dict(state_dict={}, meta=1)])
def test_no_weights(checkpoint):
    keys = ', '.join(checkpoint) or 'none'
    with pytest.raises(ValueError, match=rf'x\.pth holds no weights: .*keys {keys}\.'):
        find_state_dict(checkpoint, 'x.pth')


def test_lists_are_cut():
    assert some([]) == 'none'
    assert some('abcd') == 'a, b, c, d'
    assert some('abcdef') == 'a, b, c, d and 2 more'
    assert some(iter('abc'), 2, '; ', '; ...') == 'a; b; ... and 1 more'
