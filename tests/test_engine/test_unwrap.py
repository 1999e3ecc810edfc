# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""The model and the optimizers of a runner, out of what is around them."""

from mmengine.optim import OptimWrapper, OptimWrapperDict
from torch import nn
from torch.optim import SGD

from mmfakd.engine import CpuAmpOptimWrapper
from mmfakd.engine.unwrap import optim_wrappers


def _wrapper(kind=OptimWrapper):
    return kind(optimizer=SGD(nn.Linear(2, 2).parameters(), lr=0.1))


def test_one_optimizer():
    wrapper = _wrapper()
    assert optim_wrappers(wrapper) == [wrapper]


def test_several_optimizers_in_their_order():
    named = dict(student=_wrapper(), connectors=_wrapper())
    assert optim_wrappers(OptimWrapperDict(**named)) == list(named.values())


def test_any_class_of_a_wrapper():
    class Own(OptimWrapper):
        """A user's."""

    for kind in (CpuAmpOptimWrapper, Own):
        wrapper = _wrapper(kind)
        assert optim_wrappers(wrapper) == [wrapper]
