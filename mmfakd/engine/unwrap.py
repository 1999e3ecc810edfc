# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""The model of a runner, whatever is around it."""

from __future__ import annotations

from mmengine.model import is_model_wrapper
from mmengine.runner import Runner
from torch import nn


def unwrapped_model(runner: Runner) -> nn.Module:
    """Take the model of a runner out of what distributes it.

    Args:
        runner (Runner): The runner.

    Returns:
        nn.Module: The model itself.
    """
    return runner.model.module if is_model_wrapper(runner.model) else runner.model
