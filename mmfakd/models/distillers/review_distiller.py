# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""Knowledge review as an mmrazor distiller."""

from __future__ import annotations

from collections.abc import Sequence
from inspect import signature
from typing import Any

from mmrazor.models.distillers import ConfigurableDistiller
from torch import Tensor, nn

from mmfakd.registry import MODELS

from .check_layer_names import check_layer_names
from .levels import Level, parse_levels, read_level
from .valid_area import Share, mask_padding, valid_shares
from .warmup import Warmup

_CONNECTOR = 'review'


@MODELS.register_module()
class ReviewDistiller(ConfigurableDistiller):
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
            shallow to deep. A level is a module name, for which a
            ``ModuleOutputs`` recorder is made, or
            ``dict(recorder=..., record_idx=0, data_idx=None, tokens=None)``, whose
            recorder is a module name too, a name in ``student_recorders`` or the
            config of a recorder: what enters the second call of an activation is
            ``dict(recorder=dict(type='mmrazor.ModuleInputs', source='layer1.2.relu'),
            record_idx=1, data_idx=0)``. ``tokens`` makes a map of a transformer's
            tokens, see :class:`TokenMap`: that of a ViT's block is
            ``dict(recorder='backbone.layers.5', tokens=dict(prefix=1))``. Where a
            record holds their grid, as a Swin stage's does, it needs none. A level
            whose record is a tuple of maps (a neck) stands for all of them; such a
            tuple may run deepest first.
        teacher_levels (str | dict | Sequence[str | dict]): The same of the teacher.
        connector (dict): Config of the module that turns the list of student
            features, shallow to deep, into the tuple of predicted teacher
            features, in general ``mmfakd.ReviewConnector``.
        level_loss (dict, optional): Config of the loss of one level, called with
            (prediction, teacher feature). None is the mean squared error.
        loss_weight (float | Sequence[float]): Weight of every level, or one for
            each. Defaults to 1.0.
        warmup (dict, optional): ``dict(by_epoch=True, begin=0, end=20)``: the
            weight grows linearly to its full value at ``end``. With
            ``by_epoch=False`` it counts iterations, which an iteration based loop
            needs, as its epoch stays 0. Defaults to None, no warm-up.
        ignore_padding (bool): Whether the level losses count only what the images of
            a batch cover, not what they were padded with: features are set to zero
            there, and the loss is divided by the share of the rest. This needs
            :class:`FeatureDistill` and data samples with ``img_shape``, as mmdet's.
            Defaults to False, as published.
        student_recorders (dict, optional): mmrazor recorders of the student.
        teacher_recorders (dict, optional): mmrazor recorders of the teacher.
        connectors (dict, optional): Further mmrazor connectors.
        **kwargs: Other arguments of ``ConfigurableDistiller``.

    Shapes:
        Level features are (N, C, H, W) or (N, C), the latter taken as
        (N, C, 1, 1). A prediction must have its teacher feature's shape.

    Raises:
        ValueError: For unknown layer names (near matches are listed), levels of
            different number, a level that is none, bad weights or a bad warm-up, and
            at the first step for tokens that make no map and features whose shapes
            disagree.
    """

    def __init__(
        self,
        student_levels: Level | Sequence[Level],
        teacher_levels: Level | Sequence[Level],
        connector: dict,
        level_loss: dict | None = None,
        loss_weight: float | Sequence[float] = 1.0,
        warmup: dict | None = None,
        ignore_padding: bool = False,
        student_recorders: dict | None = None,
        teacher_recorders: dict | None = None,
        connectors: dict | None = None,
        **kwargs: Any,
    ) -> None:
        connectors = dict(connectors or {})
        if _CONNECTOR in connectors:
            raise ValueError(
                f'connectors: the name {_CONNECTOR!r} is kept for `connector`; '
                'rename that entry.'
            )
        student_recorders = dict(student_recorders or {})
        teacher_recorders = dict(teacher_recorders or {})
        student_parsed = parse_levels(student_levels, student_recorders, 'student')
        teacher_parsed = parse_levels(teacher_levels, teacher_recorders, 'teacher')
        super().__init__(
            student_recorders=student_recorders,
            teacher_recorders=teacher_recorders,
            connectors={_CONNECTOR: connector, **connectors},
            **kwargs,
        )
        self.student_levels = student_parsed
        self.teacher_levels = teacher_parsed
        self.level_loss = MODELS.build(level_loss) if level_loss else nn.MSELoss()
        parameters = signature(self.level_loss.forward).parameters
        self._loss_by_name = {'s_feature', 't_feature'} <= set(parameters)
        self.loss_weight = _parse_loss_weight(loss_weight)
        self.warmup = None if warmup is None else Warmup(warmup)
        self.ignore_padding = ignore_padding
        self._shares: list[Share] = []

    def prepare_from_student(self, model: nn.Module) -> None:
        """Register the student's recorders, after a check of their layer names.

        Args:
            model (nn.Module): The student.

        Raises:
            ValueError: If a recorded layer does not exist.
        """
        check_layer_names(self.student_recorders.recorders, model, 'student')
        super().prepare_from_student(model)

    def prepare_from_teacher(self, model: nn.Module) -> None:
        """Register the teacher's recorders, after a check of their layer names.

        Args:
            model (nn.Module): The teacher.

        Raises:
            ValueError: If a recorded layer does not exist.
        """
        check_layer_names(self.teacher_recorders.recorders, model, 'teacher')
        super().prepare_from_teacher(model)

    def see_batch(self, inputs: Tensor, data_samples: Sequence | None) -> None:
        """Note which part of the batch is padding; called in each step.

        Args:
            inputs (Tensor): The student's batch (N, C, H, W).
            data_samples (Sequence, optional): Its data samples.
        """
        if self.ignore_padding:
            self._shares = valid_shares(inputs, data_samples)

    def compute_distill_losses(self) -> dict[str, Tensor]:
        """Compute the losses of all levels and of the mappings.

        Returns:
            dict[str, Tensor]: ``loss_level{i}`` for every level, shallow to deep,
            scalars; the losses of ``loss_forward_mappings``; and, with a warm-up,
            its present factor as ``warmup``.

        Raises:
            ValueError: If predictions and teacher features disagree in number or
                shape.
        """
        losses = super().compute_distill_losses()
        student = self._gather(self.student_levels, from_student=True)
        teacher = [
            feature[..., None, None] if feature.dim() == 2 else feature
            for feature in self._gather(self.teacher_levels, from_student=False)
        ]
        if len(student) != len(teacher):
            raise ValueError(
                f'{len(student)} student levels stand against {len(teacher)} teacher '
                f'levels: {_shapes(student)} and {_shapes(teacher)}. Give as many '
                '`student_levels` as `teacher_levels`; single maps of a neck are '
                "[dict(recorder='neck', data_idx=0), ...]."
            )
        predictions = self.connectors[_CONNECTOR](student)
        weights = self._level_weights(len(teacher))
        factor = 1.0 if self.warmup is None else self.warmup.factor()
        for i, (prediction, target) in enumerate(zip(predictions, teacher)):
            if prediction.shape != target.shape:
                ours = self._names(self.student_levels, from_student=True)[i]
                theirs = self._names(self.teacher_levels, from_student=False)[i]
                raise ValueError(
                    f'level {i}: the prediction has shape {tuple(prediction.shape)}, '
                    f"the teacher's feature {tuple(target.shape)} (student {ours!r}, "
                    f'teacher {theirs!r}). Set in the connector '
                    f'{_connector_advice(student, predictions, teacher)}.'
                )
            loss = self._compare(prediction, target)
            losses[f'loss_level{i}'] = factor * weights[i] * loss
        if self.warmup is not None:
            # Filled on the device, so that the log costs no synchronisation.
            losses['warmup'] = student[0].new_full((), factor)
        return losses

    def _compare(self, prediction: Tensor, target: Tensor) -> Tensor:
        if not self._shares:
            return self._level_loss(prediction, target)
        (prediction, target), scale = mask_padding([prediction, target], self._shares)
        return scale * self._level_loss(prediction, target)

    def _level_loss(self, prediction: Tensor, target: Tensor) -> Tensor:
        if self._loss_by_name:
            return self.level_loss(s_feature=prediction, t_feature=target)
        return self.level_loss(prediction, target)

    def _gather(self, levels: list[dict], from_student: bool) -> list[Tensor]:
        """Collect the features of all levels, shallow to deep."""
        features: list[Tensor] = []
        for level in levels:
            feature = read_level(self, level, from_student)
            maps = [feature] if isinstance(feature, Tensor) else list(feature)
            if len(maps) > 1 and _area(maps[0]) < _area(maps[-1]):
                maps.reverse()
            features += maps
        return features

    def _names(self, levels: list[dict], from_student: bool) -> list[str]:
        """Name what `_gather` collects, for messages."""
        names: list[str] = []
        for level in levels:
            feature = read_level(self, level, from_student)
            name, part = level['recorder'], level.get('data_idx')
            if part is not None:
                name += f'[{part}]'
            count = 1 if isinstance(feature, Tensor) else len(feature)
            own = [f'{name}[{i}]' for i in range(count)] if count > 1 else [name]
            if count > 1 and _area(feature[0]) < _area(feature[-1]):
                own.reverse()
            names += own
        return names

    def _level_weights(self, count: int) -> list[float]:
        if isinstance(self.loss_weight, float):
            return [self.loss_weight] * count
        if len(self.loss_weight) != count:
            raise ValueError(
                f'loss_weight has {len(self.loss_weight)} values for {count} levels; '
                'give one number or one for each level.'
            )
        return self.loss_weight


def _parse_loss_weight(loss_weight: float | Sequence[float]) -> float | list[float]:
    if isinstance(loss_weight, (int, float)):
        return float(loss_weight)
    if isinstance(loss_weight, Sequence) and not isinstance(loss_weight, str):
        return [float(weight) for weight in loss_weight]
    raise ValueError(
        f'loss_weight: got {loss_weight!r}; expected a number or one for each level.'
    )


def _area(feature: Tensor) -> int:
    return feature.shape[-2] * feature.shape[-1] if feature.dim() == 4 else 1


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
        text = f'`sizes={grids}` if all images have one size'
        if None not in scales:
            text = (
                f"`scales={scales}` (the teacher's sizes over the student's), or {text}"
            )
        else:
            text += (
                ', or pad the batches further (`pad_size_divisor` of the '
                "student's data_preprocessor), so that sizes are in proportion"
            )
        advice.append(text)
    return ' and '.join(advice)


def _scale(feature: Tensor, grid: tuple[int, ...]) -> float | None:
    """The power of two by which a feature becomes as large as the teacher's."""
    size = feature.shape[2:] if feature.dim() == 4 else (1, 1)
    for scale in (1, 2, 4, 8, 16, 0.5, 0.25, 0.125, 0.0625):
        # As connectors round.
        if tuple(max(1, int(n * scale + 0.5)) for n in size) == grid:
            return scale
    return None


def _shapes(features: Sequence[Tensor]) -> list[tuple[int, ...]]:
    return [tuple(feature.shape) for feature in features]


__all__ = ['ReviewDistiller']
