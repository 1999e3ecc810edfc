# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""Predictions in what models return, and where their classes stand."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from .layer import describe


def logits_in(output: Any) -> Tensor | None:
    """Find the logits in what a model returned.

    Args:
        output (Any): A tensor; a mapping or named tuple with ``logits``; or a tuple
            that begins with them, after losses, which are scalars.

    Returns:
        Tensor | None: The logits, if there are any.
    """
    if isinstance(output, Tensor):
        return output
    named = output.get('logits') if hasattr(output, 'get') else None
    named = getattr(output, 'logits', None) if named is None else named
    if isinstance(named, Tensor):
        return named
    parts = output if isinstance(output, (tuple, list)) else ()
    first = next((x for x in parts if not (isinstance(x, Tensor) and x.dim() == 0)), 0)
    return first if isinstance(first, Tensor) else None


def logits_of(records: list, role: str) -> Tensor:
    """Find the logits in the last record of a model.

    Args:
        records (list): What the model returned, call by call.
        role (str): ``'student'`` or ``'teacher'``, for messages.

    Returns:
        Tensor: The logits.

    Raises:
        ValueError: If there are none.
    """
    output = records[-1] if records else None
    found = logits_in(output)
    if found is None:
        what = (
            f'returned {describe(output)}' if records else 'was not called as a whole'
        )
        raise ValueError(
            f'The {role} {what}; to compare predictions, it has to return a tensor, or '
            'a tuple or mapping with logits first or under the name "logits".'
        )
    return found


def has_classes_last(logits: Tensor, inputs: Sequence[Tensor], role: str) -> bool:
    """Tell whether logits are those of a sequence, (N, L, classes).

    Token classifiers and language models yield them so. The positions are those of an
    input, which may be numbers of tokens (N, L), or (N, L, C) or (N, C, L).

    Args:
        logits (Tensor): The logits.
        inputs (Sequence[Tensor]): What the model was called with.
        role (str): ``'student'`` or ``'teacher'``, for messages.

    Returns:
        bool: Whether they are; False for (N, classes, ...).

    Raises:
        ValueError: If they have three dimensions, and the inputs do not tell.
    """
    if logits.dim() != 3:
        return False
    tokens = [x for x in inputs if x.dim() == 2 and not x.is_floating_point()]
    given = [*tokens, *(x for x in inputs if x.dim() == 3)]
    last = any(x.shape[1] == logits.shape[1] for x in given)
    first = any(x.shape[-1] == logits.shape[2] for x in given)
    if last != first:
        return last
    # Models that turn their input, as those of points do.
    turned = [x.shape[1:] for x in inputs if x.dim() == 3]
    positions = [any(logits.shape[i] in shape for shape in turned) for i in (1, 2)]
    if positions[0] != positions[1]:
        return positions[0]
    if tokens and not last:
        # Of a part of the tokens, or with others before them.
        return True
    raise ValueError(
        f'The {role} predicts {tuple(logits.shape)}, and its inputs do not tell which '
        'dimension is that of the classes: they are expected in dimension 1, (N, '
        'classes, ...), or, for sequences, in the last, (N, L, classes). Give an '
        'example whose length is not the number of classes, or wrap the model so that '
        'it returns (N, classes, 1, L).'
    )


def by_position(logits: Tensor) -> Tensor:
    """Take each position of a sequence for a sample, so that means are over them.

    Args:
        logits (Tensor): (N, classes, L).

    Returns:
        Tensor: (N * L, classes).
    """
    return logits.movedim(1, -1).flatten(0, -2)


def check_logits(ours: Tensor, theirs: Tensor) -> None:
    """Refuse predictions that cannot be compared.

    Args:
        ours (Tensor): The student's, (N, classes, ...).
        theirs (Tensor): The teacher's.

    Raises:
        ValueError: If they have different shapes, no classes, or a single one.
    """
    if ours.shape != theirs.shape:
        raise ValueError(
            f'The student predicts {tuple(ours.shape)}, the teacher '
            f'{tuple(theirs.shape)}: their predictions cannot be compared. Give them '
            'the same classes, or leave out `kd_weight`.'
        )
    if ours.dim() < 2 or ours.shape[1] == 1:
        why = 'expected (N, classes, ...)'
        if ours.dim() > 1:
            why = 'a softmax over one class is constant, so nothing would be learned'
        raise ValueError(
            f'Student and teacher predict {tuple(ours.shape)}: {why}. Leave out '
            "`kd_weight`, or compare levels in place of method='kd'."
        )
