# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""The distiller of a pair of models, method by method."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Union

from mmrazor.models.distillers import ConfigurableDistiller
from torch import nn

from mmfakd.messages import near_names, quoted
from mmfakd.models.distillers import ReviewDistiller, WarmupDistiller
from mmfakd.models.losses import FFTFeatureLoss, HierarchicalContextLoss
from mmfakd.models.losses.check_number import check_number
from mmfakd.pairing.filters import (
    MOST_MODES,
    plan_dense,
    plan_modes,
)
from mmfakd.pairing.methods import MOST_REVIEWKD_CHANNELS

from .call_warmup import CallWarmup
from .watched_model import MapInfo

# Method -> what it is.
METHODS = {
    'fakd-review': 'FAM-KD in the review pyramid (arXiv 2403.05894)',
    'fakd-layer': 'FAM-KD layer to layer (arXiv 2403.05894)',
    'reviewkd': 'ReviewKD (arXiv 2104.09044)',
    'fitnet': 'FitNet (arXiv 1412.6550): a 1x1 convolution for each level',
    'fft': "FitNet's convolutions and the focal frequency loss (arXiv 2012.12821)",
    'kd': 'KD (arXiv 1503.02531): the predictions alone',
}
LossWeight = Union[float, Sequence[float], str, Mapping[str, Any]]


@dataclass
class Method:
    """What a distiller is to be.

    Args:
        name (str): A key of :data:`METHODS`.
        loss_weight (float | Sequence[float] | str | Mapping): As for
            :class:`LevelDistiller`.
        level_loss (nn.Module, optional): The loss of a level. None: the method's.
        kd_weight (float): Weight of the loss on predictions.
        tau (float): Its temperature.
        warmup (int | Mapping, optional): As for :class:`CallWarmup`.
        any_size (bool): Whether inputs may have other sizes than the example.
        connector (Mapping, optional): Arguments of the connector to be other ones.

    Raises:
        ValueError: For an unknown name, bad numbers, and arguments without effect.
    """

    name: str
    loss_weight: LossWeight = 1.0
    level_loss: nn.Module | None = None
    kd_weight: float = 0.0
    tau: float = 1.0
    warmup: int | Mapping[str, float] | None = None
    any_size: bool = False
    connector: Mapping[str, Any] | None = None

    def __post_init__(self) -> None:
        if self.name not in METHODS:
            near = quoted(near_names(str(self.name), METHODS, 1))
            raise ValueError(
                f'method: got {self.name!r}; expected one of {quoted(METHODS)} '
                f'(nearest: {near}).'
            )
        if self.level_loss is not None and not isinstance(self.level_loss, nn.Module):
            raise ValueError(
                f'level_loss: got {self.level_loss!r}; expected a module that is '
                "called with the prediction and the teacher's feature, such as "
                'torch.nn.MSELoss().'
            )
        check_number('distill', 'kd_weight', self.kd_weight)
        check_number('distill', 'tau', self.tau, above_zero=True)
        if self.name == 'kd':
            check_number("distill, method='kd',", 'loss_weight', self.loss_weight)
        self._refuse_unused()

    def _refuse_unused(self) -> None:
        """Raise for arguments that would have no effect."""
        if not self.by_level:
            given = {
                'kd_weight': self.kd_weight or None,
                'connector': self.connector,
                'level_loss': self.level_loss,
            }
            unused = [name for name, value in given.items() if value is not None]
            cure = (
                'as it compares the predictions alone. Give their weight as '
                '`loss_weight`, leave out what is for levels, or take a method that '
                "compares levels, such as method='fakd-review'"
            )
        else:
            unused = ['tau'] if self.tau != 1 and not self.kd_weight else []
            cure = (
                'as kd_weight=0: it is the temperature of the predictions. Give a '
                '`kd_weight` above 0, or leave it out'
            )
        if unused:
            told = ', '.join(f'{name}={getattr(self, name)!r}' for name in unused)
            raise ValueError(
                f'distill: {told} has no effect with method={self.name!r}, {cure}.'
            )

    @property
    def by_level(self) -> bool:
        """bool: Whether it compares levels."""
        return self.name != 'kd'

    @property
    def kd(self) -> float:
        """float: The weight of the loss on predictions."""
        return self.kd_weight if self.by_level else float(self.loss_weight)  # type: ignore[arg-type]

    def build(
        self, ours: Sequence[MapInfo], theirs: Sequence[MapInfo]
    ) -> ConfigurableDistiller:
        """Build the distiller.

        Args:
            ours (Sequence[MapInfo]): The student's maps, shallow to deep.
            theirs (Sequence[MapInfo]): The teacher's.

        Returns:
            ConfigurableDistiller: It.
        """
        warmup = None if self.warmup is None else CallWarmup(self.warmup)
        if not self.by_level:
            if warmup is None:
                return ConfigurableDistiller(**self._kd_parts())
            distiller = WarmupDistiller(warmup=dict(end=1), **self._kd_parts())
            distiller.warmup = warmup
            return distiller
        level_loss = self.level_loss
        if level_loss is None and self.name in ('reviewkd', 'fft'):
            level_loss = (
                HierarchicalContextLoss()
                if self.name == 'reviewkd'
                else FFTFeatureLoss(focal_alpha=1.0)
            )
        students, teachers = _recorders(ours), _recorders(theirs)
        kd = self._kd_parts({*students, *teachers}) if self.kd else {}
        distiller = ReviewDistiller(
            student_levels=list(students),
            teacher_levels=list(teachers),
            connector=self._connector(ours, theirs),
            level_loss=level_loss,
            loss_weight=self.loss_weight,
            student_recorders={**students, **kd.pop('student_recorders', {})},
            teacher_recorders={**teachers, **kd.pop('teacher_recorders', {})},
            **kd,
        )
        if warmup is not None:
            distiller.warmup = warmup
        return distiller

    def _kd_parts(self, taken: Collection[str] = ()) -> dict[str, Any]:
        """The loss on what the models return, under a name that no level has."""
        name = 'logits'
        while name in taken:
            name += ' of the model'
        recorder = dict(type='mmrazor.ModuleOutputs', source='output')
        loss = dict(type='mmrazor.KLDivergence', tau=self.tau, loss_weight=self.kd)
        both = dict(
            preds_S=dict(recorder=name, from_student=True),
            preds_T=dict(recorder=name, from_student=False),
        )
        return dict(
            student_recorders={name: recorder},
            teacher_recorders={name: recorder},
            distill_losses=dict(loss_kd=loss),
            loss_forward_mappings=dict(loss_kd=both),
        )

    def _connector(
        self, ours: Sequence[MapInfo], theirs: Sequence[MapInfo]
    ) -> dict[str, Any]:
        cfg: dict[str, Any] = dict(
            type='mmfakd.ReviewConnector',
            in_channels=[info.channels for info in ours],
            out_channels=[info.channels for info in theirs],
        )
        if not self.any_size:
            cfg['sizes'] = [info.size for info in theirs]
        if self.name == 'fakd-review':
            # Even, for the cross attention.
            mid = [info.channels + info.channels % 2 for info in ours]
            filters = [self._filter(*pair) for pair in zip(mid, theirs)]
            cfg['mid_channels'] = mid
            cfg['transform'] = [
                dict(type='mmfakd.FrequencyAttention', **planned) for planned in filters
            ]
            if not all(info.non_negative for info in theirs):
                cfg['act_cfg'] = None
        elif self.name == 'reviewkd':
            cfg.update(
                mid_channels=min(ours[-1].channels, MOST_REVIEWKD_CHANNELS),
                fusion=dict(type='mmfakd.AttentionBasedFusion'),
                transform=dict(type='mmfakd.ConvTransform'),
                always_match=True,
                match_act_cfg=None,
                act_cfg=None,
            )
        else:
            cfg['type'] = 'mmfakd.LayerwiseConnector'
            cfg['connector'] = self._level_connector(ours, theirs)
        return {**cfg, **(self.connector or {})}

    def _level_connector(
        self, ours: Sequence[MapInfo], theirs: Sequence[MapInfo]
    ) -> dict[str, Any] | list[dict[str, Any]]:
        kind = 'mmfakd.FrequencyAttentionConnector'
        if self.name != 'fakd-layer':
            modes = dict(modes=1) if self.any_size else {}
            return dict(type=kind, with_global=False, **modes)
        filters = [self._filter(o.channels, t) for o, t in zip(ours, theirs)]
        # As published, without a high pass.
        return [dict(type=kind, **planned, high_pass=0) for planned in filters]

    def _filter(self, channels: int, info: MapInfo) -> dict[str, Any]:
        """How large the filter of a level is to be."""
        if not self.any_size:
            return plan_dense(channels, info.channels, info.size)
        mixed = self.name == 'fakd-layer'
        planned = plan_modes(channels, info.channels, min(info.size), mixed)
        if min(info.size) < 2 <= max(info.size):
            # A sequence.
            planned['modes'] = tuple(min(MOST_MODES, n) for n in info.size)
        return planned


def _recorders(infos: Sequence[MapInfo]) -> dict[str, dict[str, str]]:
    """Recorders that are filled by hand, under names that all differ."""
    recorders: dict[str, dict[str, str]] = {}
    for info in infos:
        title = info.layer.title
        name = f'{title} ({len(recorders)})' if title in recorders else title
        recorders[name] = dict(type='mmrazor.ModuleOutputs', source=info.layer.name)
    return recorders
