# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""Any loss of logits on logits with zero mean and unit deviation."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from mmfakd.registry import MODELS

from .build_loss import build_loss
from .check_number import check_number

# Of a head that begins at zero, as mmpretrain's of a ViT, the deviation is 0, and
# gradients were 1 / eps, which no optimizer forgets. Other heads begin above this.
LEAST = 0.05


def standardize_logits(logits: Tensor, eps: float = 1e-7) -> Tensor:
    r"""Bring the logits of each image to zero mean and unit deviation.

    .. math::
        z_i = \frac{x_i - \bar x}{\sigma(x) + \epsilon}

    with the sample standard deviation over the classes, or 0.05 where that is less. A
    student then has to match the order of the teacher's logits and the distances
    between them, not their scale.

    Source: *Logit Standardization in Knowledge Distillation* (arXiv 2403.01427),
    algorithm 1, which has no least deviation.

    Args:
        logits (Tensor): (N, C).
        eps (float): Added to the deviation. Defaults to 1e-7, the published value.

    Returns:
        Tensor: (N, C).
    """
    variance, mean = torch.var_mean(logits, 1, keepdim=True)
    deviation = variance.clamp(min=LEAST**2).sqrt()
    return (logits - mean) / (deviation + eps)


@MODELS.register_module()
class StandardizedLogitsLoss(nn.Module):
    """A loss of logits, applied to standardised ones (:func:`standardize_logits`).

    The published settings: ``mmrazor.KLDivergence`` with ``tau=2, loss_weight=9`` in
    place of ``tau=4, loss_weight=0.9``, and 0.1 for the labels.

    Args:
        loss (dict): Config of the loss. Its ``forward`` takes the student's logits, the
            teacher's, and the labels where it needs them, in this order.
        eps (float): Added to the deviation. Defaults to 1e-7.

    Shapes:
        - preds_S, preds_T: (N, C).
        - gt_labels: as the loss takes them.
        - Output: scalar.

    Raises:
        ValueError: At construction for an ``eps`` that is negative or no finite number;
            in ``forward`` for logits that are no (N, C) or a single class.
    """

    def __init__(self, loss: dict[str, Any], eps: float = 1e-7) -> None:
        super().__init__()
        check_number('StandardizedLogitsLoss', 'eps', eps)
        self.loss = build_loss('StandardizedLogitsLoss', loss)
        self.eps = eps

    def forward(
        self, preds_S: Tensor, preds_T: Tensor, gt_labels: Tensor | None = None
    ) -> Tensor:
        """Compute the loss.

        Args:
            preds_S (Tensor): The student's logits, (N, C).
            preds_T (Tensor): The teacher's logits, (N, C).
            gt_labels (Tensor, optional): Labels, for a loss that takes them.

        Returns:
            Tensor: Scalar.

        Raises:
            ValueError: For logits that are no (N, C) or a single class.
        """
        for name, logits in (('student', preds_S), ('teacher', preds_T)):
            if logits.dim() != 2 or logits.size(1) < 2:
                raise ValueError(
                    f'StandardizedLogitsLoss got {tuple(logits.shape)} from the '
                    f'{name}; expected logits (N, C) of two classes or more. Record '
                    'the layer that yields them, such as head.fc.'
                )
        preds = (standardize_logits(p, self.eps) for p in (preds_S, preds_T))
        return self.loss(*preds, *(() if gt_labels is None else (gt_labels,)))
