# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""Gradients of single losses, measured beside a training."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Optional

import torch
from mmengine.dist import all_reduce
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from mmfakd.messages import first_line

from .graph_nodes import graph_nodes
from .same_buffers import same_buffers

# Key of the sum of all losses.
TOTAL = 'total'
# Factors of losses whose gradients pass half precision, tried in this order. Powers of
# two, so that they change no digit.
_SCALES = (2.0**16, 2.0**8, 1.0, 2.0**-8)
Gradients = list[Optional[Tensor]]


class GradientsNotMeasured(RuntimeError):
    """Gradients cannot be taken beside the training; the message says why."""


@dataclass
class LossGradient:
    """Gradient of one loss on the parameters that it reaches.

    Args:
        reached (int): Number of weights of the given parameters that the loss has a
            path to, be its gradient there zero or not.
        norm (Tensor): Norm of its gradient on them, a scalar in float32.
        own_norm (Tensor): Norm of the gradient of the student's own loss on the same
            parameters, likewise; not a number where there is no own loss.
    """

    reached: int
    norm: Tensor
    own_norm: Tensor

    @property
    def ratio(self) -> float:
        """Norm over that of the student's own loss (float): one host read."""
        return float(self.norm.double() / self.own_norm.double())


def loss_gradients(
    own: Tensor | None,
    losses: Mapping[str, Tensor],
    parameters: Sequence[nn.Parameter],
    modules: Sequence[nn.Module] = (),
) -> dict[str, LossGradient]:
    r"""Measure the gradients of losses on parameters that they share.

    .. math::
        r_i = \frac{\lVert \nabla_{\theta_i} \mathcal{L}_i \rVert}
                   {\lVert \nabla_{\theta_i} \mathcal{L}_{own} \rVert},
        \qquad \theta_i = \{\theta : \mathcal{L}_i \text{ depends on } \theta\}

    The training goes on as if nothing had been measured: ``.grad``, random state and,
    of ``modules``, buffers are left as they are, and hooks of parallel wrappers do
    not run. Under float16 the losses are scaled up and the norms down, so that small
    gradients are not lost. One backward pass for each loss is needed, and the graph
    stays for the training's own. With several processes all call it together, since
    the backward pass of synchronised batch norms is a collective.

    Source: *GradNorm* (arXiv 1711.02257) for norms of single losses on shared weights.

    Args:
        own (Tensor, optional): The student's own loss, a scalar.
        losses (Mapping[str, Tensor]): Name -> distillation loss, a scalar; a loss
            without a graph reaches nothing.
        parameters (Sequence[nn.Parameter]): The student's; frozen ones do not count.
        modules (Sequence[nn.Module]): Models in the graph. Only with them gradients
            that pass re-entrant checkpoints are measured, as their backward pass
            writes into ``.grad`` and updates running statistics once more.

    Returns:
        dict[str, LossGradient]: One for each loss, and that of their sum as
        ``'total'``, on the parameters that any of them reaches.

    Raises:
        GradientsNotMeasured: If the graph gives no gradients beside the training; the
            message says why.
    """
    weights = [p for p in parameters if p.requires_grad]
    source = _Source(weights, list(modules), [own, *losses.values()])
    device = weights[0].device if weights else torch.device('cpu')
    with _nothing_changes(weights, modules):
        ours = None if own is None else source.gradients(own)
        total: Gradients = [None] * len(weights)
        found = {}
        for name, loss in losses.items():
            theirs = source.gradients(loss)
            found[name] = _compared(theirs, ours, device)
            total = [_sum(both) for both in zip(total, theirs)]
    found[TOTAL] = _compared(total, ours, device)
    return found


class _Source:
    """Takes gradients on the weights, in the way that the graph allows."""

    def __init__(
        self, weights: Sequence[Tensor], modules: list[nn.Module], losses: Sequence[Any]
    ) -> None:
        self.weights, self.modules, self.losses = weights, modules, losses
        self.leaves: list[Tensor] | None = None
        self.scales = _SCALES if uses_half(weights) else (1.0,)

    def gradients(self, loss: Tensor) -> Gradients:
        """Gradients of a loss, in float32 or more; None where it has no path."""
        loss = loss.sum()
        if loss.dtype in (torch.float16, torch.bfloat16):
            loss = loss.float()
        if not loss.requires_grad or not self.weights:
            return [None] * len(self.weights)
        for scale in self.scales:
            found = [_dense(g) for g in self._take(scale * loss)]
            if len(self.scales) == 1:
                return found
            if _all_finite(found, self.weights[0].device):
                break
        return [None if g is None else g / scale for g in found]

    def _take(self, loss: Tensor) -> Gradients:
        if self.leaves is not None:
            return self._take_by_backward(loss)
        try:
            with torch.autocast(loss.device.type, enabled=False):
                return list(
                    torch.autograd.grad(
                        loss, self.weights, retain_graph=True, allow_unused=True
                    )
                )
        except RuntimeError as error:
            # Both wordings of PyTorch.
            if 'heckpoint' not in str(error):
                raise GradientsNotMeasured(first_line(error)) from error
        self.leaves = self._all_leaves()
        return self._take_by_backward(loss)

    def _all_leaves(self) -> list[Tensor]:
        """All that a backward pass may write into, if that disturbs nobody."""
        wrapper = getattr(DistributedDataParallel, '_active_ddp_module', None)
        leaves = {id(leaf): leaf for leaf in _leaves(self.losses)}
        for module in self.modules:
            leaves.update((id(p), p) for p in module.parameters())
        why = ''
        if not self.modules:
            why = 'a backward pass of its own would disturb the training'
        elif getattr(wrapper, 'static_graph', False):
            why = 'static_graph=True counts its backward passes'
        elif any(
            getattr(x, '_post_accumulate_grad_hooks', None) for x in leaves.values()
        ):
            why = 'hooks wait for its gradients'
        if why:
            raise GradientsNotMeasured(
                f're-entrant checkpointing (mmcv: with_cp=True) lies in the graph, and '
                f'{why}'
            )
        return list(leaves.values())

    def _take_by_backward(self, loss: Tensor) -> Gradients:
        """As autograd.grad, through re-entrant checkpoints.

        Before DDP has prepared its backward pass, in the forward pass of the model
        that it wraps, its hooks do nothing.
        """
        leaves = self.leaves or []
        kept = [leaf.grad for leaf in leaves]
        try:
            for leaf in leaves:
                leaf.grad = None
            with torch.autocast(loss.device.type, enabled=False):
                loss.backward(retain_graph=True)
            return [weight.grad for weight in self.weights]
        except RuntimeError as error:
            raise GradientsNotMeasured(first_line(error)) from error
        finally:
            for leaf, grad in zip(leaves, kept):
                leaf.grad = grad


@contextmanager
def _nothing_changes(
    weights: Sequence[Tensor], modules: Sequence[nn.Module]
) -> Iterator[None]:
    """Keep what recomputation in a backward pass may change."""
    cuda = sorted({w.device.index for w in weights if w.device.type == 'cuda'})
    with same_buffers(modules), torch.random.fork_rng(cuda), torch.enable_grad():
        yield


def _compared(
    theirs: Gradients, ours: Gradients | None, device: torch.device
) -> LossGradient:
    reached = [i for i, gradient in enumerate(theirs) if gradient is not None]
    own_norm = torch.full((), float('nan'), device=device)
    if ours is not None:
        own_norm = _norm([ours[i] for i in reached], device)
    count = sum(g.numel() for g in theirs if g is not None)
    return LossGradient(count, _norm(theirs, device), own_norm)


def _norm(gradients: Gradients, device: torch.device) -> Tensor:
    # Squares of small gradients are below float32.
    wide = torch.float32 if device.type == 'mps' else torch.float64
    norms = [
        torch.linalg.vector_norm(g.to(wide)).to(device)
        for g in gradients
        if g is not None
    ]
    if not norms:
        return torch.zeros((), device=device)
    return torch.linalg.vector_norm(torch.stack(norms)).float()


def _dense(gradient: Tensor | None) -> Tensor | None:
    if gradient is None:
        return None
    if gradient.layout != torch.strided:
        gradient = gradient.to_dense()
    if gradient.is_complex():
        gradient = torch.view_as_real(gradient)
    return gradient.double() if gradient.dtype == torch.float64 else gradient.float()


def _sum(both: tuple[Tensor | None, Tensor | None]) -> Tensor | None:
    given = [gradient for gradient in both if gradient is not None]
    return sum(given[1:], given[0]) if given else None


def uses_half(weights: Sequence[Tensor]) -> bool:
    """Tell whether gradients pass float16, in which small ones vanish.

    Args:
        weights (Sequence[Tensor]): The parameters that they are for.

    Returns:
        bool: Whether these are in float16, or autocast computes in it.
    """
    if any(weight.dtype == torch.float16 for weight in weights):
        return True
    kind = weights[0].device.type if weights else 'cpu'
    if hasattr(torch, 'get_autocast_dtype'):
        on, dtype = torch.is_autocast_enabled(kind), torch.get_autocast_dtype(kind)
    elif kind == 'cpu':
        on, dtype = torch.is_autocast_cpu_enabled(), torch.get_autocast_cpu_dtype()
    else:
        on, dtype = torch.is_autocast_enabled(), torch.get_autocast_gpu_dtype()
    return on and dtype == torch.float16


def _all_finite(gradients: Gradients, device: torch.device) -> bool:
    """Whether no process found an overflow: all must take the same next step."""
    flags = [g.isfinite().all().to(device) for g in gradients if g is not None]
    finite = (
        torch.stack(flags).all().float() if flags else torch.ones((), device=device)
    )
    all_reduce(finite, 'min')
    return bool(finite)


def _leaves(losses: Sequence[Tensor | None]) -> Iterator[Tensor]:
    """Walk the graphs of losses to the tensors that keep a gradient."""
    for node in graph_nodes(losses):
        if hasattr(node, 'variable'):
            yield node.variable
