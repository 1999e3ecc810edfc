# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""Normalised knowledge distillation."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmfakd.registry import MODELS

from .check_number import check_number

# The class of images that PyTorch's cross entropy skips.
IGNORED = -100


def nkd_loss(
    preds_s: Tensor, preds_t: Tensor, labels: Tensor, tau: float, gamma: float
) -> Tensor:
    r"""Cross entropy with the teacher, split into the label's class and the others.

    .. math::
        L = -\frac{1}{N} \sum_n \Big( T_y \log S_y
            + \gamma \tau^2 \sum_{i \ne y} \hat T_i \log \hat S_i \Big)

    with :math:`S, T` the softmax of all classes and :math:`\hat S, \hat T` that of the
    classes other than the label :math:`y` at temperature :math:`\tau`: both
    distributions sum to one, unlike the remainders of :math:`S` and :math:`T`.

    Source: *From Knowledge Distillation to Self-Knowledge Distillation: A Unified
    Approach with Normalized Loss and Customized Soft Labels* (arXiv 2303.13005),
    equation 6.

    Args:
        preds_s (Tensor): The student's logits, (N, C).
        preds_t (Tensor): The teacher's logits, (N, C).
        labels (Tensor): Classes of the images, (N,), integers. Images of class -100,
            which PyTorch's cross entropy skips, do not count; N are the others.
        tau (float): Temperature of the other classes.
        gamma (float): Their weight.

    Returns:
        Tensor: Scalar; 0 if no image counts.
    """
    counts = labels != IGNORED
    labels = labels.masked_fill(~counts, 0)[:, None]
    # By factors, exactly 1 where all images count, instead of picking those that do:
    # how many they are is known to the device alone.
    factors = counts * len(labels) / counts.sum().clamp(min=1)
    factors = factors[:, None].to(preds_s.dtype)
    ours, theirs = preds_s.log_softmax(1), preds_t.softmax(1)
    target = -(theirs.gather(1, labels) * ours.gather(1, labels) * factors).mean()
    others = torch.arange(preds_s.size(1) - 1, device=labels.device)
    others = others + (others >= labels)
    ours, theirs = (p.gather(1, others) / tau for p in (preds_s, preds_t))
    others_loss = F.cross_entropy(ours, theirs.softmax(1) * factors)
    return target + gamma * tau**2 * others_loss


@MODELS.register_module()
class NKDLoss(nn.Module):
    r"""Normalised knowledge distillation, see :func:`nkd_loss`.

    It needs the labels, which a recorder takes from what enters the student's loss
    (``configs/_base_/distillers/nkd.py``). Images of several classes, as mixup makes
    them, are refused by :class:`FeatureDistill`.

    Args:
        tau (float): Temperature of the classes other than the label's. Defaults to
            1.0, the published value.
        gamma (float): Their weight. Defaults to 1.5, the published value.
        loss_weight (float): Factor of the whole. Defaults to 1.0.

    Shapes:
        - preds_S, preds_T: (N, C).
        - gt_labels: (N,), or (N, C) with the largest entry at the label. Images of
          label -100 do not count, as in PyTorch's cross entropy.
        - Output: scalar.

    Raises:
        ValueError: For a negative weight or a temperature that is not above zero; in
            ``forward`` for logits of different shapes or fewer than three classes.
    """

    def __init__(
        self, tau: float = 1.0, gamma: float = 1.5, loss_weight: float = 1.0
    ) -> None:
        super().__init__()
        check_number('NKDLoss', 'tau', tau, above_zero=True)
        check_number('NKDLoss', 'gamma', gamma)
        check_number('NKDLoss', 'loss_weight', loss_weight)
        self.tau, self.gamma, self.loss_weight = tau, gamma, loss_weight

    def forward(self, preds_S: Tensor, preds_T: Tensor, gt_labels: Tensor) -> Tensor:
        """Compute the weighted loss.

        Args:
            preds_S (Tensor): The student's logits, (N, C).
            preds_T (Tensor): The teacher's logits, (N, C).
            gt_labels (Tensor): Labels, (N,) or (N, C).

        Returns:
            Tensor: Scalar.

        Raises:
            ValueError: For logits of different shapes or fewer than three classes, and
                labels of another shape.
        """
        if preds_S.shape != preds_T.shape or preds_S.dim() != 2:
            raise ValueError(
                'NKDLoss compares logits (N, C) class by class; the student has '
                f'{tuple(preds_S.shape)}, the teacher {tuple(preds_T.shape)}. Record '
                "the layers that yield the logits, and take a teacher of the student's "
                'classes.'
            )
        if preds_S.size(1) < 3:
            raise ValueError(
                f'NKDLoss got {preds_S.size(1)} classes; expected three or more, as it '
                'compares those other than the label. Take mmrazor.KLDivergence.'
            )
        if gt_labels.dim() == 2 and gt_labels.shape != preds_S.shape:
            raise ValueError(
                f'NKDLoss got labels {tuple(gt_labels.shape)} for logits '
                f'{tuple(preds_S.shape)}; expected one class an image, (N,), or (N, C).'
            )
        labels = gt_labels.argmax(1) if gt_labels.dim() == 2 else gt_labels
        loss = nkd_loss(preds_S, preds_T.detach(), labels, self.tau, self.gamma)
        return self.loss_weight * loss
