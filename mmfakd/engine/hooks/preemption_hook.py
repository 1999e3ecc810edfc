# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""Save and end when the machine is taken away."""

from __future__ import annotations

import atexit
import gc
import os
import re
import signal
import threading
import time
import warnings
from collections.abc import Sequence
from types import FrameType
from typing import Any, NoReturn

import torch
import torch.distributed as dist
from mmengine.dist import get_world_size, is_main_process
from mmengine.hooks import CheckpointHook, Hook
from mmengine.runner import BaseLoop, Runner

from mmfakd.engine.process_group import end_process_group
from mmfakd.engine.runner_kind import check_runner
from mmfakd.engine.signals import shield_workers
from mmfakd.messages import near_names, quoted
from mmfakd.registry import HOOKS

from .safe_checkpoint_hook import SafeCheckpointHook

# EX_TEMPFAIL of <sysexits.h>: the same command, once more, goes on.
PREEMPTED = 75
# What a shell says of a command that was interrupted.
INTERRUPTED = 130
# Beyond every signal.
_TIME_LIMIT = int(signal.NSIG)
_START = time.monotonic()


@HOOKS.register_module()
class PreemptionHook(Hook):
    """Finish the step, save and end: at a signal, or when time is up.

    All processes agree after every step, so that they stop at the same one, although
    a signal may reach one of them only. They save through ``SafeCheckpointHook``, and
    the same command with ``--resume`` goes on where they stopped, with the losses of
    an uninterrupted training.

    The exit status is 75, "try again", after a signal of ``signals`` or at the time
    limit, and 130 after Ctrl-C (SIGINT). A second Ctrl-C ends at once, without saving.

    Args:
        signals (Sequence[str]): Names of signals. Defaults to ``('SIGTERM',
            'SIGUSR1')``.
        time_limit (float | str, optional): Seconds, or ``'HH:MM:SS'``, or Slurm's
            ``'D-HH:MM:SS'``, since the process loaded its libraries. Leave time for a
            step and the saving. Defaults to None: no limit.

    Raises:
        ValueError: If there is no such signal, or the time limit cannot be read.
    """

    # After everything that belongs to a step.
    priority = 'LOWEST'

    def __init__(
        self,
        signals: Sequence[str] = ('SIGTERM', 'SIGUSR1'),
        time_limit: float | str | None = None,
    ) -> None:
        self.signals = [_signal(name) for name in signals]
        self.time_limit = _seconds(time_limit)
        self._received = 0
        self._interrupted_at: float | None = None
        self._previous: dict[int, Any] = {}
        self._saver: SafeCheckpointHook | None = None
        # Of gloo, and only with several processes.
        self._group: Any = None
        self._active = False
        self._val_batches = 0

    def before_run(self, runner: Runner) -> None:
        """Listen, if this is a training.

        Args:
            runner (Runner): The runner.

        Raises:
            ValueError: If the runner is MMEngine's ``FlexibleRunner``.
        """
        check_runner(type(runner))
        self._active = isinstance(runner._train_loop, BaseLoop)
        if not self._active:
            return
        self._saver = _find_saver(runner)
        if get_world_size() > 1:
            self._group = dist.new_group(backend='gloo')
        self._listen()
        heard = {signal.SIGINT, *self.signals}
        for loop in (runner._train_loop, runner._val_loop):
            if isinstance(loop, BaseLoop) and loop.dataloader.num_workers > 0:
                shield_workers(loop.dataloader, heard)

    def before_train(self, runner: Runner) -> None:
        """End if a signal came while weights were loaded.

        Args:
            runner (Runner): The runner.
        """
        if code := self._agree():
            self._end(runner, code, 'before the first step; there was nothing to save')

    def after_train_iter(self, runner: Runner, *args: Any, **kwargs: Any) -> None:
        """Save and end if it is time to.

        Args:
            runner (Runner): The runner.
            *args: As MMEngine hands them in.
            **kwargs: Likewise.
        """
        if code := self._agree():
            where = f'after epoch {runner.epoch + 1}, iteration {runner.iter + 1}'
            self._save_and_end(runner, code, where)

    def before_val_epoch(self, runner: Runner) -> None:
        """Find out how many batches all processes have.

        Args:
            runner (Runner): The runner.
        """
        if self._active:
            batches = torch.tensor(len(runner.val_dataloader))
            if self._group is not None:
                dist.all_reduce(batches, dist.ReduceOp.MIN, self._group)
            self._val_batches = int(batches)

    def after_val_iter(
        self, runner: Runner, batch_idx: int, *args: Any, **kwargs: Any
    ) -> None:
        """Save and end if it is time to.

        Args:
            runner (Runner): The runner.
            batch_idx (int): Index of the batch.
            *args: As MMEngine hands them in.
            **kwargs: Likewise.
        """
        # Without `round_up` of the sampler a process may have one batch less, and
        # would be missed at the last one.
        if self._active and batch_idx < self._val_batches and (code := self._agree()):
            where = f'within the validation after iteration {runner.iter}'
            self._save_and_end(runner, code, where)

    def after_train(self, runner: Runner) -> None:
        """Leave the signals to whom they belonged.

        Args:
            runner (Runner): The runner.
        """
        self._active = False
        self._stop_listening()

    def _listen(self) -> None:
        if threading.current_thread() is not threading.main_thread():
            warnings.warn(
                'PreemptionHook: training runs in a thread, and only the main thread '
                'can receive signals. It acts at its time limit only.',
                stacklevel=2,
            )
            return
        for signum in (signal.SIGINT, *self.signals):
            # Of a training in this process that ended by an error.
            earlier = getattr(signal.getsignal(signum), '__self__', None)
            if isinstance(earlier, PreemptionHook):
                earlier._stop_listening()
            self._previous[signum] = signal.signal(signum, self._note)

    def _stop_listening(self) -> None:
        previous, self._previous = self._previous, {}
        for signum, handler in previous.items():
            signal.signal(signum, handler)

    def _note(self, signum: int, frame: FrameType | None) -> None:
        if not _is_training(frame):
            # An error has ended it, and the signal is meant for what runs now.
            self._stop_listening()
            if signal.getsignal(signum) == self._note:
                signal.signal(signum, signal.SIG_DFL)
            os.kill(os.getpid(), signum)
            return
        if signum == signal.SIGINT:
            now = time.monotonic()
            if self._interrupted_at is None:
                self._interrupted_at = now
                if is_main_process():
                    # Logging might be what was interrupted.
                    os.write(2, b'\nSaving after this step; Ctrl-C again to end now.\n')
            # A terminal and torchrun both send the first one.
            elif now - self._interrupted_at > 1:
                signal.signal(signal.SIGINT, signal.SIG_DFL)
                os.kill(os.getpid(), signal.SIGINT)
        self._received = max(self._received, signum)

    def _agree(self) -> int:
        """The signal that reached any process, or what stands for the time limit."""
        code = self._received
        if self.time_limit is not None and time.monotonic() - _START > self.time_limit:
            code = _TIME_LIMIT
        if self._group is None:
            return code
        flag = torch.tensor(code)
        dist.all_reduce(flag, dist.ReduceOp.MAX, self._group)
        return int(flag)

    def _save_and_end(self, runner: Runner, code: int, where: str) -> NoReturn:
        path = None if self._saver is None else self._saver.save_now(runner)
        saved = 'nothing was saved' if path is None else f'saved as {path}'
        self._end(runner, code, f'{where}; {saved}')

    def _end(self, runner: Runner, code: int, what: str) -> NoReturn:
        status = INTERRUPTED if code == signal.SIGINT else PREEMPTED
        cause = (
            f'time limit of {self.time_limit:.0f} s'
            if code == _TIME_LIMIT
            else signal.Signals(code).name
        )
        runner.logger.warning(
            f'Ended by {cause}, {what}. The same command with `--resume` goes on. '
            f'Exit status {status}.'
        )
        # What writes logs closes them here.
        runner.call_hook('after_run')
        if self._group is not None:
            # Who ends first is taken for the cause, and the others are killed.
            dist.barrier(self._group)
            end_process_group()
        restarts = int(os.environ.get('TORCHELASTIC_MAX_RESTARTS') or 0)
        if code == _TIME_LIMIT and restarts and os.environ['LOCAL_RANK'] == '0':
            # Torchrun would start all again, with as much time once more.
            os.kill(os.getppid(), signal.SIGTERM)
        # Python's last look through all objects takes seconds.
        atexit.register(gc.freeze)
        raise SystemExit(status)


def _is_training(frame: FrameType | None) -> bool:
    """Whether a runner's training is among the callers of a frame."""
    while frame is not None:
        # Also that of a subclass.
        named = frame.f_code.co_name == 'train'
        if named and isinstance(frame.f_locals.get('self'), Runner):
            return True
        frame = frame.f_back
    return False


def _find_saver(runner: Runner) -> SafeCheckpointHook | None:
    hooks = [hook for hook in runner.hooks if isinstance(hook, CheckpointHook)]
    for hook in hooks:
        if isinstance(hook, SafeCheckpointHook):
            return hook
    found = ', '.join(type(hook).__name__ for hook in hooks) or 'none'
    warnings.warn(
        f'PreemptionHook: hooks that write checkpoints: {found}. Only '
        'SafeCheckpointHook can save within an epoch, so a signal will end training '
        'without saving. Set `default_hooks.checkpoint` to '
        "dict(type='mmfakd.SafeCheckpointHook', ...), or let it inherit from that.",
        stacklevel=2,
    )
    return None


def _signal(name: str) -> signal.Signals:
    try:
        return signal.Signals[name]
    except KeyError:
        near = quoted(near_names(name, signal.Signals.__members__))
        raise ValueError(
            f'signals={name!r}: there is no such signal; near names: {near}.'
        ) from None


def _seconds(limit: float | str | None) -> float | None:
    if limit is None:
        return None
    match = re.fullmatch(r'(?:(?:(\d+)-)?(\d+):([0-5]\d):)?(\d+(?:\.\d*)?)', str(limit))
    if match is None:
        raise ValueError(
            f'time_limit={limit!r}: expected seconds, HH:MM:SS or D-HH:MM:SS.'
        )
    days, hours, minutes, seconds = (float(number or 0) for number in match.groups())
    return ((days * 24 + hours) * 60 + minutes) * 60 + seconds
