# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""Hooks and optimizer wrappers for the MMEngine runner."""

from .hooks import *  # noqa: F403
from .optim_wrappers import *  # noqa: F403
