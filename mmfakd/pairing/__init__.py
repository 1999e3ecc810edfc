# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""Distillation configs for two models."""
