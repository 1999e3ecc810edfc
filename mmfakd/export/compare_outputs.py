# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""Whether an exported file computes what PyTorch does."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch

from mmfakd.messages import first_line

from .student_model import RawOutputs

# Largest difference over the largest value, of every output.
TOLERANCE = 1e-4
Run = Callable[[np.ndarray], Sequence[np.ndarray]]


def largest_difference(
    model: RawOutputs, run: Run, batches: Sequence[np.ndarray]
) -> float:
    r"""Compare outputs on batches.

    .. math::
        \max_o \frac{\max |a_o - b_o|}{\max |b_o|}

    Args:
        model (RawOutputs): The model in PyTorch, giving :math:`b_o`.
        run (Callable): Runs the file on a batch, giving :math:`a_o`.
        batches (Sequence[np.ndarray]): Inputs (N, C, H, W).

    Returns:
        float: The largest difference.

    Raises:
        ValueError: If it is above ``TOLERANCE``, or shapes differ; the output is named.
    """
    largest = 0.0
    for batch in batches:
        with torch.no_grad():
            expected = [x.numpy() for x in model(torch.from_numpy(batch))]
        where = f'on a batch of {" x ".join(map(str, batch.shape))}'
        try:
            found = run(batch)
        except Exception as error:
            # Whatever the runtime raises for sizes that were fixed by tracing.
            raise ValueError(
                f'{where} the file fails ({first_line(error)}): its sizes are fixed. '
                'Allow fewer of them to vary: --dynamic batch or --dynamic none.'
            ) from error
        for name, a, b in zip(model.names, found, expected):
            if a.shape != b.shape:
                raise ValueError(
                    f'{where} its output {name!r} is {a.shape}, that of PyTorch '
                    f'{b.shape}. Allow fewer sizes to vary: --dynamic batch or none.'
                )
            scale = np.abs(b).max() or 1.0
            apart = float(np.abs(a - b).max() / scale)
            # Not a number is not below it, either.
            if not apart <= TOLERANCE:
                raise ValueError(
                    f'{where} its output {name!r} differs from that of PyTorch '
                    f'by {apart:.2g} of its largest value, up to {TOLERANCE:g} is '
                    'rounding. Allow fewer sizes to vary (--dynamic none), or try '
                    'another --opset.'
                )
            largest = max(largest, apart)
    return largest
