# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""Configs in so few letters that they can stand beside every score."""

from __future__ import annotations

import hashlib
from collections.abc import Container, Mapping
from typing import Any

# Two configs that differ are seldom taken for equal: once in 4 billion times.
_LETTERS = 8


def config_digests(config: Mapping, left_out: Container[str] = ()) -> dict[str, str]:
    """Make digests of a config, one for each key at its top.

    Args:
        config (Mapping): The config, as plain values.
        left_out (Container[str]): Keys that need not be equal.

    Returns:
        dict[str, str]: Key -> digest, the same for dicts of another order.
    """
    return {
        key: hashlib.sha256(repr(_ordered(value)).encode()).hexdigest()[:_LETTERS]
        for key, value in sorted(config.items())
        if key not in left_out
    }


def differing_keys(one: Mapping[str, str], other: Mapping[str, str]) -> list[str]:
    """Find the keys by which two configs differ.

    Args:
        one (Mapping[str, str]): Digests of one.
        other (Mapping[str, str]): Digests of the other.

    Returns:
        list[str]: The keys.
    """
    return [key for key in {**one, **other} if one.get(key) != other.get(key)]


def _ordered(value: Any) -> Any:
    if isinstance(value, Mapping):
        return sorted((repr(key), _ordered(inner)) for key, inner in value.items())
    if isinstance(value, (list, tuple)):
        return [_ordered(inner) for inner in value]
    return value
