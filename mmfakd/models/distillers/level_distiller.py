# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""One loss for each pair of levels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Union

from mmrazor.models.distillers import ConfigurableDistiller
from torch import Tensor

from mmfakd.registry import MODELS

from .levels import Level, parse_levels, read_level

# A config, or a list of them for modules in a row.
Connector = Union[Mapping[str, Any], Sequence[Mapping[str, Any]]]


@MODELS.register_module()
class LevelDistiller(ConfigurableDistiller):
    r"""Distillation level by level, with one loss and its connectors for each.

    .. math::
        \mathcal{L} = \sum_l d_l\big(c^S_l(F^S_l), c^T_l(F^T_l)\big)

    with the features :math:`F^S_l, F^T_l` of a level, connectors :math:`c^S_l, c^T_l`
    where given, and the loss :math:`d_l`. It says in a few lines what
    ``ConfigurableDistiller`` asks for as recorders, connectors, losses and mappings
    under matching names, which still work beside it. AT and FitNet are of this form.

    Args:
        student_levels (str | dict | Sequence[str | dict]): The student's levels, as in
            :class:`ReviewDistiller`, ``tokens`` included; each records one tensor.
        teacher_levels (str | dict | Sequence[str | dict]): The same of the teacher.
        level_loss (dict | Sequence[dict]): Config of the loss of every level, or one
            for each; it is called with ``s_feature`` and ``t_feature``.
        student_connectors (dict | Sequence, optional): Config of a connector that
            every level gets one of, or for each level one config, a list of configs
            for modules in a row, or None. They get maps. Defaults to None, no
            connectors.
        teacher_connectors (dict | Sequence, optional): The same of the teacher, for
            example a pooling of maps that are larger than the student's.
        student_recorders (dict, optional): mmrazor recorders of the student.
        teacher_recorders (dict, optional): mmrazor recorders of the teacher.
        connectors (dict, optional): Further mmrazor connectors.
        distill_losses (dict, optional): Further losses, for ``loss_forward_mappings``.
        **kwargs: Other arguments of ``ConfigurableDistiller``.

    Shapes:
        The loss gets features of equal number and size, (N, Cs, H, W) and
        (N, Ct, H, W); whether channels must agree is up to it.

    Raises:
        ValueError: For sequences of different lengths, bad levels or names that are
            taken; at the first step for features whose shapes disagree.
    """

    def __init__(
        self,
        student_levels: Level | Sequence[Level],
        teacher_levels: Level | Sequence[Level],
        level_loss: Mapping | Sequence[Mapping],
        student_connectors: Mapping | Sequence[Connector | None] | None = None,
        teacher_connectors: Mapping | Sequence[Connector | None] | None = None,
        student_recorders: dict | None = None,
        teacher_recorders: dict | None = None,
        connectors: dict | None = None,
        distill_losses: dict | None = None,
        **kwargs: Any,
    ) -> None:
        student_recorders = dict(student_recorders or {})
        teacher_recorders = dict(teacher_recorders or {})
        student_parsed = parse_levels(student_levels, student_recorders, 'student')
        teacher_parsed = parse_levels(teacher_levels, teacher_recorders, 'teacher')
        count = len(student_parsed)
        if len(teacher_parsed) != count:
            raise ValueError(
                f'{count} student levels stand against {len(teacher_parsed)} teacher '
                'levels; give as many `teacher_levels` as `student_levels`.'
            )
        own_connectors = {}
        for role, given, levels in (
            ('student', student_connectors, student_parsed),
            ('teacher', teacher_connectors, teacher_parsed),
        ):
            for i, cfg in enumerate(spread(f'{role}_connectors', given, count)):
                if cfg is not None:
                    own_connectors[f'{role}{i}'] = cfg
                    levels[i]['connector'] = f'{role}{i}'
        losses = spread('level_loss', level_loss, count)
        own_losses = {f'loss_level{i}': cfg for i, cfg in enumerate(losses)}
        super().__init__(
            student_recorders=student_recorders,
            teacher_recorders=teacher_recorders,
            connectors=_merge('connectors', own_connectors, connectors),
            distill_losses=_merge('distill_losses', own_losses, distill_losses),
            **kwargs,
        )
        self.student_levels = student_parsed
        self.teacher_levels = teacher_parsed

    def compute_distill_losses(self) -> dict[str, Tensor]:
        """Compute the losses of all levels and of the mappings.

        Returns:
            dict[str, Tensor]: ``loss_level{i}`` for every level, and the losses of
            ``loss_forward_mappings``.

        Raises:
            ValueError: If a level has no tensor, or its two features cannot be
                compared.
        """
        losses = super().compute_distill_losses()
        for i, (student, teacher) in enumerate(
            zip(self.student_levels, self.teacher_levels)
        ):
            s_feature: Any = read_level(self, student, from_student=True)
            t_feature: Any = read_level(self, teacher, from_student=False)
            _check(i, s_feature, t_feature)
            name = f'loss_level{i}'
            loss = self.distill_losses[name]
            try:
                losses[name] = loss(s_feature=s_feature, t_feature=t_feature)
            except RuntimeError as error:
                if s_feature.shape == t_feature.shape:
                    raise
                raise ValueError(
                    f'level {i}: {type(loss).__name__} cannot compare features of '
                    f'shapes {tuple(s_feature.shape)} and {tuple(t_feature.shape)}. '
                    "Bring the student's to the teacher's channels with "
                    '`student_connectors`.'
                ) from error
        return losses


def spread(name: str, value: Any, count: int) -> list:
    """Give every level its own: one value for all, or one for each.

    Args:
        name (str): The argument's name, for the message.
        value (Mapping | Sequence | None): One config, None, or a sequence of them.
        count (int): Number of levels.

    Returns:
        list: A value for each level.

    Raises:
        ValueError: For a sequence of another length.
    """
    if value is None or isinstance(value, Mapping):
        return [value] * count
    if isinstance(value, str) or len(value) != count:
        raise ValueError(
            f'{name}: got {value!r} for {count} levels; expected one config, or as '
            'many as there are levels.'
        )
    return list(value)


def _merge(name: str, own: dict, given: dict | None) -> dict:
    """Join the levels' configs and others, whose names must differ."""
    taken = sorted(set(own) & set(given or {}))
    if taken:
        raise ValueError(f'{name}: {taken} are kept for the levels; rename yours.')
    return {**own, **(given or {})}


def _check(level: int, s_feature: Any, t_feature: Any) -> None:
    """Raise unless a level has two tensors of one number and size."""
    for role, feature in (('student', s_feature), ('teacher', t_feature)):
        if not isinstance(feature, Tensor):
            raise ValueError(
                f"level {level}: the {role}'s record is a {type(feature).__name__}; "
                'expected a tensor. Choose one part of it with `data_idx`.'
            )
    if (s_feature.shape[:1], s_feature.shape[2:]) != (
        t_feature.shape[:1],
        t_feature.shape[2:],
    ):
        raise ValueError(
            f"level {level}: the student's feature has shape {tuple(s_feature.shape)}, "
            f"the teacher's {tuple(t_feature.shape)}. Bring them to one size with "
            '`student_connectors` or `teacher_connectors`: '
            '`mmfakd.FrequencyAttentionConnector` resizes to its `size` or by its '
            '`scale`, '
            "dict(type='mmrazor.TorchNNConnector', module_name='AvgPool2d', "
            'module_args=dict(kernel_size=2)) pools.'
        )


__all__ = ['LevelDistiller']
