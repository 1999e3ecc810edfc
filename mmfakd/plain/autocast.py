# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""Autocast in any version of torch."""

from __future__ import annotations

import torch


def autocast_dtype(device_type: str) -> torch.dtype | None:
    """Tell what autocast computes in at the moment.

    Args:
        device_type (str): For example ``'cuda'``.

    Returns:
        torch.dtype | None: Its type; None where it is off.
    """
    if hasattr(torch, 'get_autocast_dtype'):
        on = torch.is_autocast_enabled(device_type)
        return torch.get_autocast_dtype(device_type) if on else None
    if device_type == 'cpu':
        return (
            torch.get_autocast_cpu_dtype() if torch.is_autocast_cpu_enabled() else None
        )
    return torch.get_autocast_gpu_dtype() if torch.is_autocast_enabled() else None
