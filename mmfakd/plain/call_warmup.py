# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""A warm-up that counts calls."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from mmfakd.models.distillers import Warmup


class CallWarmup(nn.Module, Warmup):
    """The growing weight of a loss, by the number of its calls.

    The number is part of the state dict, so that a resumed training goes on with it.

    Args:
        cfg (int | Mapping): The call at which the full weight is reached, or
            ``dict(begin=..., end=...)``.

    Raises:
        ValueError: For what is neither.

    Examples:
        >>> from mmfakd.plain.call_warmup import CallWarmup
        >>> warmup = CallWarmup(4)
        >>> warmup.factor()
        0.25
        >>> warmup.advance()
        >>> warmup.factor()
        0.5
    """

    calls: Tensor

    def __init__(self, cfg: int | Mapping) -> None:
        nn.Module.__init__(self)
        given = dict(end=cfg) if isinstance(cfg, int) else cfg
        by_epoch = isinstance(given, Mapping) and given.get('by_epoch')
        if by_epoch or isinstance(cfg, bool) or not isinstance(given, Mapping):
            raise ValueError(
                f'warmup: got {cfg!r}; expected a number of calls of `loss`, or '
                'dict(begin=0, end=1000) in such calls: for epochs, multiply by '
                'len(loader).'
            )
        Warmup.__init__(self, {'begin': 0, **given, 'by_epoch': False})
        self.register_buffer('calls', torch.zeros((), dtype=torch.long))
        # The same in Python, to be read without waiting for a device.
        self._count: int | None = 0

    def factor(self) -> float:
        """Compute the present factor.

        Returns:
            float: 0 to 1.
        """
        if self._count is None:
            self._count = int(self.calls)
        return self.factor_at(self._count)

    def advance(self) -> None:
        """Count a call."""
        self.factor()
        self.calls += 1
        self._count = (self._count or 0) + 1

    def _load_from_state_dict(self, *args: object) -> None:
        super()._load_from_state_dict(*args)  # type: ignore[misc]
        self._count = None
