# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""Automatic mixed precision in trainings on a CPU."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from mmengine.optim import OptimWrapper
from torch import nn

from mmfakd.registry import OPTIM_WRAPPERS


@OPTIM_WRAPPERS.register_module()
class CpuAmpOptimWrapper(OptimWrapper):
    """Train with automatic mixed precision on a CPU.

    MMEngine's ``AmpOptimWrapper`` asks for an accelerator. Forward passes run under
    ``torch.autocast`` in bfloat16, which has the range of float32, so that losses need
    no scaling. ``mmfakd train --amp`` takes it where there is no accelerator.

    Args:
        dtype (str or torch.dtype): ``'bfloat16'``: the only half precision in which
            PyTorch trains on a CPU. https://docs.pytorch.org/docs/stable/amp.html
        **kwargs: Those of ``OptimWrapper``.

    Raises:
        ValueError: For another dtype, and for weights that are not on a CPU: there
            nothing would be cast.
    """

    def __init__(self, dtype: str | torch.dtype = 'bfloat16', **kwargs: Any) -> None:
        if dtype not in ('bfloat16', torch.bfloat16):
            raise ValueError(
                f'optim_wrapper.dtype={dtype!r}: expected bfloat16, the only half '
                'precision for trainings on a CPU; leave `dtype` out.'
            )
        super().__init__(**kwargs)
        # The name that MMEngine's has for it.
        self.cast_dtype = torch.bfloat16
        device = self.param_groups[0]['params'][0].device.type
        if device != 'cpu':
            raise ValueError(
                f"optim_wrapper.type='{type(self).__name__}' and weights on "
                f'{device!r}: expected them on a CPU. On others give '
                "type='AmpOptimWrapper', dtype='bfloat16', which MMEngine has."
            )

    @contextmanager
    def optim_context(self, model: nn.Module) -> Iterator[None]:
        """Enter the context of a forward pass.

        Args:
            model (nn.Module): The model that is trained.

        Yields:
            None: Within autocast.
        """
        with super().optim_context(model), torch.autocast('cpu', self.cast_dtype):
            yield
