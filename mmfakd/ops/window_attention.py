# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""The attention of LocalCrossAttention, computed as suits device and compiler."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from .blockwise_window_attention import BlockwiseWindowAttention
from .chooser import CHOOSER
from .compiling import is_compiling, is_foreign
from .maps import resize
from .operation import Operation
from .triton_window_attention import TritonWindowAttention, is_usable
from .way import Way
from .window_attention_at_once import WindowAttentionAtOnce, fits_at_once

# Pixels of a block, for each thread, that are tried on CPUs beside the usual ones.
_BLOCKS = (2**14, 3 * 2**14, 3 * 2**15)


def window_attention(
    query: Tensor, key_value: Tensor, row_offset: Tensor, column_offset: Tensor
) -> Tensor:
    """Let queries attend to keys in windows, channel by channel.

    On CPUs block by block, so that what is worked on stays in a cache; on GPUs in few
    operations; on either in a faster way if one has been found by measurement, which
    on GPUs may be Triton's. Under a compiler, and on other devices, plainly.

    Args:
        query (Tensor): Queries (N, C, H', W'). Of another size they stand for their
            nearest neighbours.
        key_value (Tensor): Keys, then values, (N, 2 C, H, W).
        row_offset (Tensor): Offsets of the keys in the first half of the channels, one
            per row of the window, (C / 2, size).
        column_offset (Tensor): Those in the second half, one per column.

    Returns:
        Tensor: Values, averaged by softmax(query * (key + offset)), (N, C, H, W).
    """
    inputs = query, key_value, row_offset, column_offset
    if is_compiling() or is_foreign(key_value):
        return plain_window_attention(*inputs)
    return CHOOSER.run(WINDOW_ATTENTION, *inputs)


def plain_window_attention(
    query: Tensor, key_value: Tensor, row_offset: Tensor, column_offset: Tensor
) -> Tensor:
    """Compute :func:`window_attention` as it is written down.

    Args:
        query (Tensor): Queries (N, C, H', W').
        key_value (Tensor): Keys, then values, (N, 2 C, H, W).
        row_offset (Tensor): Offsets of the keys by row, (C / 2, size).
        column_offset (Tensor): Those by column, (C / 2, size).

    Returns:
        Tensor: Averaged values (N, C, H, W).
    """
    query = resize(query, key_value.shape[-2:])
    channels, height, width = query.shape[1:]
    size = row_offset.shape[1]
    padded = F.pad(key_value, (size // 2,) * 4)
    windows, offsets = [], []
    for i in range(size):
        for j in range(size):
            windows.append(padded[..., i : i + height, j : j + width])
            offsets.append(torch.cat([row_offset[:, i], column_offset[:, j]]))
    keys, values = torch.stack(windows).split(channels, 2)
    keys = keys + torch.stack(offsets)[:, None, :, None, None]
    weights = (query * keys).softmax(0)
    return (weights * values).sum(0)


def _on_cpu(query: Tensor, *others: object) -> bool:
    return query.device.type == 'cpu'


def few_operations(
    query: Tensor, key_value: Tensor, *offsets: Tensor, kernels: bool = False
) -> str:
    """Name the way of few operations that is usually the fastest on a GPU.

    Args:
        query (Tensor): Queries.
        key_value (Tensor): Keys and values.
        *offsets (Tensor): Offsets.
        kernels (bool): Whether Triton's kernels are among them. Defaults to False.

    Returns:
        str: The way.
    """
    if kernels:
        return 'triton'
    return 'at once' if fits_at_once(key_value) else 'blocks'


def _reference(query: Tensor, *others: Tensor) -> str:
    """The way that is usually the fastest of those that are sure to run."""
    return 'blocks' if _on_cpu(query) else few_operations(query, *others)


def _ways() -> Iterator[tuple[str, Way]]:
    yield 'blocks', Way(BlockwiseWindowAttention.apply)
    for pixels in _BLOCKS:
        run = partial(_by_blocks, pixels)
        yield f'blocks of {pixels}', Way(run, _on_cpu)
    yield 'at once', Way(WindowAttentionAtOnce.apply, lambda *z: fits_at_once(z[1]))
    yield 'triton', Way(TritonWindowAttention.apply, lambda *z: is_usable(z[1]))


def _by_blocks(pixels: int, *inputs: object) -> Tensor:
    return BlockwiseWindowAttention.apply(*inputs, pixels)


WINDOW_ATTENTION = Operation('window attention', dict(_ways()), _reference)
