# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""What the feature losses share: the levels of student and teacher in pairs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Union

import torch
from torch import Tensor

from mmfakd.ops.maps import as_map, check_real

Features = Union[Tensor, Sequence[Tensor]]


def feature_pairs(
    name: str, s_feature: Features, t_feature: Features
) -> list[tuple[Tensor, Tensor]]:
    """Pair the features of student and teacher level by level.

    Args:
        name (str): Name of the loss, for messages.
        s_feature (Tensor | Sequence[Tensor]): Feature, or one for each level, of the
            student, (N, C, H, W) or (N, C).
        t_feature (Tensor | Sequence[Tensor]): The same of the teacher.

    Returns:
        list[tuple[Tensor, Tensor]]: Pairs of shape (N, C, H, W), with H = W = 1 for
        (N, C); both in float32, or in float64 if one of them is.

    Raises:
        TypeError: If a feature is complex or integer.
        ValueError: If the numbers of levels or the shapes differ. The message names
            the level.
    """
    students = [s_feature] if isinstance(s_feature, Tensor) else list(s_feature)
    teachers = [t_feature] if isinstance(t_feature, Tensor) else list(t_feature)
    if len(students) != len(teachers) or not students:
        raise ValueError(
            f'{name} got {len(students)} student and {len(teachers)} teacher features, '
            'expected the same number of both, and at least one: record the same '
            'levels of both networks.'
        )
    pairs = []
    for level, (student, teacher) in enumerate(zip(students, teachers)):
        check_real(f'{name}, level {level}:', student, teacher)
        student, teacher = as_map(student), as_map(teacher)
        if student.shape != teacher.shape or student.ndim != 4:
            raise ValueError(
                f'{name}, level {level}: got a student feature of shape '
                f'{tuple(student.shape)} and a teacher feature of shape '
                f'{tuple(teacher.shape)}, expected two of one shape (N, C, H, W) or '
                '(N, C): put a connector between student and loss, or correct its '
                'out_channels and size.'
            )
        dtype = torch.promote_types(student.dtype, teacher.dtype)
        dtype = torch.promote_types(dtype, torch.float32)
        pairs.append((student.to(dtype), teacher.to(dtype)))
    return pairs
