# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""Texts of configs without the layout of yapf, which takes half a second for each."""

import ast
from contextlib import contextmanager
from importlib import import_module

import pytest

# The maintained line of MMEngine imports it where it is used.
MODULES = ('mmengine.config.config', 'yapf.yapflib.yapf_api')


def as_it_is(text, **options):
    """What yapf returns for a text that is laid out well."""
    ast.parse(text)
    return text, False


@contextmanager
def formatted_with(function):
    """Let MMEngine lay configs out with a function in place of yapf's."""
    with pytest.MonkeyPatch.context() as patch:
        for name in MODULES:
            patch.setattr(import_module(name), 'FormatCode', function, raising=False)
        yield
