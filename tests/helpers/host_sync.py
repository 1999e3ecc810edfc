# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""Guards against code that waits for the device, by which it is told on a CPU, too."""

from contextlib import contextmanager

import torch
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode


class NoCopyToHost(TorchFunctionMode):
    """Refuses what copies a tensor to the host, even if it is there."""

    def __torch_function__(self, func, types, args=(), kwargs=None):
        name = getattr(func, '__name__', '')
        assert name not in ('cpu', 'numpy', 'tolist', '__array__'), name
        return func(*args, **(kwargs or {}))


class NoDataDependence(TorchDispatchMode):
    """Refuses operations that look at values: `bool`, `item`, `nonzero`, masks, ..."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        tags = {torch.Tag.data_dependent_output, torch.Tag.dynamic_output_shape}
        assert not tags & set(func.tags), func
        return func(*args, **(kwargs or {}))


@contextmanager
def no_synchronisation():
    with NoCopyToHost(), NoDataDependence():
        yield
