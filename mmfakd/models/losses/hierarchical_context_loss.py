# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""ReviewKD's loss on features pooled to several sizes."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from mmfakd.ops.determinism import average_pool
from mmfakd.registry import MODELS

from .check_number import check_number
from .feature_pairs import Features, feature_pairs
from .mean_over import IMAGES


def hierarchical_context_loss(s_feature: Features, t_feature: Features) -> Tensor:
    r"""Mean squared error of features, averaged over scales of context.

    .. math::
        L = \sum_{levels} \frac{\sum_i 2^{-i} \,
        \mathrm{MSE}(P_i(S), P_i(T))}{\sum_i 2^{-i}}

    with :math:`P_0` the identity and :math:`P_1, P_2, \dots` average pooling to
    4 x 4, 2 x 2 and 1 x 1 pixels, as far as these are smaller than the feature.

    Source: HCL of *Distilling Knowledge via Knowledge Review*, CVPR 2021
    (arXiv 2104.09044).

    Args:
        s_feature (Tensor | Sequence[Tensor]): Feature, or one for each level, of the
            student: (N, C, H, W) or (N, C).
        t_feature (Tensor | Sequence[Tensor]): The same of the teacher.

    Returns:
        Tensor: Scalar, summed over levels; float32, or float64 for such features.

    Raises:
        TypeError: If a feature is complex or integer.
        ValueError: If the numbers of levels or the shapes differ.
    """
    pairs = feature_pairs('HierarchicalContextLoss', s_feature, t_feature)
    losses = []
    for student, teacher in pairs:
        # Pooling is linear, so the difference is pooled once, not both features.
        difference = student - teacher
        loss, weight, total = difference.square().mean(), 1.0, 1.0
        for size in (4, 2, 1):
            if size < min(difference.shape[-2:]):
                weight /= 2
                total += weight
                pooled = average_pool(difference, size)
                loss = loss + weight * pooled.square().mean()
        losses.append(loss / total)
    return torch.stack(losses).sum()


@MODELS.register_module()
class HierarchicalContextLoss(nn.Module):
    """ReviewKD's hierarchical context loss, see :func:`hierarchical_context_loss`.

    Source: *Distilling Knowledge via Knowledge Review*, CVPR 2021
    (arXiv 2104.09044).

    Args:
        loss_weight (float): Factor of the loss. Defaults to 1.0.

    Shapes:
        - s_feature, t_feature: (N, C, H, W) or (N, C), or a sequence of them.
        - Output: scalar.

    Raises:
        TypeError: In ``forward`` if a feature is complex or integer.
        ValueError: At construction for a negative weight; in ``forward`` if the
            numbers of levels or the shapes differ.
    """

    # See :func:`.mean_over.mean_over`: what is pooled depends on the size of the map.
    mean_over = IMAGES

    def __init__(self, loss_weight: float = 1.0) -> None:
        super().__init__()
        check_number('HierarchicalContextLoss', 'loss_weight', loss_weight)
        self.loss_weight = loss_weight

    def forward(self, s_feature: Features, t_feature: Features) -> Tensor:
        """Compute the weighted loss.

        Args:
            s_feature (Tensor | Sequence[Tensor]): The student's features.
            t_feature (Tensor | Sequence[Tensor]): The teacher's features.

        Returns:
            Tensor: Scalar.

        Raises:
            TypeError: If a feature is complex or integer.
            ValueError: If the numbers of levels or the shapes differ.
        """
        return self.loss_weight * hierarchical_context_loss(s_feature, t_feature)
