# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""The loss inside of another one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import nn

from mmfakd.registry import MODELS


def build_loss(owner: str, cfg: Any) -> nn.Module:
    """Build the one loss that another is put around.

    Args:
        owner (str): What has it as ``loss``, for the message.
        cfg (dict): Its config.

    Returns:
        nn.Module: The loss.

    Raises:
        ValueError: For several, of which a registry makes modules in a row.
    """
    if isinstance(cfg, Sequence):
        raise ValueError(
            f'{owner} got loss={cfg!r}, expected the config of one loss, such as '
            "dict(type='mmrazor.KLDivergence'). Put it around each of several, as "
            'entries of `distill_losses`.'
        )
    return MODELS.build(cfg)
