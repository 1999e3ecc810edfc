# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""Constants of a module that no state dict holds."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn


class DerivedBuffers(nn.Module):
    """A module with buffers that follow from its arguments alone.

    They are not saved. A module that was built on the ``meta`` device has none of their
    values, so they are derived anew whenever all tensors are replaced (``to_empty``,
    ``to``) and whenever a state dict is loaded (also with ``assign=True``).
    """

    def derived(self) -> dict[str, Tensor]:
        """Derive the buffers.

        Returns:
            dict[str, Tensor]: Name -> value.
        """
        raise NotImplementedError

    def register_derived(self) -> None:
        """Register them; to be called once all is set that they follow from."""
        for name, value in self.derived().items():
            self.register_buffer(name, value, persistent=False)

    def _apply(self, *args: Any, **kwargs: Any) -> Any:
        super()._apply(*args, **kwargs)
        for name, value in self._derive_on_host():
            self._renew(name, value, getattr(self, name).device)
        return self

    def _load_from_state_dict(self, *args: Any, **kwargs: Any) -> None:
        super()._load_from_state_dict(*args, **kwargs)
        weight = next(self.parameters(), None)
        for name, value in self._derive_on_host():
            # With `assign=True` weights leave the meta device, and buffers do not.
            buffer = getattr(self, name)
            there = value if weight is None else weight
            self._renew(name, value, (there if buffer.is_meta else buffer).device)

    def _derive_on_host(self) -> Iterable[tuple[str, Tensor]]:
        # Whatever the default device is, and whoever loads.
        with torch.inference_mode(False), torch.device('cpu'):
            return self.derived().items()

    def _renew(self, name: str, value: Tensor, device: torch.device) -> None:
        buffer = getattr(self, name)
        if buffer.device != device or buffer.is_inference():
            with torch.inference_mode(False):
                setattr(self, name, value.to(device, buffer.dtype))
            return
        with torch.no_grad():
            # In place, as a captured CUDA graph may read it.
            buffer.copy_(value)
