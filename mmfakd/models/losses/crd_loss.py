# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""Contrastive representation distillation, weighted and checked."""

from __future__ import annotations

from typing import Any

from mmrazor.models.losses import CRDLoss as UnweightedCRDLoss
from torch import Tensor

from mmfakd.registry import MODELS

from .check_number import check_number

# What mmrazor's loss has for a Z that the next batch is to set.
_UNSET = -1


@MODELS.register_module()
class CRDLoss(UnweightedCRDLoss):
    r"""mmrazor's CRD loss, with the weight that it leaves out.

    An image's embedding by the student is told from those of other images by the
    teacher, kept in a memory bank, and the other way round:

    .. math::
        L = -\frac{w}{N} \sum_{n} \Big( \log \frac{p_{n0}}{p_{n0} + K / M} +
        \sum_{k=1}^{K} \log \frac{K / M}{p_{nk} + K / M} \Big), \qquad
        p_{nk} = \frac{e^{\langle x_n, m_{nk} \rangle / \tau}}{Z}

    summed over both directions, with :math:`m_{n0}` the bank's embedding of the same
    image, :math:`m_{nk}` those of K negatives, M images in all, and the normalisation
    Z set from the first batch.

    Both banks, ``sample_n`` x ``dim_out`` each, are part of the state dict, as a
    resumed training needs them: 51 MB for 50,000 images, in every checkpoint but the
    student's. Several processes keep banks of their own, each with the images that it
    has seen itself. What a checkpoint says of ``temperature``, ``neg_num`` and
    ``momentum`` gives way to the arguments here; at another temperature Z is set anew.

    Source: *Contrastive Representation Distillation*, ICLR 2020 (arXiv 1910.10699),
    as implemented by mmrazor 1.0.0, whose ``loss_weight`` has no effect.

    Args:
        loss_weight (float): Weight w. Defaults to 1.0.
        temperature (float): Temperature :math:`\tau`. Defaults to 0.07.
        neg_num (int): Negatives K of an image, the data set's ``num_negatives``.
            Defaults to 16384.
        sample_n (int): Images M of the data set. Defaults to 50000.
        dim_out (int): Channels of the embeddings. Defaults to 128.
        momentum (float): Weight of the old value in an update of a bank. Defaults to
            0.5.
        eps (float): Added to denominators. Defaults to 1e-7.

    Shapes:
        - s_feats, t_feats: (N, dim_out), of unit length.
        - data_samples: N data samples of :class:`~mmfakd.datasets.ContrastiveSamples`.
        - Output: scalar.

    Raises:
        ValueError: At construction for a negative weight, a temperature that is not
            above zero, counts that are no positive integers or a momentum outside of
            [0, 1]; in ``forward`` for data samples without negatives, or if the
            length of their data set or the number of negatives is another.
    """

    def __init__(
        self, loss_weight: float = 1.0, temperature: float = 0.07, **kwargs: Any
    ) -> None:
        check_number('CRDLoss', 'loss_weight', loss_weight)
        check_number('CRDLoss', 'temperature', temperature, above_zero=True)
        _check_others(**kwargs)
        super().__init__(loss_weight, temperature, **kwargs)

    def forward(self, s_feats: Tensor, t_feats: Tensor, data_samples: list) -> Tensor:
        """Compute the weighted loss and update the banks.

        Args:
            s_feats (Tensor): The student's embeddings.
            t_feats (Tensor): The teacher's embeddings.
            data_samples (list): The data samples of the batch.

        Returns:
            Tensor: Scalar.

        Raises:
            ValueError: For data samples without negatives, or if the length of their
                data set or the number of negatives is another.
        """
        self._check(data_samples[0])
        loss = super().forward(s_feats, t_feats, data_samples)
        # It writes Z with its graph, which would be kept, and forbid copies.
        self.contrast.params.detach_()
        return self.loss_weight * loss.squeeze()

    def _load_from_state_dict(self, state_dict: dict, prefix: str, *args: Any) -> None:
        # The number of negatives, temperature, Z of both banks, momentum.
        key = f'{prefix}contrast.params'
        ours = self.contrast.params
        saved = state_dict.get(key)
        if isinstance(saved, Tensor) and saved.shape == ours.shape:
            # The mapping is a copy of the caller's, the tensor is not.
            saved = saved.clone()
            if saved.to(ours)[1] != ours[1]:
                saved[2:4] = _UNSET
            saved[[0, 1, 4]] = ours[[0, 1, 4]].to(saved)
            state_dict[key] = saved
        super()._load_from_state_dict(state_dict, prefix, *args)

    def _check(self, sample) -> None:
        # Numbers on the host alone: to look at indices would await the device.
        if 'contrast_sample_idxs' not in sample:
            raise ValueError(
                'CRDLoss: the data samples have no `contrast_sample_idxs`. Wrap the '
                "training data set: dict(type='mmfakd.ContrastiveSamples', "
                'dataset=...).'
            )
        negatives = len(sample.contrast_sample_idxs) - 1
        if negatives != self.contrast.neg_sample:
            raise ValueError(
                f'CRDLoss has neg_num={self.contrast.neg_sample}, but an image comes '
                f'with {negatives} negatives: set `num_negatives` of '
                'mmfakd.ContrastiveSamples and `neg_num` of the loss to one number.'
            )
        count = sample.get('num_samples', self.contrast.n_sample)
        if count != self.contrast.n_sample:
            raise ValueError(
                f'CRDLoss has sample_n={self.contrast.n_sample}, but the data set has '
                f'{count} images; each has its place in the memory bank: set '
                f'`sample_n={count}`.'
            )


def _check_others(**given: Any) -> None:
    """Check the numbers that mmrazor's loss takes as they come."""
    for name in given.keys() & {'neg_num', 'sample_n', 'dim_out'}:
        if not isinstance(given[name], int) or given[name] < 1:
            raise ValueError(
                f'CRDLoss got {name}={given[name]!r}, expected a positive integer: '
                f'correct `{name}` in the config.'
            )
    for name in given.keys() & {'momentum', 'eps'}:
        check_number('CRDLoss', name, given[name])
    if given.get('momentum', 0) > 1:
        raise ValueError(
            f'CRDLoss got momentum={given["momentum"]}, expected the weight of the old '
            'value, 0 to 1.'
        )
