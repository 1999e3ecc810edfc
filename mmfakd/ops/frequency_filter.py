# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""The function of FrequencyAttention, computed as suits device and compiler."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor

from .block_plan import BlockPlan
from .chooser import CHOOSER
from .compiling import is_compiling, is_foreign
from .filter_inputs import FilterInputs
from .filter_storage import fit_filter
from .filter_tables import input_tables
from .operation import Operation
from .pixel_filter import PixelFilter
from .spectral_filter import merge_pays, spectral_filter
from .spectral_filter_at_once import SpectralFilterAtOnce
from .spectral_transform import WAYS, usual_way
from .triton_filter import is_usable
from .way import Way

# Pixels up to which a matrix for all of them is worth a try.
_MATRIX = 1024
# Numbers of a feature up to which it is worked on as a whole.
_WHOLE = 2**26
# Numbers of a block that are tried on CPUs beside the usual ones.
_BLOCKS = (2**16, 2**18, 2**19)


def frequency_filter(inputs: FilterInputs) -> Tensor:
    """Filter in the Fourier domain and add a 1x1 convolution.

    On CPUs block by block, so that what is worked on stays in a cache; on GPUs in few
    operations; on either in a faster way if one has been found by measurement. Under a
    compiler, and on devices other than these, in plain operations.

    Args:
        inputs (FilterInputs): Feature and filter.

    Returns:
        Tensor: Feature (N, Co, H, W) of the dtype of the input.
    """
    if is_compiling() or is_foreign(inputs.x):
        return _by_blocks(BlockPlan(), inputs)
    return CHOOSER.run(FREQUENCY_FILTER, *inputs)


def _by_blocks(plan: BlockPlan, z: FilterInputs) -> Tensor:
    """Compute some samples at a time, and scale what is small."""
    weight, bias = z.weight, z.bias
    if weight is not None:
        # The gates scale the small tensors of weights, not the large ones of
        # features; the function and its gradients are the same.
        assert bias is not None and z.gate_local is not None
        weight, bias = weight * z.gate_local, bias * z.gate_local
    filter_, scale, grid = fit_filter(z.filter, z.form.copies, z.form.size, z.size)
    return spectral_filter(z.x, filter_, scale, z.gate, weight, bias, grid, plan)


def _is_unusual(plan: BlockPlan, z: FilterInputs) -> bool:
    """Whether a plan differs from what blocks are computed by anyway."""
    if z.x.device.type != 'cpu':
        return False
    if plan.merge is not None:
        return z.joins and plan.merge != merge_pays(z.filter, z.x)
    if plan.transforms is not None:
        usual = usual_way(z.size, z.grid, z.x.device)
        return plan.transforms != usual and _suits(plan.transforms, z)
    return True


class _Plan(NamedTuple):
    """How few operations compute a filter."""

    merge: bool
    transforms: str
    real: bool = False
    kernels: bool = False

    def __str__(self) -> str:
        parts = ['at once', 'merged' if self.merge else 'apart', self.transforms]
        parts += ['real products'] * self.real + ['triton'] * self.kernels
        return ', '.join(parts)


def _at_once(plan: _Plan, z: FilterInputs) -> Tensor:
    """Compute all samples in few operations."""
    tables = input_tables(z.form.size, z.form.high_pass, z.x, z.filter.dtype)
    return SpectralFilterAtOnce.apply(*z[:-1], tables, *plan)


def _fits(plan: _Plan, z: FilterInputs) -> bool:
    """Whether few operations are worth a try."""
    if z.x.numel() > _WHOLE or (plan.merge and not z.joins):
        return False
    if plan.kernels and not is_usable(z.filter):
        return False
    # On a CPU products of complex matrices are as fast.
    on_cpu = z.x.device.type == 'cpu'
    return _suits(plan.transforms, z) and not (plan.real and on_cpu)


def _suits(transforms: str, z: FilterInputs) -> bool:
    return transforms != 'matrix' or z.x.shape[-2:].numel() <= _MATRIX


def _is_pixel(z: FilterInputs) -> bool:
    return z.joins and z.size == z.form.size == (1, 1)


def few_operations(*inputs: object, kernels: bool = False) -> str:
    """Name the way of few operations that is usually the fastest on a GPU.

    Args:
        *inputs (object): Those of :class:`FilterInputs`.
        kernels (bool): Whether Triton's kernels are among them. Defaults to False.

    Returns:
        str: The way.
    """
    z = FilterInputs(*inputs)  # type: ignore[arg-type]
    if _is_pixel(z):
        return 'one pixel'
    merge = z.joins and merge_pays(z.filter, z.x)
    transforms = usual_way(z.size, z.grid, torch.device('meta'))
    return str(_Plan(merge, transforms, kernels=kernels))


def _reference(x: Tensor, *others: object) -> str:
    """The way that is usually the fastest of those that are sure to run."""
    if x.device.type == 'cpu' or x.numel() > _WHOLE:
        return 'blocks'
    return few_operations(x, *others)


def _way(run: Callable, usable: Callable = lambda *_: True) -> Way:
    """A way whose functions take the inputs as one."""
    return Way(
        lambda *inputs: run(FilterInputs(*inputs)),
        lambda *inputs: usable(FilterInputs(*inputs)),
    )


def _ways() -> Iterator[tuple[str, Way]]:
    yield 'blocks', _way(partial(_by_blocks, BlockPlan()))
    plans = {f'blocks of {n}': BlockPlan(numbers=n) for n in _BLOCKS}
    plans['blocks, merged'] = BlockPlan(merge=True)
    plans['blocks, apart'] = BlockPlan(merge=False)
    plans.update({f'blocks, {way}': BlockPlan(transforms=way) for way in WAYS})
    for name, plan in plans.items():
        yield name, _way(partial(_by_blocks, plan), partial(_is_unusual, plan))
    yield 'one pixel', _way(lambda z: PixelFilter.apply(*z[:-1]), _is_pixel)
    flags = (True, False)
    for how in itertools.product(flags, WAYS, flags, flags):
        at_once = _Plan(*how)
        yield str(at_once), _way(partial(_at_once, at_once), partial(_fits, at_once))


FREQUENCY_FILTER = Operation('frequency filter', dict(_ways()), _reference)
