# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""Logits compared image by image, class by class and batch by batch."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from mmfakd.ops.derived_buffers import DerivedBuffers
from mmfakd.registry import MODELS

from .check_number import check_number
from .standardized_logits_loss import standardize_logits


def divergences(preds_s: Tensor, preds_t: Tensor, taus: Tensor) -> Tensor:
    r"""Kullback-Leibler divergence at several temperatures.

    .. math::
        \frac{\tau^2}{N} \sum_n \mathrm{KL}(T^\tau_n \,\|\, S^\tau_n)

    Args:
        preds_s (Tensor): The student's logits, (N, C).
        preds_t (Tensor): The teacher's logits, (N, C).
        taus (Tensor): K temperatures, (K, 1, 1).

    Returns:
        Tensor: (K,).
    """
    ours, theirs = ((p / taus).log_softmax(2) for p in (preds_s, preds_t))
    each = (theirs.exp() * (theirs - ours)).sum((1, 2)) / len(preds_s)
    return each * taus.flatten().square()


def correlation_gaps(
    preds_s: Tensor, preds_t: Tensor, taus: Tensor
) -> tuple[Tensor, Tensor]:
    r"""How the correlations of classes and of images differ.

    .. math::
        \frac{1}{C} \| T^\top T - S^\top S \|^2, \qquad
        \frac{1}{N} \| T T^\top - S S^\top \|^2

    with :math:`S, T` the softmax of the logits at a temperature, (N, C).

    Args:
        preds_s (Tensor): The student's logits, (N, C).
        preds_t (Tensor): The teacher's logits, (N, C).
        taus (Tensor): K temperatures, (K, 1, 1).

    Returns:
        tuple[Tensor, Tensor]: Of the classes and of the images, each (K,).
    """
    ours, theirs = ((p / taus).softmax(2) for p in (preds_s, preds_t))
    classes = theirs.mT @ theirs - ours.mT @ ours
    images = theirs @ theirs.mT - ours @ ours.mT
    n, c = preds_s.shape
    return classes.square().sum((1, 2)) / c, images.square().sum((1, 2)) / n


def share_up_to_median(values: Tensor) -> Tensor:
    """Which share of some numbers is not above their median.

    Args:
        values (Tensor): (K,).

    Returns:
        Tensor: Scalar, one half but for ties and odd K.
    """
    wide = values.double()
    return (wide <= wide.quantile(0.5)).double().mean().to(values.dtype)


@MODELS.register_module()
class MultiLevelLogitsLoss(DerivedBuffers):
    r"""Multi-level logit distillation.

    Logits are compared at several temperatures on three levels: image by image
    (:func:`divergences`), and by the correlations of classes and of images
    (:func:`correlation_gaps`). Batches hold two views of every image, first all weak
    ones, then the strongly augmented ones in the same order
    (:func:`mmfakd.datasets.collate_views`); with ``views=1`` weak ones alone. The loss
    cannot tell a batch without views, whose second half would count as strong ones.

    It is what the published code computes: there the masks that are to select the
    images and classes of which the teacher is less sure multiply a mean, so that they
    are the factors :func:`share_up_to_median`; and ``weak_taus`` have two terms of the
    weak view where the other temperatures have one of each view.

    Source: *Multi-Level Logit Distillation* (CVPR 2023), and
    *Logit Standardization in Knowledge Distillation* (arXiv 2403.01427) for
    ``standardize``.

    Args:
        taus (Sequence[float]): Temperatures of both views. Defaults to (4, 3, 5).
        weak_taus (Sequence[float]): Those of the weak view alone. Defaults to (2, 6).
        views (int): 2, or 1 for batches without strong views. Defaults to 2.
        standardize (bool): Whether the divergences are of standardised logits; the
            published settings are then ``taus=(2, 3, 5), loss_weight=9``.
        loss_weight (float): Factor of the whole. Defaults to 0.9, the published value;
            the labels have 0.1 for each view.

    Shapes:
        - preds_S, preds_T: (views * N, C).
        - Output: scalar.

    Raises:
        ValueError: For temperatures that are not above zero, a negative weight, or
            another number of views; in ``forward`` for logits of other shapes.
    """

    taus: Tensor

    def __init__(
        self,
        taus: Sequence[float] = (4.0, 3.0, 5.0),
        weak_taus: Sequence[float] = (2.0, 6.0),
        views: int = 2,
        standardize: bool = False,
        loss_weight: float = 0.9,
    ) -> None:
        super().__init__()
        for key, given in (('taus', taus), ('weak_taus', weak_taus)):
            if not isinstance(given, (list, tuple)):
                raise ValueError(
                    f'MultiLevelLogitsLoss got {key}={given!r}, expected a sequence of '
                    'temperatures, such as (4, 3, 5); `weak_taus` may be empty, ().'
                )
        for tau in (*taus, *weak_taus):
            check_number(type(self).__name__, 'tau', tau, above_zero=True)
        check_number(type(self).__name__, 'loss_weight', loss_weight)
        if views not in (1, 2) or not taus:
            raise ValueError(
                f'MultiLevelLogitsLoss got views={views!r}, taus={taus!r}; expected 1 '
                'or 2 views and one temperature at least.'
            )
        self.views, self.standardize, self.loss_weight = views, standardize, loss_weight
        self.shared = len(taus)
        self._all_taus = (*taus, *weak_taus)
        self.register_derived()

    def derived(self) -> dict[str, Tensor]:
        """Derive what the state dict does not hold.

        Returns:
            dict[str, Tensor]: ``taus``, all temperatures, (K, 1, 1).
        """
        return dict(taus=torch.tensor(self._all_taus).view(-1, 1, 1))

    def forward(self, preds_S: Tensor, preds_T: Tensor) -> Tensor:
        """Compute the weighted loss.

        Args:
            preds_S (Tensor): The student's logits, (views * N, C).
            preds_T (Tensor): The teacher's logits, (views * N, C).

        Returns:
            Tensor: Scalar.

        Raises:
            ValueError: For logits of different shapes, or an odd number where there
                are two views.
        """
        if (
            preds_S.shape != preds_T.shape
            or preds_S.dim() != 2
            or len(preds_S) % self.views
        ):
            raise ValueError(
                f'MultiLevelLogitsLoss expected logits (N, C) of {self.views} view(s) '
                f'of each image; the student has {tuple(preds_S.shape)}, the teacher '
                f"{tuple(preds_T.shape)}. collate_fn=dict(type='mmfakd.collate_views') "
                'of the data loader puts the views of a MultiView pipeline into one '
                'batch; views=1 goes without.'
            )
        preds = preds_S, preds_T.detach()
        ours, theirs = ((p.chunk(self.views)) for p in preds)
        taus = self.taus.to(preds_S)
        sure = theirs[0].softmax(1)
        of_images = share_up_to_median(sure.amax(1))
        of_classes = share_up_to_median(sure.sum(0))
        classes, images = correlation_gaps(ours[0], theirs[0], taus)
        if self.standardize:
            ours, theirs = (tuple(map(standardize_logits, p)) for p in (ours, theirs))
        weak = divergences(ours[0], theirs[0], taus)
        strong = divergences(ours[-1], theirs[-1], taus[: self.shared])
        once_more = strong.sum() + weak[self.shared :].sum()
        loss = of_images * (weak.sum() + images.sum()) + of_classes * classes.sum()
        return self.loss_weight * (loss + once_more)
