# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""The attention of LocalCrossAttention, computed as suits device and compiler."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from .blockwise_window_attention import BlockwiseWindowAttention
from .compiling import is_compiling, is_foreign
from .maps import resize
from .triton_window_attention import TritonWindowAttention, give_up, is_usable
from .window_attention_at_once import WindowAttentionAtOnce, fits_at_once


def window_attention(
    query: Tensor, key_value: Tensor, offset: Tensor, size: int
) -> Tensor:
    """Let queries attend to keys in windows, channel by channel.

    Under a compiler, and on devices other than CPUs and CUDA's, in plain operations;
    else by Triton where that is asked for and runs, or block by block.

    Args:
        query (Tensor): Queries (N, C, H', W'). Of another size they stand for their
            nearest neighbours.
        key_value (Tensor): Keys, then values, (N, 2 C, H, W).
        offset (Tensor): Offsets of the keys, (C, size): one per row of the window in
            the first half of the channels, one per column in the second.
        size (int): Side of the window.

    Returns:
        Tensor: Values, averaged by softmax(query * (key + offset)), (N, C, H, W).
    """
    if is_compiling() or is_foreign(key_value):
        return plain_window_attention(query, key_value, offset, size)
    if is_usable(key_value):
        enlarged = resize(query, key_value.shape[-2:])
        try:
            return TritonWindowAttention.apply(enlarged, key_value, offset, size)
        except Exception as error:
            give_up(error)
    if key_value.device.type != 'cpu' and fits_at_once(key_value):
        return WindowAttentionAtOnce.apply(query, key_value, offset, size)
    return BlockwiseWindowAttention.apply(query, key_value, offset, size)


def plain_window_attention(
    query: Tensor, key_value: Tensor, offset: Tensor, size: int
) -> Tensor:
    """Compute :func:`window_attention` as it is written down.

    Args:
        query (Tensor): Queries (N, C, H', W').
        key_value (Tensor): Keys, then values, (N, 2 C, H, W).
        offset (Tensor): Offsets of the keys, (C, size).
        size (int): Side of the window.

    Returns:
        Tensor: Averaged values (N, C, H, W).
    """
    query = resize(query, key_value.shape[-2:])
    channels, height, width = query.shape[1:]
    half = channels // 2
    padded = F.pad(key_value, (size // 2,) * 4)
    windows, offsets = [], []
    for i in range(size):
        for j in range(size):
            windows.append(padded[..., i : i + height, j : j + width])
            offsets.append(torch.cat([offset[:half, i], offset[half:, j]]))
    keys, values = torch.stack(windows).split(channels, 2)
    keys = keys + torch.stack(offsets)[:, None, :, None, None]
    weights = (query * keys).softmax(0)
    return (weights * values).sum(0)
