# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""Errors with other words, of the kind that callers expect."""

from __future__ import annotations


def retold(error: Exception, text: str) -> Exception:
    """Make an error that says more than the one that was caught.

    Args:
        error (Exception): What was caught.
        text (str): What to say instead.

    Returns:
        Exception: Of its kind where it is an ``OSError``, which callers may tell from
        others, else a ``ValueError``.
    """
    if not isinstance(error, OSError):
        return ValueError(text)
    try:
        return type(error)(text)
    except TypeError:
        # Such as HTTPError, which takes five arguments.
        return OSError(text)
