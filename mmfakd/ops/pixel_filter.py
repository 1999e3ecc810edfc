# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""The computation behind FrequencyAttention for maps of one pixel."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from .folded_filter import local_gradients
from .no_autocast import no_autocast


class PixelFilter(torch.autograd.Function):
    """A filter of one frequency, the mean, and a 1x1 convolution: one matrix.

    The mean is real, so of the coefficients only the real parts act.
    """

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        filter_: Tensor,
        gate: Tensor,
        weight: Tensor,
        bias: Tensor,
        gate_local: Tensor,
    ) -> Tensor:
        """Filter ``x``.

        Args:
            ctx (Any): Context of autograd.
            x (Tensor): Feature (N, Ci, 1, 1); for it and the others see
                :class:`~mmfakd.ops.spectral_filter_at_once.SpectralFilterAtOnce`.
            filter_ (Tensor): The parameter (1, 1, Ci, Co, 2).
            gate (Tensor): Factor of the filtered feature, (1,).
            weight (Tensor): Weight of the convolution, (Co, Ci, 1, 1).
            bias (Tensor): Its bias, (Co,).
            gate_local (Tensor): Factor of the convolution, (1,).

        Returns:
            Tensor: Feature (N, Co, 1, 1) of the dtype of ``x``.
        """
        matrix = filter_[0, 0, ..., 0] * gate
        matrix.addcmul_(weight.flatten(1).t(), gate_local)
        ctx.save_for_backward(x, matrix, filter_, gate, weight, bias, gate_local)
        y = torch.addmm(bias * gate_local, x.flatten(1).to(matrix.dtype), matrix)
        return y[..., None, None].to(x.dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, ...]:
        """Gradients of all tensors of ``forward``."""
        x, matrix, filter_, gate, *local = ctx.saved_tensors
        with no_autocast(grad):
            grads = grad.flatten(1).to(matrix.dtype)
            grad_x = (grads @ matrix.t())[..., None, None].to(x.dtype)
            product = x.flatten(1).t().to(matrix.dtype) @ grads
            grad_filter = torch.zeros_like(filter_)
            torch.mul(product, gate, out=grad_filter[0, 0, ..., 0])
            real = filter_[0, 0, ..., 0]
            grad_gate = torch.dot(product.flatten(), real.flatten())[None]
            grads_local = local_gradients(product.t(), grads, *local)
        return grad_x, grad_filter, grad_gate, *grads_local
