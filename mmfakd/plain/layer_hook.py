# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""A forward hook that copies of the model do not take along."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any
from weakref import ref

from torch import nn


class LayerHook:
    """Hands what a layer returns to a recorder, as long as there is one.

    Deep copies and pickles of a model (averaged models, saved models) hold in its place
    a function that does nothing, and need no mmfakd.

    Args:
        recorder (Recorder): The recorder.
        name (str): Name of the layer.
    """

    def __init__(self, recorder: Any, name: str) -> None:
        self._recorder = ref(recorder)
        self._name = name

    def __call__(self, module: nn.Module, args: tuple, output: Any) -> None:
        """Record a call."""
        recorder = self._recorder()
        if recorder is not None:
            recorder.take(self._name, module, output)

    def __reduce__(self) -> tuple:
        """Leave a function of any arguments behind that returns None."""
        return getattr, (nullcontext(), '__exit__')


class PassHook(LayerHook):
    """Tells a recorder that a forward pass of the model begins."""

    @property
    def records_a_student(self) -> bool:
        """bool: Whether the recorder is there, and that of a model which learns."""
        recorder = self._recorder()
        return recorder is not None and recorder.with_graph

    def __call__(  # type: ignore[override]
        self, module: nn.Module, args: tuple, kwargs: dict
    ) -> None:
        """Begin a pass."""
        recorder = self._recorder()
        if recorder is not None:
            recorder.begin(module, args, kwargs)
