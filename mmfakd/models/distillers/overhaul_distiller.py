# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""OFD with the margins of named batch norms."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from mmrazor.models.distillers import OFDDistiller
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from mmfakd.messages import near_layers
from mmfakd.models.connectors.per_level import per_level
from mmfakd.registry import MODELS

from .level import LevelCfg
from .level_distiller import Connector, LevelDistiller

_MARGIN = {'type': 'mmrazor.OFDTeacherConnector'}


@MODELS.register_module()
class OverhaulDistiller(LevelDistiller, OFDDistiller):
    r"""OFD on features that need not be a batch norm's output.

    The teacher's feature before its activation is cut off below at a margin for each
    channel, the mean of its negative values as the batch norm with scale :math:`s`
    and shift :math:`m` before it tells:

    .. math::
        \mu = m - s \, \frac{\varphi(m / s)}{\Phi(-m / s)}, \qquad
        \mu = -3 s \ \text{ where } \ \Phi(-m / s) \le 10^{-3}

    with the normal distribution's density :math:`\varphi` and function :math:`\Phi`.
    mmrazor's ``OFDDistiller`` takes :math:`m, s` from the recorded module, which must
    be a batch norm. In a residual network the feature is a sum that enters an
    activation, and the margin is that of the last batch norm before the sum: here it
    is named.

    Margins are computed from the teacher as it is when the distiller meets it, and by
    ``FeatureDistill`` again at the first step, when all weights are loaded. They are
    buffers outside of the state dict.

    Source: *A Comprehensive Overhaul of Feature Distillation*, ICCV 2019
    (arXiv 1904.01866), section 3.

    Args:
        margins (Sequence[str]): The name of the teacher's batch norm for each level.
        teacher_levels (str | dict | Sequence[str | dict]): The teacher's levels, as
            in :class:`LevelDistiller`.
        teacher_connectors (dict | Sequence, optional): What the teacher's features
            pass before the margin, for example a pooling. Defaults to None.
        **kwargs: Other arguments of :class:`LevelDistiller`; the loss in general is
            ``mmrazor.OFDLoss``.

    Raises:
        ValueError: If there is not one margin for each level, or a named layer is no
            batch norm with scale and shift of the teacher.
    """

    def __init__(
        self,
        margins: Sequence[str],
        teacher_levels: LevelCfg | Sequence[LevelCfg],
        teacher_connectors: Mapping | Sequence[Connector | None] | None = None,
        **kwargs: Any,
    ) -> None:
        several = isinstance(teacher_levels, (list, tuple))
        count = len(teacher_levels) if several else 1
        names = isinstance(margins, (list, tuple)) and all(
            isinstance(name, str) for name in margins
        )
        if not names or len(margins) != count:
            raise ValueError(
                f'margins: got {margins!r} for {count} teacher levels; expected the '
                'name of one batch norm for each.'
            )
        owner = ('OverhaulDistiller', 'margins')
        rows = per_level(teacher_connectors, count, 'teacher_connectors', *owner)
        super().__init__(
            teacher_levels=teacher_levels,
            teacher_connectors=[
                [*([row] if isinstance(row, Mapping) else row or []), _MARGIN]
                for row in rows
            ],
            **kwargs,
        )
        self.margins = list(margins)
        for connector in self._margin_connectors():
            # A plain attribute in mmrazor, which stays behind in casts.
            del connector.margin
            connector.register_buffer('margin', None, persistent=False)

    def prepare_from_teacher(self, model: nn.Module) -> None:
        """Register the teacher's recorders and compute the margins.

        Args:
            model (nn.Module): The teacher.

        Raises:
            ValueError: If a named layer is no batch norm with scale and shift.
        """
        super().prepare_from_teacher(model)
        self.teacher_loaded(model)

    def teacher_loaded(self, teacher: nn.Module) -> None:
        """Compute the margins from the teacher's batch norms.

        Args:
            teacher (nn.Module): The teacher, with its weights.

        Raises:
            ValueError: If a named layer is no batch norm with scale and shift.
        """
        layers = dict(teacher.named_modules())
        for name, connector in zip(self.margins, self._margin_connectors()):
            layer = layers.get(name)
            if not isinstance(layer, _BatchNorm) or layer.weight is None:
                norms = [n for n, m in layers.items() if isinstance(m, _BatchNorm)]
                raise ValueError(
                    f'margins: {name!r} is no batch norm with scale and shift of the '
                    f'teacher ({type(teacher).__name__}). Nearest of its {len(norms)} '
                    f'batch norms: {near_layers(name, norms)}.'
                )
            connector.init_margin(self._get_margin_from_BN(layer))

    # As mmrazor's own algorithm of OFD calls it.
    init_ofd_connectors = teacher_loaded

    def _margin_connectors(self) -> list[Any]:
        """The last in each level's row of teacher connectors."""
        return [self.connectors[level.connector][-1] for level in self.teacher_levels]

    @torch.no_grad()
    def _get_margin_from_BN(self, bn: _BatchNorm) -> Tensor:
        # All channels at once; mmrazor's loop divides by a scale of zero.
        scale = bn.weight.double().abs()
        scale = scale.clamp_min(torch.finfo(scale.dtype).tiny)
        shift = bn.bias.double()
        ratio = shift / scale
        negative = torch.special.ndtr(-ratio)
        density = torch.exp(-ratio.square() / 2) / math.sqrt(2 * math.pi)
        margin = torch.where(
            negative > 1e-3, shift - scale * density / negative, -3 * scale
        )
        return margin.to(bn.weight.dtype)[None, :, None, None]
