# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""The growing weight of a distillation loss."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping

from mmengine.logging import MessageHub
from mmengine.runner import BaseLoop
from torch import Tensor

from mmfakd.compat.running_loop import (
    counts_iterations,
    distillation_stop,
    message_hub,
    running_loop,
)
from mmfakd.datasets.wrappers import length_of
from mmfakd.models.losses.check_number import is_amount
from mmfakd.ops.compiling import is_compiling

_DEFAULTS = dict(by_epoch=True, begin=0, end=20)


class Warmup:
    r"""A factor that grows linearly to 1 as training proceeds.

    .. math::
        w(t) = \mathrm{clip}\Big(\frac{t + 1 - t_0}{t_1 - t_0}, 0, 1\Big)

    with t the epoch or iteration, counted from 0 and read from the message hub
    of the running training, and :math:`t_0, t_1` the begin and end.

    Source: the recipes of *Distilling Knowledge via Knowledge Review*
    (arXiv 2104.09044) and *Decoupled Knowledge Distillation* (arXiv 2203.08679),
    which count epochs from 1 and divide by 20.

    Args:
        cfg (Mapping): Any of ``by_epoch``, ``begin`` and ``end``; the others are
            those of ``dict(by_epoch=True, begin=0, end=20)``. With ``by_epoch=False``
            it counts iterations of the loop, which an iteration based one needs, as
            its epoch stays 0. As ``max_iters`` and MMEngine's schedulers do, it counts
            batches, not steps of the optimizer: with ``accumulative_counts=4`` four
            iterations are one step.

    Raises:
        ValueError: For other keys, for epochs that are no numbers or below 0, or an
            end that is not after the begin.
    """

    def __init__(self, cfg: Mapping) -> None:
        parsed = {**_DEFAULTS, **(cfg if isinstance(cfg, Mapping) else {})}
        if (
            not isinstance(cfg, Mapping)
            or set(parsed) != set(_DEFAULTS)
            or not isinstance(parsed['by_epoch'], bool)
            or not all(is_amount(parsed[key]) for key in ('begin', 'end'))
            or parsed['end'] <= parsed['begin']
        ):
            given = dict(cfg) if isinstance(cfg, Mapping) else cfg
            raise ValueError(
                f'warmup: got {given!r}; expected dict(by_epoch=True, begin=0, '
                'end=20) with end > begin, both finite and not below 0; None is no '
                'warm-up.'
            )
        self.by_epoch, self.begin, self.end = (parsed[key] for key in _DEFAULTS)
        self._warned = self._checked = False
        # The hook that ends the distillation, and when, as the warm-up counts.
        self._stop = '', math.inf
        # The factor that was last told, and what it was for.
        self._told: tuple[tuple, Tensor] | None = None

    def factor(self) -> float:
        """Compute the present factor.

        Returns:
            float: 0 to 1.

        Raises:
            ValueError: If epochs are to be counted in a loop that has none.
            RuntimeError: If MMEngine's ``RuntimeInfoHook`` does not tell the progress.
        """
        # A compiler cannot look at its callers.
        hub = MessageHub.get_current_instance() if is_compiling() else message_hub()
        info = hub.runtime_info
        counter = 'epoch' if self.by_epoch else 'iter'
        self._check(counter in info)
        now, last = info.get(counter, 0), info.get(f'max_{counter}s')
        if last is not None:
            self._warn(last)
        return self.factor_at(now)

    def _warn(self, last: float) -> None:
        """Say once if distillation is over before the warm-up."""
        if self._warned or not (told := self.too_long(last, *self._stop)):
            return
        self._warned = True
        warnings.warn(told, stacklevel=3)

    def too_long(self, last: float, name: str, stop: float) -> str:
        """Say what comes of it if distillation is over before the warm-up.

        Args:
            last (float): Length of the training, in epochs or iterations.
            name (str): Of the hook that ends the distillation, if there is one.
            stop (float): When it does.

        Returns:
            str: A warning, '' where the full weight is reached.
        """
        if min(last, stop) >= self.end:
            return ''
        over = f'training has only {last}'
        if stop < last:
            last, over = stop, f'{name} stops the distillation at {stop:g}'
        unit = 'epochs' if self.by_epoch else 'iterations'
        never = 'nothing is ever distilled, as it begins at'
        weight = 'the full weight is never reached'
        what = f'{never} {self.begin}' if last <= self.begin else weight
        return (
            f'The distillation warm-up ends at {self.end} {unit}, but {over}: {what}. '
            'Shorten the warm-up; in an iteration based loop count iterations with '
            '`warmup=dict(by_epoch=False, ...)`.'
        )

    def _check(self, told: bool) -> None:
        """Refuse a training whose progress cannot be seen; looked at once."""
        if self._checked or is_compiling():
            return
        self._checked = True
        loop = running_loop()
        self._stop = _stop_of(loop, self.by_epoch)
        if counts_iterations(loop):
            self.refuse_epochs(type(loop).__name__, getattr(loop, 'max_iters', None))
        if loop is not None and not told:
            raise RuntimeError(
                'warmup: there is no RuntimeInfoHook to tell the progress of the '
                'training, so that the weight of the distillation would never grow. '
                'Take `default_hooks.runtime_info=None` out of the config.'
            )

    def refuse_epochs(self, loop: str, length: int | None) -> None:
        """Refuse to count epochs in a loop that counts iterations.

        Args:
            loop (str): Name of its class.
            length (int, optional): Its iterations.

        Raises:
            ValueError: If the warm-up counts epochs.
        """
        if self.by_epoch:
            raise ValueError(
                f'warmup: got dict(by_epoch=True, begin={self.begin}, end={self.end}) '
                f'in a {loop}, whose epoch stays 0: the weight of the distillation '
                'would never grow. Count iterations: dict(by_epoch=False, begin=..., '
                f'end=...), of {length} in all.'
            )

    def factor_at(self, now: float) -> float:
        """Compute the factor at any time.

        Args:
            now (float): The epoch or iteration, counted from 0.

        Returns:
            float: 0 to 1.
        """
        return min(max((now + 1 - self.begin) / (self.end - self.begin), 0.0), 1.0)

    def report(self, losses: dict[str, Tensor], factor: float) -> None:
        """Add the present factor to losses, for the log.

        Args:
            losses (dict[str, Tensor]): The losses, to which ``warmup`` is added.
            factor (float): What :meth:`factor` has returned.
        """
        # On the device of a loss, so that the log costs no synchronisation.
        for value in [loss for name, loss in losses.items() if 'loss' in name][:1]:
            # As long as it is the same, making it is one operation too many; a
            # compiler is told what to compute, not what was kept.
            key = factor, value.dtype, value.device, type(value)
            if is_compiling() or self._told is None or self._told[0] != key:
                self._told = key, value.new_full((), factor)
            losses['warmup'] = self._told[1]


def _stop_of(loop: BaseLoop | None, by_epoch: bool) -> tuple[str, float]:
    """The hook that ends the distillation, and at which epoch or iteration."""
    name, stop = distillation_stop(loop) or ('', math.inf)
    batches = None if by_epoch else length_of(getattr(loop, 'dataloader', None))
    return name, stop if batches is None else stop * batches
