# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""Losses of logits on maps of logits, whose sizes may differ."""

from __future__ import annotations

from collections.abc import Sequence
from inspect import Parameter, signature
from typing import Any

import torch
from mmrazor.models import losses as razor
from torch import Tensor, nn

from mmfakd.ops.determinism import resize_bilinear
from mmfakd.registry import MODELS

from .build_loss import build_loss
from .check_number import check_number
from .mean_over import BATCH, IMAGES, PIXELS, mean_over

# They see nothing in a single pixel, or cannot be computed on one.
_OF_MAPS = (
    razor.ATLoss,
    razor.ChannelWiseDivergence,
    razor.FTLoss,
    razor.MGDLoss,
    razor.PKDLoss,
)
_BY_NAME = (Parameter.POSITIONAL_ONLY, Parameter.POSITIONAL_OR_KEYWORD)
_SIZES = ('teacher', 'student', 'smaller')


@MODELS.register_module()
class LogitMapLoss(nn.Module):
    r"""A loss of mmrazor's on the maps of logits of two segmentors.

    .. math::
        L = \lambda \, d\big(R(S), R(T)\big)

    with the loss :math:`d` and :math:`R`, which resizes the map that has another size
    (bilinear). With ``per_pixel`` each pixel is a sample, (N, C, H, W) becoming
    (N H W, C), so that a mean over the batch is one over all pixels:
    ``mmrazor.KLDivergence`` alone sums over the pixels of an image.

    Source: *Channel-wise Knowledge Distillation for Dense Prediction* (arXiv
    2011.13256) and *Structured Knowledge Distillation for Dense Prediction* (arXiv
    1903.04197), the pixel-wise term, for the losses; mmrazor 1.0.0 for their code.

    Args:
        loss (dict): Config of a loss that takes ``preds_S`` and ``preds_T``, for
            example ``dict(type='mmrazor.ChannelWiseDivergence', tau=1)``.
        per_pixel (bool): Whether pixels count as samples. Defaults to False.
        size (str): Whose size both get: ``'teacher'``, ``'student'`` or
            ``'smaller'``, that of the smaller map. Defaults to ``'teacher'``.
        loss_weight (float): Factor of the loss. Defaults to 1.0.

    Shapes:
        - s_feature: (N, C, Hs, Ws).
        - t_feature: (N, C, Ht, Wt).
        - Output: scalar.

    Raises:
        ValueError: For an unknown ``size``, a negative weight, a loss that takes more
            than two maps, or one per pixel that compares whole maps; in ``forward`` for
            maps of other classes, features that are no maps, or a loss per pixel of
            maps with one channel.
    """

    # LevelDistiller need not refuse maps of two sizes.
    resizes = True

    def __init__(
        self,
        loss: dict[str, Any],
        per_pixel: bool = False,
        size: str = 'teacher',
        loss_weight: float = 1.0,
    ) -> None:
        super().__init__()
        if size not in _SIZES:
            raise ValueError(f'LogitMapLoss: size={size!r}; expected one of {_SIZES}.')
        check_number('LogitMapLoss', 'loss_weight', loss_weight)
        self.loss = build_loss('LogitMapLoss', loss)
        own = getattr(self.loss, 'loss_weight', 1.0)
        check_number(type(self.loss).__name__, 'loss_weight', own)
        _check_loss(self.loss, per_pixel)
        self.per_pixel, self.size, self.loss_weight = per_pixel, size, loss_weight

    @property
    def mean_over(self) -> str | None:
        """What it is a mean over, see :func:`.mean_over.mean_over` (str, optional)."""
        rule = mean_over(self.loss)
        # Pixels are samples, whose order does not matter.
        return BATCH if self.per_pixel and rule in (PIXELS, IMAGES) else rule

    def forward(self, s_feature: Tensor, t_feature: Tensor) -> Tensor:
        """Compute the weighted loss.

        Args:
            s_feature (Tensor): The student's logits, (N, C, Hs, Ws).
            t_feature (Tensor): The teacher's logits, (N, C, Ht, Wt).

        Returns:
            Tensor: Scalar.

        Raises:
            ValueError: For maps of other classes, features that are no maps, or a
                loss per pixel of maps with one channel.
        """
        self._check(s_feature, t_feature)
        ours, theirs = s_feature.shape[-2:], t_feature.shape[-2:]
        smaller = min(ours, theirs, key=torch.Size.numel)
        sizes = dict(teacher=theirs, student=ours, smaller=smaller)
        maps = [_resized(f, sizes[self.size]) for f in (s_feature, t_feature)]
        if self.per_pixel:
            maps = [f.permute(0, 2, 3, 1).flatten(0, 2) for f in maps]
        return self.loss_weight * self.loss(*maps)

    def _check(self, ours: Tensor, theirs: Tensor) -> None:
        shapes = f'the student has {tuple(ours.shape)}, the teacher'
        shapes += f' {tuple(theirs.shape)}'
        if not ours.dim() == theirs.dim() == 4:
            raise ValueError(
                f'LogitMapLoss compares maps (N, C, H, W); {shapes}. Record the layer '
                'that yields the logits, such as decode_head.conv_seg.'
            )
        if ours.size(1) != theirs.size(1):
            raise ValueError(
                f'LogitMapLoss compares class with class; {shapes}. Take a teacher of '
                "the student's classes, or distil features, which have none."
            )
        if self.per_pixel and ours.size(1) == 1:
            raise ValueError(
                f'LogitMapLoss: {shapes}, and over one channel a softmax is 1 in every '
                'pixel, so nothing is learned. Give per_pixel=False and '
                "loss=dict(type='mmrazor.ChannelWiseDivergence'), which compares the "
                'pixels of a channel.'
            )


def _check_loss(loss: nn.Module, per_pixel: bool) -> None:
    """Raise for a loss that cannot have what it is to get."""
    name, parameters = type(loss).__name__, signature(loss.forward).parameters.values()
    needed = [p.name for p in parameters if p.default is p.empty and p.kind in _BY_NAME]
    if len(needed) > 2:
        raise ValueError(
            f'LogitMapLoss: {name} needs {", ".join(needed)}; expected a loss of two '
            "maps of logits alone, such as dict(type='mmrazor.KLDivergence')."
        )
    if per_pixel and isinstance(loss, _OF_MAPS):
        raise ValueError(
            f'LogitMapLoss: {name} compares whole maps, of which per_pixel=True leaves '
            'single pixels. Leave `per_pixel` out, or take a loss of samples, such as '
            "dict(type='mmrazor.KLDivergence')."
        )


def _resized(feature: Tensor, size: Sequence[int]) -> Tensor:
    """A map in a size, contiguous, as mmrazor's losses view it."""
    if feature.shape[-2:] != size:
        feature = resize_bilinear(feature, size)
    return feature.contiguous()
