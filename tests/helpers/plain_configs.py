# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""Texts of configs without the layout of yapf, which takes half a second for each."""

import ast
from importlib import import_module

import pytest

# The maintained line of MMEngine imports it where it is used.
MODULES = ('mmengine.config.config', 'yapf.yapflib.yapf_api')


def as_it_is(text, **options):
    """What yapf returns for a text that is laid out well."""
    ast.parse(text)
    return text, False


def format_with(function):
    """Let MMEngine format configs with a function; a context in which it does."""
    patch = pytest.MonkeyPatch()
    for name in MODULES:
        patch.setattr(import_module(name), 'FormatCode', function, raising=False)
    return patch
