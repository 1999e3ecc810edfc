# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""The graph that autograd has built behind losses."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from torch import Tensor


def graph_nodes(losses: Iterable[Tensor | None]) -> Iterator[Any]:
    """Walk the graphs behind losses.

    Args:
        losses (Iterable[Tensor | None]): The losses; None and those without a graph
            have no nodes.

    Yields:
        Node: Each of autograd's nodes, once.
    """
    nodes = [getattr(loss, 'grad_fn', None) for loss in losses]
    # The nodes themselves, as a number may be given to another one later.
    seen = set()
    while nodes:
        node = nodes.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        yield node
        nodes += [following for following, _ in node.next_functions]
