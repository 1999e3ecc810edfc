# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""Finds features of a teacher that are others each time it sees the same batch."""

from __future__ import annotations

import copy
import logging
from itertools import zip_longest
from typing import Any

from mmengine.logging import print_log
from mmrazor.models.distillers import ConfigurableDistiller
from torch import Tensor
from torch.utils._pytree import tree_flatten

from mmfakd.datasets.random_state import same_random_state
from mmfakd.models.distillers.same_buffers import same_buffers
from mmfakd.ops.compiling import is_compiled

from .teacher import Teacher

# Part of the largest value. Half precision, whose algorithms may change between two
# passes, stays below it, masks and dropout do not.
_SAME = 0.05


def random_features(
    teacher: Teacher,
    distiller: ConfigurableDistiller,
    inputs: Tensor,
    data_samples: list | None,
) -> list[str]:
    """Run the teacher once more, and compare what is recorded.

    Records, buffers and random numbers are then what they were. Compiled teachers are
    left out, as a second pass may overwrite what the first returned, and those whose
    results are delivered to the student, which takes part in what is drawn. A second
    pass that fails, as of samples that cannot be copied or for want of memory, is
    told, and nothing is compared.

    Args:
        teacher (Teacher): The teacher, after it has recorded the batch.
        distiller (ConfigurableDistiller): The distiller that records.
        inputs (Tensor): The student's batch (N, C, H, W).
        data_samples (list, optional): Its N data samples.

    Returns:
        list[str]: Layers whose records differ.
    """
    if is_compiled(teacher.model) or distiller.deliveries.deliveries:
        return []
    recorders = distiller.teacher_recorders.recorders
    first = {name: recorder._data_buffer for name, recorder in recorders.items()}
    try:
        with same_random_state(), same_buffers([teacher.model]):
            # A model may write into its samples.
            teacher.record(distiller, inputs, copy.deepcopy(data_samples))
        return [
            getattr(recorder, 'source', name)
            for name, recorder in recorders.items()
            if _differ(first[name], recorder._data_buffer)
        ]
    except Exception as error:
        # It is a mere look: what trains without it goes on.
        print_log(
            'It is not known whether the teacher says the same of a batch twice, as it '
            f'cannot be run a second time: {type(error).__name__}: {error}',
            logger='current',
            level=logging.WARNING,
        )
        return []
    finally:
        for name, recorder in recorders.items():
            recorder._data_buffer = first[name]


def _differ(first: Any, second: Any) -> bool:
    """Whether two records have other tensors."""
    pairs = zip_longest(tree_flatten(first)[0], tree_flatten(second)[0])
    return any(_differs(*pair) for pair in pairs if isinstance(pair[0], Tensor))


def _differs(one: Tensor, other: Any) -> bool:
    if not isinstance(other, Tensor) or one.shape != other.shape:
        return True
    if not one.is_floating_point() or not one.numel():
        return False
    one, other = one.detach().float(), other.detach().float()
    # What is not finite is told elsewhere, and compares to nothing.
    return bool((one - other).abs().max() > _SAME * one.abs().max())
