# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""Refuses a hook that makes the student its own teacher."""

from __future__ import annotations

from collections.abc import Iterable

from mmengine.hooks import Hook


def check_mean_teacher(hooks: Iterable[Hook]) -> None:
    """Refuse hooks that write the student's weights into the teacher.

    mmdet's ``MeanTeacherHook`` comes along with the ``custom_hooks`` of configs of
    semi-supervised learning. A distillation has what it looks for, a ``teacher`` and a
    ``student``, so it would start with a copy of the student for its teacher.

    Args:
        hooks (Iterable[Hook]): The hooks of a distillation.

    Raises:
        ValueError: If one of them is a ``MeanTeacherHook``.
    """
    for hook in hooks:
        # By name, as classifiers are trained without mmdet.
        if any(base.__name__ == 'MeanTeacherHook' for base in type(hook).__mro__):
            raise ValueError(
                f'The hook {type(hook).__name__} would overwrite the teacher of the '
                'distillation with the weights of the student, in the beginning and '
                'after every iteration. The teacher of a distillation stays as it was '
                'trained: take the hook out of `custom_hooks`, to which configs of '
                'semi-supervised learning add it.'
            )
