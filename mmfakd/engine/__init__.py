# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""Hooks for the MMEngine runner."""

from .hooks import *  # noqa: F403
