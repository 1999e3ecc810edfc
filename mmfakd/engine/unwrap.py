# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""The model and the optimizers of a runner, whatever is around them."""

from __future__ import annotations

from typing import Any

from mmengine.model import is_model_wrapper
from mmengine.optim import OptimWrapperDict
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


def optim_wrappers(optim_wrapper: Any) -> list[Any]:
    """List the optimizers of a training: one, or those that a config names.

    Args:
        optim_wrapper (OptimWrapper | OptimWrapperDict): That of a runner. What has the
            same methods will do.

    Returns:
        list: The wrappers of a dict in its order, else the one given.
    """
    several = isinstance(optim_wrapper, OptimWrapperDict)
    return list(optim_wrapper.values()) if several else [optim_wrapper]
