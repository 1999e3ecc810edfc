# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""One loss for each pair of levels."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from inspect import signature
from typing import Any, Union

import torch
from mmrazor.models.distillers import ConfigurableDistiller
from torch import Tensor, nn

from mmfakd.models.connectors.per_level import per_level
from mmfakd.registry import MODELS

from .any_distiller import is_level
from .balanced_weights import BalancedWeights
from .check_layer_names import check_layer_names
from .level import Level, LevelCfg, parse_levels
from .valid_area import (
    Share,
    check_shapes,
    refuse_unmaskable,
    tell_stale,
    valid_shares,
    without_padding,
)
from .warmup import Warmup

# For messages about arguments with one value for each level.
_OWNER = ('LevelDistiller', 'student_levels')
# A config, or a list of them for modules in a row.
Connector = Union[Mapping[str, Any], Sequence[Mapping[str, Any]]]


@MODELS.register_module()
class LevelDistiller(ConfigurableDistiller):
    r"""Distillation level by level, with one loss and its connectors for each.

    .. math::
        \mathcal{L} = w(t) \sum_l \lambda_l \,
        d_l\big(c^S_l(F^S_l), c^T_l(F^T_l)\big)

    with the features :math:`F^S_l, F^T_l` of a level, connectors :math:`c^S_l, c^T_l`
    where given, the loss :math:`d_l`, its weight :math:`\lambda_l` and the factor
    :math:`w` of :class:`Warmup`. It says in a few lines what
    ``ConfigurableDistiller`` asks for as recorders, connectors, losses and mappings
    under matching names, which still work beside it. AT and FitNet are of this form.

    Args:
        student_levels (str | dict | Sequence[str | dict]): The student's levels,
            shallow to deep; each records one tensor. A level is a module name, for
            which a ``ModuleOutputs`` recorder is made, or
            ``dict(recorder=..., record_idx=0, data_idx=None, tokens=None)``, whose
            recorder is a module name too, a name in ``student_recorders`` or the
            config of a recorder: what enters the second call of an activation is
            ``dict(recorder=dict(type='mmrazor.ModuleInputs', source='layer1.2.relu'),
            record_idx=1, data_idx=0)``. ``tokens`` makes a map of a transformer's
            tokens, see :class:`TokenMap`: that of a ViT's block is
            ``dict(recorder='backbone.layers.5', tokens=dict(prefix=1))``. Where a
            record holds their grid, as a Swin stage's does, it needs none.
        teacher_levels (str | dict | Sequence[str | dict]): The same of the teacher.
        level_loss (dict | Sequence[dict], optional): Config of the loss of every
            level, or one for each; it is called with ``s_feature`` and ``t_feature``,
            or, where these are not its names, with the student's feature before the
            teacher's. None is for subclasses that compare the levels themselves.
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
        loss_weight (float | Sequence[float] | dict): Weight of every level, or one
            for each; or ``dict(type='balance', ratio=..., iters=...)``, by which the
            first iterations find it, see :class:`BalancedWeights`. This needs
            :class:`FeatureDistill` and a student with a loss of its own. Defaults to
            1.0.
        warmup (dict, optional): ``dict(by_epoch=True, begin=0, end=20)``: the
            weight of the levels grows linearly to its full value at ``end``. With
            ``by_epoch=False`` it counts iterations, which an iteration based loop
            needs, as its epoch stays 0. Defaults to None, no warm-up.
        ignore_padding (bool): Whether the level losses count only what the images of
            a batch cover, not what they were padded with. A mean over pixels becomes
            one over theirs; a loss of whole images, as CWD is, is computed on the
            crop of each. One of your own says by its attribute ``mean_over`` which it
            is, see :func:`mmfakd.models.losses.mean_over.mean_over`. This needs
            :class:`FeatureDistill` and data samples with ``img_shape``, as mmdet's.
            What a ``Pad`` of the pipeline adds counts as image: let the data
            preprocessor pad. Batches whose ``img_shape`` is not that of their images
            count as a whole, which a warning tells. Defaults to False, as published.
        **kwargs: Other arguments of ``ConfigurableDistiller``.

    Shapes:
        The loss gets features of equal number and size, (N, Cs, H, W) and
        (N, Ct, H, W); whether channels must agree is up to it.

    Raises:
        ValueError: For unknown layer names (near matches are listed), sequences of
            different lengths, a level that is none, names that are taken, bad weights
            or a bad warm-up, and with ``ignore_padding`` for a level loss of which it
            is not known how to leave padding out; at the first step for tokens that
            make no map and features whose shapes disagree.
    """

    def __init__(
        self,
        student_levels: LevelCfg | Sequence[LevelCfg],
        teacher_levels: LevelCfg | Sequence[LevelCfg],
        level_loss: Mapping | Sequence[Mapping] | None,
        student_connectors: Mapping | Sequence[Connector | None] | None = None,
        teacher_connectors: Mapping | Sequence[Connector | None] | None = None,
        student_recorders: dict | None = None,
        teacher_recorders: dict | None = None,
        connectors: dict | None = None,
        distill_losses: dict | None = None,
        loss_weight: float | Sequence[float] | Mapping | str = 1.0,
        warmup: dict | None = None,
        ignore_padding: bool = False,
        **kwargs: Any,
    ) -> None:
        student_recorders = dict(student_recorders or {})
        teacher_recorders = dict(teacher_recorders or {})
        student = parse_levels(student_levels, student_recorders, 'student')
        teacher = parse_levels(teacher_levels, teacher_recorders, 'teacher')
        count = len(student)
        if level_loss is not None and len(teacher) != count:
            raise ValueError(
                f'{count} student levels stand against {len(teacher)} teacher levels; '
                'give as many `teacher_levels` as `student_levels`.'
            )
        own_connectors = {
            **_connect(student, student_connectors, 'student'),
            **_connect(teacher, teacher_connectors, 'teacher'),
        }
        own_losses = self._named_losses(level_loss, count)
        super().__init__(
            student_recorders=student_recorders,
            teacher_recorders=teacher_recorders,
            connectors=join_parts('connectors', own_connectors, connectors),
            distill_losses=join_parts('distill_losses', own_losses, distill_losses),
            **kwargs,
        )
        self.student_levels, self.teacher_levels = student, teacher
        self.loss_weight: Any = loss_weight
        if isinstance(loss_weight, (str, Mapping)):
            self.loss_weight = BalancedWeights(loss_weight, self._count_levels())
        else:
            _check_weights(loss_weight)
        # Where weights are measured: the student's loss, its parameters, all models.
        self._own: tuple[Tensor, list[nn.Parameter], list[nn.Module]] | None = None
        self.warmup = None if warmup is None else Warmup(warmup)
        self.ignore_padding = ignore_padding
        self._check_losses(*(self.distill_losses[name] for name in own_losses))
        self._shares: list[Share] = []
        self._shapes_known: bool | None = None
        self._stale_told = False
        # The losses of this step: of mappings, and of levels with their weights.
        self._full: tuple[dict[str, Tensor], list[tuple[Tensor, float]]] = {}, []

    @classmethod
    def _named_losses(cls, level_loss: Any, count: int) -> dict[str, Any]:
        """Configs of the losses of levels, by their names."""
        losses = per_level(level_loss, count, 'level_loss', *_OWNER)
        named = {f'loss_level{i}': c for i, c in enumerate(losses) if c is not None}
        configs = all(isinstance(cfg, Mapping) for cfg in named.values())
        own = cls._loss_of is LevelDistiller._loss_of
        if not configs or (own and len(named) < count):
            raise ValueError(
                f'level_loss: got {level_loss!r}; expected the config of a loss for '
                f'each of {count} levels, or one for all, for example '
                "dict(type='mmfakd.FFTFeatureLoss')."
            )
        return named

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

    def teacher_loaded(self, teacher: nn.Module) -> None:
        """Take what follows from the teacher's weights; called once they are loaded.

        Args:
            teacher (nn.Module): The teacher.
        """

    def begin_step(self, inputs: Tensor, data_samples: Sequence | None) -> None:
        """Note which part of the batch is padding; called in each step.

        Args:
            inputs (Tensor): The student's batch (N, C, H, W).
            data_samples (Sequence, optional): Its data samples.
        """
        if self.ignore_padding:
            # Told once.
            if self._shapes_known is None:
                self._shapes_known = check_shapes(data_samples)
            self._stale_told = self._stale_told or tell_stale(data_samples)
            self._shares = valid_shares(inputs, data_samples)

    @property
    def measures(self) -> bool:
        """Whether this step finds weights and needs the student's loss (bool)."""
        weights = self.loss_weight
        return (
            isinstance(weights, BalancedWeights)
            and self.training
            and torch.is_grad_enabled()
            and not weights.fixed
        )

    def take_own_loss(
        self,
        own: Tensor,
        parameters: Iterable[nn.Parameter],
        modules: Sequence[nn.Module] = (),
    ) -> None:
        """Take what the levels' gradients are measured against, for this step.

        Args:
            own (Tensor): The student's own loss, a scalar.
            parameters (Iterable[nn.Parameter]): The student's.
            modules (Sequence[nn.Module]): The models in the graph.
        """
        self._own = own, list(parameters), list(modules)

    def forget_step(self) -> None:
        """Let the graph of the step go; called at its end."""
        self._own = None
        self._full = {}, []

    @property
    def full_losses(self) -> dict[str, Tensor]:
        """The losses of this step at full weight, without the warm-up (dict)."""
        others, levels = self._full
        full = {f'loss_level{i}': w * loss for i, (loss, w) in enumerate(levels)}
        return {**others, **full}

    def level_weights(self, levels: int) -> list[float]:
        """Tell the present weight of each level, without the warm-up.

        Args:
            levels (int): Number of levels.

        Returns:
            list[float]: The weights, shallow to deep.

        Raises:
            ValueError: If there are weights for another number of levels.
        """
        weights = self.loss_weight
        if isinstance(weights, BalancedWeights):
            weights = weights.values()
        return per_level(weights, levels, 'loss_weight', *_OWNER)

    def compute_distill_losses(self) -> dict[str, Tensor]:
        """Compute the losses of all levels and of the mappings.

        Returns:
            dict[str, Tensor]: ``loss_level{i}`` for every level, shallow to deep,
            scalars; the losses of ``loss_forward_mappings``; with a warm-up, its
            present factor as ``warmup``; and the weights as ``weight_level{i}``
            while they are measured.

        Raises:
            ValueError: If a level has no tensor, or its two features cannot be
                compared.
            RuntimeError: If weights are to be measured, or padding is to be ignored,
                and cannot be.
        """
        if self.ignore_padding and self._shapes_known is None:
            raise RuntimeError(
                'ignore_padding=True needs to know the sizes of the images, which only '
                'mmfakd.FeatureDistill hands to its distiller: take it in place of '
                "mmrazor's algorithm, or leave `ignore_padding` out."
            )
        losses = super().compute_distill_losses()
        others = dict(losses)
        levels = [
            self._level_loss(i, *pair) for i, pair in enumerate(self.level_pairs())
        ]
        # MMEngine takes a loss that has a value for each image, or pixel, as its mean.
        levels = [loss.mean() if loss.dim() else loss for loss in levels]
        if self.measures:
            self._measure(levels)
            for i, weight in enumerate(self.level_weights(len(levels))):
                losses[f'weight_level{i}'] = levels[i].new_full((), weight)
        weights = self.level_weights(len(levels))
        factor = 1.0 if self.warmup is None else self.warmup.factor()
        self._full = others, list(zip(levels, weights))
        for i, (loss, weight) in enumerate(zip(levels, weights)):
            scale = factor * weight
            losses[f'loss_level{i}'] = loss if scale == 1 else scale * loss
        if self.warmup is not None:
            self.warmup.report(losses, factor)
        return losses

    def level_pairs(self) -> Sequence[Sequence[Tensor]]:
        """Read what the level losses compare; it runs the connectors.

        Returns:
            Sequence[Sequence[Tensor]]: For each level, shallow to deep, what is
            predicted of the student and the teacher's feature.

        Raises:
            ValueError: If a level has no tensor, or its two features cannot be
                compared.
        """
        pairs: list[Any] = []
        for i, levels in enumerate(zip(self.student_levels, self.teacher_levels)):
            ours, theirs = (level.read(self) for level in levels)
            resizes = getattr(self._loss_of(i), 'resizes', False)
            _check(i, ours, theirs, any_size=resizes)
            pairs.append((ours, theirs))
        return pairs

    def _measure(self, levels: list[Tensor]) -> None:
        """Measure the gradients of levels against the student's own."""
        if self._own is None:
            raise RuntimeError(
                "loss_weight of type 'balance' needs the student's own loss, which "
                'only mmfakd.FeatureDistill hands to its distiller: take it in place '
                "of mmrazor's algorithm, or give weights as numbers."
            )
        own, parameters, modules = self._own
        names = [f'level {i}' for i in range(len(levels))]
        if len(levels) == len(self.student_levels):
            recorded = (level.recorder for level in self.student_levels)
            names = [f'{name} ({layer!r})' for name, layer in zip(names, recorded)]
        self.loss_weight.measure(own, levels, parameters, modules, names)

    def _load_from_state_dict(self, state_dict: dict, prefix: str, *args: Any) -> None:
        if not isinstance(self.loss_weight, BalancedWeights):
            # Of a training whose weights were measured, and now are given.
            start = f'{prefix}loss_weight.'
            for key in [key for key in state_dict if key.startswith(start)]:
                state_dict.pop(key)
        super()._load_from_state_dict(state_dict, prefix, *args)

    def _count_levels(self) -> int:
        return len(self.student_levels)

    def _level_loss(self, level: int, prediction: Tensor, target: Tensor) -> Tensor:
        # A vector has no padding.
        if not self._shares or prediction.dim() != 4:
            return self._compare(prediction, target, level)
        return without_padding(
            self._loss_of(level),
            partial(self._compare, level=level),
            [prediction, target],
            self._shares,
        )

    def _check_losses(self, *losses: nn.Module) -> None:
        """Raise if padding is to be left out of a loss and cannot be."""
        for loss in losses if self.ignore_padding else ():
            refuse_unmaskable(loss)

    def _loss_of(self, level: int) -> nn.Module:
        return self.distill_losses[f'loss_level{level}']

    def _compare(self, prediction: Tensor, target: Tensor, level: int = 0) -> Tensor:
        loss = self._loss_of(level)
        try:
            if {'s_feature', 't_feature'} <= set(signature(loss.forward).parameters):
                return loss(s_feature=prediction, t_feature=target)
            # All of mmrazor's losses on two features have them in this order.
            return loss(prediction, target)
        except RuntimeError as error:
            if prediction.shape == target.shape:
                raise
            raise ValueError(
                f'level {level}: {type(loss).__name__} cannot compare features of '
                f'shapes {tuple(prediction.shape)} and {tuple(target.shape)}. Bring '
                "the student's to the teacher's channels with `student_connectors`."
            ) from error


def _connect(levels: list[Level], given: Any, role: str) -> dict[str, Any]:
    """Give levels their connectors, by name; what they are built of is returned."""
    named = {}
    rows = per_level(given, len(levels), f'{role}_connectors', *_OWNER)
    for i, row in enumerate(rows):
        if row is not None:
            _check_row(row, f'{role}_connectors')
            named[f'{role}{i}'] = list(row) if isinstance(row, tuple) else row
            levels[i] = replace(levels[i], connector=f'{role}{i}')
    return named


def _check_row(row: Any, name: str) -> None:
    """Raise unless these are connectors of a level: one config, or several."""
    parts = row if isinstance(row, (list, tuple)) else [row]
    if not all(isinstance(part, Mapping) for part in parts):
        raise ValueError(
            f'{name}: got {row!r} for a level; expected a config, dict(type=...), or a '
            'list of them for modules in a row.'
        )


def _check_weights(loss_weight: Any) -> None:
    """Raise unless all weights are numbers of 0 or more."""
    several = isinstance(loss_weight, (list, tuple))
    if several and not loss_weight:
        raise ValueError(
            f'loss_weight: got {loss_weight!r}; expected a number or one for each '
            'level.'
        )
    for weight in loss_weight if several else [loss_weight]:
        if not isinstance(weight, (int, float)) or not 0 <= weight < math.inf:
            raise ValueError(
                f'loss_weight: got {loss_weight!r}; expected a number or one for each '
                'level, none below 0: a negative weight would drive the student away '
                'from the teacher.'
            )


def join_parts(name: str, own: dict, given: dict | None) -> dict:
    """Join the configs of the levels with others, whose names must differ.

    Args:
        name (str): The argument's name, for the message.
        own (dict): Those of the levels.
        given (dict, optional): The others.

    Returns:
        dict: Both.

    Raises:
        ValueError: If a name stands in both, or is that of a level's loss.
    """
    taken = sorted(n for n in given or {} if n in own or is_level(n))
    if taken:
        raise ValueError(f'{name}: {taken} are kept for the levels; rename yours.')
    return {**own, **(given or {})}


def _check(level: int, s_feature: Any, t_feature: Any, any_size: bool = False) -> None:
    """Raise unless a level has two tensors of one number and size."""
    for role, feature in (('student', s_feature), ('teacher', t_feature)):
        if not isinstance(feature, Tensor):
            raise ValueError(
                f"level {level}: the {role}'s record is a {type(feature).__name__}; "
                'expected a tensor. Choose one part of it with `data_idx`.'
            )
    ours, theirs = (f.shape[:1] + f.shape[2:] for f in (s_feature, t_feature))
    if ours != theirs and not any_size:
        raise ValueError(
            f"level {level}: the student's feature has shape {tuple(s_feature.shape)}, "
            f"the teacher's {tuple(t_feature.shape)}. Bring them to one size with "
            '`student_connectors` or `teacher_connectors`: '
            '`mmfakd.FrequencyAttentionConnector` resizes to its `size` or by its '
            '`scale`, '
            "dict(type='mmrazor.TorchNNConnector', module_name='AvgPool2d', "
            'module_args=dict(kernel_size=2)) pools.'
        )
