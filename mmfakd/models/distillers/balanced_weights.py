# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""Weights of levels that are found by measurement."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from mmengine.dist import all_reduce
from mmengine.logging import print_log
from torch import Tensor, nn

from mmfakd.compat.running_loop import message_hub
from mmfakd.models.connectors.per_level import per_level
from mmfakd.models.losses.check_number import is_amount

from .loss_gradients import (
    GradientsNotMeasured,
    LossGradient,
    loss_gradients,
    uses_half,
)

TYPE = 'balance'
# What MMEngine leaves in dicts that are inherited, or replace what is not there.
_FOREIGN = ('_scope_', '_delete_')
_DEFAULTS: dict[str, Any] = dict(ratio=10.0, iters=100)


class BalancedWeights(nn.Module):
    r"""Weights that bring the gradients of levels into a ratio to the student's own.

    Each of the first iterations t measures, on the student's parameters
    :math:`\theta_l` that the loss :math:`d_l` of level l depends on,

    .. math::
        r_l(t) = \frac{\lVert \nabla_{\theta_l} d_l \rVert}
                      {\lVert \nabla_{\theta_l} \mathcal{L}_{task} \rVert}, \qquad
        \lambda_l = \rho_l \, \Big/ \, \exp
            \frac{\sum_{t=1}^{T} t \ln r_l(t)}{\sum_{t=1}^{T} t}

    and the geometric mean over the T iterations so far, in which the later ones count
    more, gives the weight :math:`\lambda_l`, from the first of them on. So a single
    wild batch moves it little, and less what was measured while connectors were still
    at random. One ratio :math:`\rho` for n levels means :math:`\rho_l = \rho / n`.
    After ``iters`` iterations the weights are fixed: numbers, which cost nothing.

    With several processes each measures on its own part of the batch, and the mean
    goes over all of them, so that all have the same weights. The sums are buffers, so
    a resumed training goes on with them.

    Source: *GradNorm* (arXiv 1711.02257) for the norms of gradients on shared
    weights as what is to be balanced.

    Args:
        cfg (Mapping | str): ``dict(type='balance', ratio=..., iters=...)``, of which
            ``'balance'`` alone has the defaults. ``ratio`` is one number above 0 for
            all levels together, or one of 0 or more for each; ``iters`` is how many
            iterations are measured.
        levels (int): Number of levels.

    Raises:
        ValueError: For other keys or values, or ratios for another number of levels.

    Examples:
        >>> import torch
        >>> from mmfakd.models.distillers import BalancedWeights
        >>> weights = BalancedWeights(dict(type='balance', ratio=0.5), 1)
        >>> x = torch.nn.Parameter(torch.ones(()))
        >>> weights.measure(own=3 * x, losses=[12 * x], parameters=[x])
        >>> [round(weight, 4) for weight in weights.values()]
        [0.125]
    """

    log_ratios: Tensor
    counts: Tensor
    steps: Tensor

    def __init__(self, cfg: Mapping | str, levels: int) -> None:
        super().__init__()
        ratio, self.iters = _parse(cfg)
        if isinstance(ratio, (list, tuple)):
            owner = ('LevelDistiller', 'student_levels')
            self.ratios = per_level(ratio, levels, 'loss_weight.ratio', *owner)
        else:
            self.ratios = [ratio / levels] * levels
        # Sums of t ln r and of t, and how many iterations there were. Both sums are
        # floating point, as an EMA of buffers averages no others: their quotient holds.
        self.register_buffer('log_ratios', torch.zeros(levels))
        self.register_buffer('counts', torch.zeros(levels))
        self.register_buffer('steps', torch.zeros((), dtype=torch.long))
        # The same in Python, to be read without waiting for a device.
        self._values: list[float] | None = None
        self._fixed = False
        self._warned = False

    @property
    def fixed(self) -> bool:
        """Whether all iterations have been measured (bool)."""
        self.values()
        return self._fixed

    def values(self) -> list[float]:
        """Tell the present weights.

        Returns:
            list[float]: One for each level; 1 before the first measurement.
        """
        if self._values is None:
            sums, counts = self.log_ratios.tolist(), self.counts.tolist()
            steps = int(self.steps)
            self._fixed, unmeasured = steps >= self.iters, 0.0 if steps else 1.0
            self._values = [
                ratio / math.exp(total / count) if count else unmeasured * (ratio > 0)
                for ratio, total, count in zip(self.ratios, sums, counts)
            ]
        return self._values

    def measure(
        self,
        own: Tensor,
        losses: Sequence[Tensor],
        parameters: Iterable[nn.Parameter],
        modules: Sequence[nn.Module] = (),
        names: Sequence[str] = (),
    ) -> None:
        """Measure one iteration, unless the weights are fixed; all processes call it.

        Args:
            own (Tensor): The student's own loss, a scalar.
            losses (Sequence[Tensor]): The loss of each level, neither weighted nor
                warmed up.
            parameters (Iterable[nn.Parameter]): The student's.
            modules (Sequence[nn.Module]): Models in the graph, see
                :func:`loss_gradients`.
            names (Sequence[str]): What messages call the levels. Defaults to their
                numbers.

        Raises:
            ValueError: For losses of another number of levels.
            RuntimeError: If the gradient of a level is zero or not finite, or cannot
                be measured. Where only the student's own is zero, as with a head that
                begins so, or where float16 overflows, the level has weight 0 until
                that ends; an error if it does not.
        """
        if self.fixed:
            return
        if len(losses) != len(self.ratios):
            raise ValueError(
                f'{_OWNER}: got {len(losses)} levels, expected {len(self.ratios)}. '
                'Name each level by itself; those of a neck are '
                "[dict(recorder='neck', data_idx=0), ...]."
            )
        self._compare_with_training()
        weights = list(parameters)
        logs = self._measured(own, losses, weights, modules)
        self._add(logs)
        half = uses_half(weights)
        for i, (log, count) in enumerate(zip(logs.tolist(), self.counts.tolist())):
            if self.ratios[i] and not count:
                name = names[i] if names else f'level {i}'
                self._refuse(log, name, half)
        if self._fixed:
            numbers = ', '.join(f'{value:.4g}' for value in self.values())
            print_log(
                f'Level weights are fixed after {self.iters} measured iterations: '
                f'loss_weight=[{numbers}]',
                logger='current',
            )

    def _compare_with_training(self) -> None:
        """Warn once where the training is over before all is measured."""
        if self._warned:
            return
        self._warned = True
        length = message_hub().runtime_info.get('max_iters')
        if length is not None and length < self.iters:
            fewer = max(length // 10, 1)
            print_log(
                f'loss_weight: balance measures {self.iters} iterations, but the '
                f'training has {length}: the weights change to its end, and every step '
                f'takes as long as those that measure. Give iters={fewer} '
                '(`model.distiller.loss_weight.iters`), or numbers.',
                logger='current',
                level=logging.WARNING,
            )

    def _measured(
        self,
        own: Tensor,
        losses: Sequence[Tensor],
        weights: list[nn.Parameter],
        modules: Sequence[nn.Module],
    ) -> Tensor:
        """Logarithms of the ratios of this iteration, the mean over all processes."""
        chosen = [i for i, ratio in enumerate(self.ratios) if ratio]
        named = {str(i): losses[i] for i in chosen}
        try:
            found = loss_gradients(own, named, weights, modules)
        except GradientsNotMeasured as error:
            raise RuntimeError(
                f'{_OWNER}: gradients cannot be measured: {error}. {_NUMBERS}'
            ) from error
        logs = torch.zeros(len(losses), device=own.device)
        logs[chosen] = torch.stack([_log_ratio(found[str(i)]) for i in chosen])
        all_reduce(logs, 'mean')
        return logs.to(self.log_ratios)

    @torch.no_grad()
    def _add(self, logs: Tensor) -> None:
        self.steps += 1
        finite = logs.isfinite()
        logs = torch.where(finite, logs, torch.zeros_like(logs))
        self.log_ratios += self.steps * logs
        self.counts += self.steps * finite
        self._values = None
        self.values()

    def _refuse(self, log: float, name: str, half: bool) -> None:
        """Raise for a level of which there is no measurement, or say why."""
        what, advice = f'the gradient of {name} on the student', _NUMBERS
        waits = not self._fixed
        if log == -math.inf:
            waits, why = False, 'is zero: no weight brings it into a ratio'
            advice = (
                'Is its loss of weight 0, its layer in a frozen stage, or its record '
                'detached? Leave this level out, or give it `ratio` 0.'
            )
        elif log == math.inf:
            # As long as a head that begins at zero has not moved.
            what = f"the gradient of the student's own loss, where {name} reaches it,"
            why = 'is zero: nothing stands in a ratio to it'
        else:
            # Optimizers pass over what overflows in float16, too.
            waits, why = waits and half, 'is not finite'
            advice = 'Lower the learning rate, or look at the features of this level.'
        if not waits:
            raise RuntimeError(f'{_OWNER}: {what} {why}. {advice}')
        if self.steps == 1:
            print_log(
                f'{_OWNER}: {what} {why}. Until that ends the level has weight 0.',
                logger='current',
                level=logging.WARNING,
            )

    def _apply(self, fn: Any, *args: Any) -> BalancedWeights:
        # The sums have no room in half precision, which a model may be cast to.
        sums = dict(log_ratios=self.log_ratios, counts=self.counts)
        super()._apply(fn, *args)
        for name, before in sums.items():
            now = getattr(self, name)
            if now.dtype in (torch.float16, torch.bfloat16):
                setattr(self, name, before.to(now.device))
        return self

    def _load_from_state_dict(self, state_dict: dict, prefix: str, *args: Any) -> None:
        sums = state_dict.get(f'{prefix}log_ratios')
        if isinstance(sums, Tensor) and sums.shape != self.log_ratios.shape:
            # All or nothing: the number of steps alone would fit.
            self._measure_anew(
                f'the checkpoint has those of {sums.numel()} levels, and the distiller '
                f'{len(self.ratios)}. They are'
            )
        elif any(key.startswith(prefix) for key in state_dict):
            super()._load_from_state_dict(state_dict, prefix, *args)
            self._values = None
            self._forget_the_impossible()

    def _forget_the_impossible(self) -> None:
        """Measure anew where an earlier version has let an EMA average one sum only."""
        if (self.log_ratios.abs() > _MAX_LOG * self.counts).any():
            self._measure_anew(
                'what the checkpoint says was measured cannot be, as averaged weights '
                '(EMA) of an earlier version. It is'
            )

    @torch.no_grad()
    def _measure_anew(self, why: str) -> None:
        for buffer in (self.log_ratios, self.counts, self.steps):
            buffer.zero_()
        self._values = None
        print_log(
            f'{_OWNER}: {why} measured anew.',
            logger='current',
            level=logging.WARNING,
        )

    def extra_repr(self) -> str:
        """Describe the ratios.

        Returns:
            str: They, and the number of iterations.
        """
        return f'ratios={self.ratios}, iters={self.iters}'


# Of the ratio of two norms in float32, with room.
_MAX_LOG = 250.0
_OWNER = f"loss_weight of type '{TYPE}'"
_NUMBERS = 'Give weights as numbers: loss_weight=1.0, or one for each level.'


def _log_ratio(found: LossGradient) -> Tensor:
    """Minus infinity for no gradient, plus infinity for none of the student's own."""
    norm, own = found.norm, found.own_norm
    log = torch.where(norm == 0, norm.log(), norm.log() - own.log())
    finite = norm.isfinite() & own.isfinite()
    return torch.where(finite, log, torch.full_like(log, math.nan))


def _parse(cfg: Any) -> tuple[Any, int]:
    """Ratio and number of iterations of a config."""
    given = dict(type=TYPE) if cfg == TYPE else cfg
    if isinstance(given, Mapping):
        given = {key: value for key, value in given.items() if key not in _FOREIGN}
        parsed = {**_DEFAULTS, **given}
        ratio, iters = parsed['ratio'], parsed['iters']
        several = isinstance(ratio, (list, tuple))
        if (
            set(parsed) == {'type', *_DEFAULTS}
            and parsed['type'] == TYPE
            and all(map(is_amount, ratio if several else [ratio]))
            and (any(ratio) if several else ratio > 0)
            and isinstance(iters, int)
            and not isinstance(iters, bool)
            and iters > 0
        ):
            return ratio, iters
    raise ValueError(
        f'loss_weight: got {cfg!r}; expected a number, one for each level, or '
        f"dict(type='{TYPE}', ratio={_DEFAULTS['ratio']}, iters={_DEFAULTS['iters']}) "
        'with a ratio above 0, or one of 0 or more for each level, and a positive '
        'number of iterations.'
    )
