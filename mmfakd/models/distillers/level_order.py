# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""The order of levels that a review needs."""

from __future__ import annotations

import math
from collections.abc import Sequence

from mmfakd.messages import quoted


def refuse_reversed(
    title: str, names: Sequence[str], sizes: Sequence[Sequence[int]], advice: str
) -> None:
    """Raise for levels that run deep to shallow.

    Args:
        title (str): What names them, for the message.
        names (Sequence[str]): Their names.
        sizes (Sequence[Sequence[int]]): Height and width of each.
        advice (str): What to do, a sentence.

    Raises:
        ValueError: If the last one is larger than the first.
    """
    if math.prod(sizes[0]) < math.prod(sizes[-1]):
        found = [tuple(size) for size in sizes]
        raise ValueError(
            f'{title} run deep to shallow: {quoted(names)} have sizes {found}, which '
            f'grow. {advice}'
        )
