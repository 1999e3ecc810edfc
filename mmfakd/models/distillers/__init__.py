# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""Distillers: recorders, connectors and losses in one module."""

from .review_distiller import ReviewDistiller

__all__ = ['ReviewDistiller']
