# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""What MMEngine's inferencers build of a config that comes with weights."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from functools import wraps
from typing import Any


def guard_inferencers() -> None:
    """Let inferencers build no more of a text in a weight file than what is registered.

    Without a ``model``, ``DetInferencer(weights='a.pth')`` for one, or with an empty
    one, MMEngine builds what a text in the file says. Of that neither pickles nor
    files of Python are read, nor modules imported, see
    :func:`~mmfakd.model_zoo.registered_types.registered_types_only`. With a ``model``
    the config is the user's own. Calling this again changes nothing.
    """
    from mmengine.infer import BaseInferencer

    if not hasattr(BaseInferencer.__init__, 'mmfakd'):
        BaseInferencer.__init__ = _guarded(BaseInferencer.__init__)


def _guarded(original: Callable[..., None]) -> Callable[..., None]:
    @wraps(original)
    def init(self: Any, model: Any = None, *args: Any, **kwargs: Any) -> None:
        from .registered_types import registered_types_only

        with registered_types_only() if not model else nullcontext():
            original(self, model, *args, **kwargs)

    init.mmfakd = True  # type: ignore[attr-defined]
    return init
