# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""Choices that all processes of a training share."""

from __future__ import annotations

from typing import Any

import torch.distributed as dist

_PREFIX = 'mmfakd/ways/'


class SharedChoices:
    """Lets the first process that has chosen decide for all.

    By the store through which the processes have found one another, which any of them
    may ask at any time: nobody waits for the others, who may see other sizes.
    """

    def get(self, label: str) -> str | None:
        """Look up what was decided.

        Args:
            label (str): Operation, device and inputs.

        Returns:
            str | None: The way, if a process has decided on one.
        """
        # To ask whether a key is there is nothing that torch 2.1 can.
        return self.put(label, '') or None

    def put(self, label: str, way: str) -> str:
        """Propose a choice.

        Args:
            label (str): Operation, device and inputs.
            way (str): What this process has chosen.

        Returns:
            str: What holds for all: the choice of whoever came first. An empty one
            is none.
        """
        store = _store()
        if store is None:
            return way
        return store.compare_set(_PREFIX + label, '', way).decode()


def _store() -> Any:
    if not (dist.is_available() and dist.is_initialized()):
        return None
    if dist.get_world_size() == 1:
        return None
    return dist.distributed_c10d._get_default_store()
