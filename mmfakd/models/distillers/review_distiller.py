# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""Knowledge review as an mmrazor distiller."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from inspect import signature
from typing import Any

from mmengine.logging import print_log
from torch import Tensor, nn

from mmfakd.messages import quoted
from mmfakd.models.connectors import LayerwiseConnector, ReviewConnector
from mmfakd.ops.maps import as_map
from mmfakd.registry import MODELS

from .level import Level, LevelCfg
from .level_distiller import LevelDistiller, join_parts
from .level_order import refuse_reversed

_CONNECTOR = 'review'


@MODELS.register_module()
class ReviewDistiller(LevelDistiller):
    r"""Distillation of a feature pyramid through one review connector.

    The student's features of all levels go through the connector together; each
    of its predictions is compared with the teacher's feature of that level:

    .. math::
        \mathcal{L} = w(t) \sum_l \lambda_l \,
        d\big(\hat{F}^T_l, F^T_l\big), \qquad
        w(t) = \mathrm{clip}\Big(\frac{t + 1 - t_0}{t_1 - t_0}, 0, 1\Big)

    with :math:`t` the epoch or iteration counted from 0, :math:`t_0, t_1` the
    begin and end of the warm-up, :math:`\lambda_l` the weight of the level and
    :math:`d` the level loss. Everything of mmrazor's ``ConfigurableDistiller``
    still works beside it: other losses, connectors and deliveries.

    Source: the review setting of *Frequency Attention for Knowledge Distillation*
    (arXiv 2403.05894) and *Distilling Knowledge via Knowledge Review*
    (arXiv 2104.09044).

    Args:
        student_levels (str | dict | Sequence[str | dict]): The student's levels,
            shallow to deep, as in :class:`LevelDistiller`. Beyond that, a level whose
            record is a tuple of maps (a neck) stands for all of them; such a tuple
            may run deepest first.
        teacher_levels (str | dict | Sequence[str | dict]): The same of the teacher.
        connector (dict): Config of the module that turns the list of student
            features, shallow to deep, into the tuple of predicted teacher
            features, in general ``mmfakd.ReviewConnector``.
        level_loss (dict | nn.Module, optional): Config of the loss of one level, or
            the loss, called with (prediction, teacher feature). None is the mean
            squared error.
        connectors (dict, optional): Further mmrazor connectors.
        **kwargs: Other arguments of :class:`LevelDistiller`: ``loss_weight``,
            ``warmup``, ``ignore_padding``, ``student_recorders``,
            ``teacher_recorders`` and those of ``ConfigurableDistiller``.

    Shapes:
        Level features are (N, C, H, W) or (N, C), the latter taken as
        (N, C, 1, 1). A prediction must have its teacher feature's shape.

    Raises:
        ValueError: As :class:`LevelDistiller`, and for several level losses; at the
            first step for levels of different number, for levels that run deep to
            shallow and for predictions that do not have the shape of the teacher's
            features.
    """

    # Those that run without a level or a mapping that names them.
    own_connectors = (_CONNECTOR,)

    def __init__(
        self,
        student_levels: LevelCfg | Sequence[LevelCfg],
        teacher_levels: LevelCfg | Sequence[LevelCfg],
        connector: dict,
        level_loss: dict | nn.Module | None = None,
        *,
        connectors: dict | None = None,
        **kwargs: Any,
    ) -> None:
        if not isinstance(connector, Mapping) or 'type' not in connector:
            raise ValueError(
                f"connector: got {connector!r}; expected dict(type='mmfakd."
                "ReviewConnector', in_channels=[...], out_channels=[...], ...)."
            )
        if isinstance(level_loss, Sequence):
            raise ValueError(
                f'level_loss: got {level_loss!r}; expected one config, '
                "dict(type='mmfakd.HierarchicalContextLoss'), as the levels of a "
                'review share one loss; loss_weight=[...] weights them. '
                'mmfakd.LevelDistiller takes a loss for each level.'
            )
        super().__init__(
            student_levels,
            teacher_levels,
            level_loss=None,
            connectors=join_parts('connectors', {_CONNECTOR: connector}, connectors),
            **kwargs,
        )
        if not isinstance(level_loss, nn.Module):
            level_loss = MODELS.build(level_loss) if level_loss else nn.MSELoss()
        self.level_loss = level_loss
        self._check_losses(level_loss)
        parameters = signature(self.level_loss.forward).parameters
        self._loss_by_name = {'s_feature', 't_feature'} <= set(parameters)

    def level_pairs(self) -> Sequence[Sequence[Tensor]]:
        """Read what the level losses compare; it runs the connector.

        Returns:
            Sequence[Sequence[Tensor]]: For each level, shallow to deep, the prediction
            (N, C, H, W) and the teacher's feature.

        Raises:
            ValueError: For levels of different number, levels that run deep to
                shallow, another number of predictions, or a prediction without its
                teacher feature's shape.
        """
        student_names, student = self._gather(self.student_levels)
        teacher_names, teacher = self._gather(self.teacher_levels)
        teacher = [as_map(feature) for feature in teacher]
        self._check_order(student_names, student)
        if len(student) != len(teacher):
            shapes = [[tuple(f.shape) for f in side] for side in (student, teacher)]
            raise ValueError(
                f'{len(student)} student levels stand against {len(teacher)} teacher '
                f'levels: {shapes[0]} and {shapes[1]}. Give as many '
                '`student_levels` as `teacher_levels`; single maps of a neck are '
                "[dict(recorder='neck', data_idx=0), ...]."
            )
        try:
            predictions = self.connectors[_CONNECTOR](student)
        except ValueError:
            advice = self._input_advice(student_names, student, teacher)
            if advice:
                print_log(advice, logger='current', level=logging.ERROR)
            raise
        if isinstance(predictions, Tensor) or len(predictions) != len(teacher):
            one = isinstance(predictions, Tensor)
            found = 'one tensor' if one else f'{len(predictions)} predictions'
            raise ValueError(
                f'{type(self.connectors[_CONNECTOR]).__name__} returned {found} for '
                f'{len(teacher)} levels; expected a sequence of one for each level.'
            )
        pairs = list(zip(predictions, teacher))
        for i, (prediction, target) in enumerate(pairs):
            if prediction.shape != target.shape:
                raise ValueError(
                    f'level {i}: the prediction has shape {tuple(prediction.shape)}, '
                    f"the teacher's feature {tuple(target.shape)} (student "
                    f'{student_names[i]!r}, teacher {teacher_names[i]!r}). Set in the '
                    f'connector {_connector_advice(student, predictions, teacher)}.'
                )
        return pairs

    def _count_levels(self) -> int:
        connector = self.connectors[_CONNECTOR]
        # Of a neck there are more than are named.
        return len(getattr(connector, 'levels', self.student_levels))

    def _check_order(self, names: list[str], maps: Sequence[Tensor]) -> None:
        """Raise for levels that run deep to shallow, which a review turns round."""
        sizes = [tuple(as_map(feature).shape[2:]) for feature in maps]
        if isinstance(self.connectors[_CONNECTOR], ReviewConnector):
            refuse_reversed(
                'student_levels',
                names,
                sizes,
                'Expected shallow to deep: turn the order of both `student_levels` and '
                '`teacher_levels` round, and of all that the connector has one of for '
                'each level.',
            )

    def _input_advice(
        self, names: list[str], student: Sequence[Tensor], teacher: Sequence[Tensor]
    ) -> str:
        """What the connector's channels are to be, where the student's are others."""
        given = getattr(self.connectors[_CONNECTOR], 'in_channels', None)
        found = [as_map(feature).shape[1] for feature in student]
        if not isinstance(given, list) or given == found:
            return ''
        if given == [feature.shape[1] for feature in teacher]:
            return (
                f'`in_channels={given}` of the connector are the channels of the '
                f"teacher's levels; the student's {quoted(names)} have {found}: swap "
                '`in_channels` and `out_channels`.'
            )
        return (
            f"The student's levels {quoted(names)} have {found} channels, the "
            f"connector's `in_channels` are {given}: set `in_channels={found}` in "
            '`distiller.connector`, or record other `student_levels`.'
        )

    def _loss_of(self, level: int) -> nn.Module:
        return self.level_loss

    def _compare(self, prediction: Tensor, target: Tensor, level: int = 0) -> Tensor:
        if self._loss_by_name:
            return self.level_loss(s_feature=prediction, t_feature=target)
        return self.level_loss(prediction, target)

    def _gather(self, levels: Sequence[Level]) -> tuple[list[str], list[Tensor]]:
        """Names and features of all levels, shallow to deep."""
        maps = [one for level in levels for one in level.read_maps(self)]
        return [name for name, _ in maps], [feature for _, feature in maps]

    def _load_from_state_dict(self, state_dict: dict, prefix: str, *args: Any) -> None:
        """Load what was trained layer to layer with a connector of its own a level.

        It had the names of :class:`LevelDistiller`, or those that a config gave to
        the connectors of mmrazor's distiller.
        """
        start = f'{prefix}connectors.'
        keys = [key for key in state_dict if key.startswith(start)]
        paths = [key[len(start) :].partition('.') for key in keys]
        names = list(dict.fromkeys(name for name, _, _ in paths))
        others = [name for name in names if name not in self.connectors]
        ours = self.connectors[_CONNECTOR]
        levels = len(ours.levels) if isinstance(ours, LayerwiseConnector) else 0
        if _CONNECTOR not in names and len(others) == levels:
            for key, (name, _, rest) in zip(keys, paths):
                if name in others:
                    level = f'{start}{_CONNECTOR}.levels.{others.index(name)}'
                    state_dict[f'{level}.{rest}'] = state_dict.pop(key)
        super()._load_from_state_dict(state_dict, prefix, *args)


def _connector_advice(
    student: Sequence[Tensor], predictions: Sequence[Tensor], teacher: Sequence[Tensor]
) -> str:
    """The connector's arguments that would make the predictions fit."""
    advice = []
    channels = [target.shape[1] for target in teacher]
    if channels != [prediction.shape[1] for prediction in predictions]:
        advice.append(f'`out_channels={channels}`')
    grids = [tuple(target.shape[2:]) for target in teacher]
    if grids != [tuple(prediction.shape[2:]) for prediction in predictions]:
        scales = [_scale(ours, grid) for ours, grid in zip(student, grids)]
        either, further = '', ''
        if None in scales:
            further = (
                ', or pad the batches further (`pad_size_divisor` of the '
                "student's data_preprocessor), so that sizes are in proportion"
            )
        else:
            either = f"`scales={scales}` (the teacher's sizes over the student's), or "
        advice.append(f'{either}`sizes={grids}` if all images have one size{further}')
    return ' and '.join(advice)


def _scale(feature: Tensor, grid: tuple[int, ...]) -> float | None:
    """The power of two by which a feature becomes as large as the teacher's."""
    size = as_map(feature).shape[2:]
    for scale in (1, 2, 4, 8, 16, 0.5, 0.25, 0.125, 0.0625):
        # As connectors round.
        if tuple(max(1, int(n * scale + 0.5)) for n in size) == grid:
            return scale
    return None
