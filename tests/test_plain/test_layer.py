# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""Copies of what layers return."""

from collections import OrderedDict, namedtuple
from dataclasses import dataclass, field

import pytest
import torch
from torch import Tensor

from mmfakd.plain.layer import Layer, copied, describe, tensors_in

Pair = namedtuple('Pair', 'feature logits')


@dataclass(frozen=True)
class Frozen:
    """A data class with a field that follows from the others."""

    feature: Tensor
    logits: Tensor
    size: int = field(init=False, default=0)


@dataclass
class Keyed(OrderedDict):
    """Parts by name, key and number, as Hugging Face's models return them."""

    feature: Tensor
    logits: Tensor

    def __post_init__(self):
        self.update(feature=self.feature, logits=self.logits)

    def __getitem__(self, key):
        return super().__getitem__(key if isinstance(key, str) else [*self][key])


@pytest.mark.parametrize('kind', [Pair, Frozen, Keyed])
def test_copies_keep_the_names_of_their_parts(kind):
    feature, logits = torch.rand(2, 3), torch.rand(2, 4, requires_grad=True)
    found = copied(kind(feature, logits))
    assert type(found) is kind
    assert torch.equal(found.logits, logits) and found.logits is not logits
    assert torch.equal(found.feature, feature) and found.feature is not feature
    assert found.logits.requires_grad
    if kind is Keyed:
        assert found['logits'] is found[1] is found.logits


def test_copies_of_plain_collections():
    x = torch.rand(2, 3)
    tree, empty = [dict(a=(x,)), 'b', None], Pair
    found = copied(tree)
    assert found[1:] == ('b', None) and torch.equal(found[0]['a'][0], x)
    assert found[0]['a'][0] is not x
    assert copied(empty) is empty and copied(Frozen) is Frozen


@pytest.mark.parametrize('kind', [Frozen, Keyed])
def test_parts_of_data_classes(kind):
    output = kind(torch.rand(2, 3), torch.rand(2, 4))
    assert [path for path, _ in tensors_in([output])] == [
        (0, 'feature'),
        (0, 'logits'),
    ]
    assert Layer('', index=(0, 'logits')).part([output]) is output.logits
    assert describe(output) == (
        f"a {kind.__name__} with ['feature'] (2, 3), ['logits'] (2, 4)"
    )
    for key in ('scores', 'keys', 2):
        with pytest.raises(ValueError, match=f'finds no part {key!r} in a .*logits'):
            Layer('', index=(key,)).part(output)


def test_data_classes_that_are_not_filled():
    empty = Frozen.__new__(Frozen)
    assert not list(tensors_in(empty)) and not list(tensors_in(Frozen))
