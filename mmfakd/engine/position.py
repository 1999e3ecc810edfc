# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""Where a training stands beyond epoch and iteration: batch, random states, gradients.

Plain values and tensors only, as checkpoints hold nothing else.
"""

from __future__ import annotations

import random
import time
from typing import Any

import numpy as np
import torch
from mmengine.dist import all_gather_object, get_rank, get_world_size
from mmengine.optim import OptimWrapper
from mmengine.runner import EpochBasedTrainLoop, Runner
from torch import Tensor

from mmfakd.checkpoints.latest import saved_at

from .kept_numbers import kept_numbers
from .unwrap import optim_wrappers, unwrapped_model


def collect_position(
    runner: Runner, batch: int, states: dict[str, Any] | None = None
) -> dict[str, Any]:
    """Describe where a training stands. Every process has to call it.

    Args:
        runner (Runner): The runner.
        batch (int): Batches of the current epoch that are done.
        states (dict, optional): What :func:`random_states` returned in this process
            where training is to go on from. Defaults to None: the present ones.

    Returns:
        dict: ``batch``; ``epoch_length`` in batches; ``time`` in seconds, which is
        later than before in the same training, whatever the clock says; ``random``,
        the states of every process; ``buffers``, the running statistics of every
        process but the first, whose are those of the checkpoint; ``gradients``, those
        of every process where a cycle of gradient accumulation is not complete:
        parameter name -> its gradient; ``cycles``, see :func:`accumulation_cycles`;
        ``numbers``, those of every process, see
        :func:`~mmfakd.engine.kept_numbers.kept_numbers`.
    """
    in_epochs = isinstance(runner.train_loop, EpochBasedTrainLoop)
    return dict(
        batch=batch,
        # Other data need not have a length.
        epoch_length=len(runner.train_dataloader) if in_epochs else 0,
        time=_next_time(runner),
        random=all_gather_object(random_states() if states is None else states),
        buffers=all_gather_object(_own_buffers(runner)),
        gradients=all_gather_object(_gradients(runner)),
        cycles=accumulation_cycles(runner),
        numbers=all_gather_object(kept_numbers(unwrapped_model(runner))),
    )


def go_on_from(runner: Any, checkpoint: dict[str, Any]) -> None:
    """Let what is saved from now on be newer than a checkpoint.

    Args:
        runner (Runner): The runner.
        checkpoint (dict): What training goes on from.
    """
    runner.mmfakd_saved_at = saved_at(checkpoint)


def _next_time(runner: Any) -> float:
    """The time, or just behind that of the last position if the clock is behind it.

    The newest checkpoint is found by it, and machines do not agree on the time.
    """
    last = getattr(runner, 'mmfakd_saved_at', 0.0)
    runner.mmfakd_saved_at = max(time.time(), last + 1e-3)
    return runner.mmfakd_saved_at


def random_states() -> dict[str, Any]:
    """Read the states of this process's generators of random numbers.

    Returns:
        dict: States of ``random``, numpy, torch, and torch on the current GPU.
    """
    name, keys, *rest = np.random.get_state()
    states = dict(
        python=random.getstate(),
        numpy=(name, torch.from_numpy(np.asarray(keys, np.int64)), *rest),
        torch=torch.get_rng_state(),
    )
    if torch.cuda.is_available():
        states['cuda'] = torch.cuda.get_rng_state()
    return states


def restore_random(states: list[dict[str, Any]]) -> None:
    """Set the generators of this process to a saved state.

    Args:
        states (list[dict]): Those of every process, as :func:`random_states` returns
            them. Nothing is done where this process had none.
    """
    if get_rank() >= len(states):
        return
    own = states[get_rank()]
    version, numbers, gauss = own['python']
    random.setstate((version, tuple(numbers), gauss))
    name, keys, *rest = own['numpy']
    np.random.set_state((name, keys.cpu().numpy().astype(np.uint32), *rest))
    torch.set_rng_state(own['torch'].cpu())
    if 'cuda' in own and torch.cuda.is_available():
        torch.cuda.set_rng_state(own['cuda'].cpu())


def drew_alike(states: list[dict[str, Any]]) -> bool:
    """Tell whether transforms have drawn the numbers that they drew until states.

    Args:
        states (list[dict]): Those of every process, as :func:`random_states` returns
            them.

    Returns:
        bool: Whether ``random`` and numpy of this process are in the saved state now.
        torch is left out: models draw from it, too.
    """
    if get_rank() >= len(states):
        return False
    own = states[get_rank()]
    version, numbers, gauss = own['python']
    _, keys, *rest = own['numpy']
    _, drawn, *others = np.random.get_state()
    same = random.getstate() == (version, tuple(numbers), gauss)
    return same and others == rest and keys.tolist() == list(drawn)


def restore_buffers(runner: Runner, buffers: list[dict[str, Tensor]]) -> None:
    """Give the model of this process its own running statistics.

    DDP leaves them to each process where ``broadcast_buffers`` is off, as in MMEngine.

    Args:
        runner (Runner): The runner.
        buffers (list[dict[str, Tensor]]): Those of every process: name -> buffer.
    """
    own = buffers[get_rank()] if get_rank() < len(buffers) else {}
    for name, buffer in unwrapped_model(runner).named_buffers():
        if name in own and own[name].shape == buffer.shape:
            buffer.copy_(own[name])


def loss_scales(state: dict[str, Any]) -> list[float]:
    """Read by what the losses, and so the gradients, of a checkpoint are multiplied.

    Args:
        state (dict): State of an ``OptimWrapper`` or ``OptimWrapperDict``.

    Returns:
        list[float]: That of each optimizer; 1 where no scaler keeps gradients in the
        range of half precision.
    """
    parts = [state] if 'param_groups' in state else list(state.values())
    return [part.get('loss_scaler', {}).get('scale', 1.0) for part in parts]


def restore_gradients(
    runner: Runner, gradients: list[dict[str, Tensor]], scales: list[float]
) -> None:
    """Give parameters the gradients of a cycle that was not complete.

    Args:
        runner (Runner): The runner.
        gradients (list[dict[str, Tensor]]): Those of every process: parameter name ->
            gradient of its shape. Other processes than there are now: their mean.
        scales (list[float]): What they are multiplied by, as :func:`loss_scales`
            returns it. The present scaler divides by its own.
    """
    if len(gradients) == get_world_size():
        gradients = [gradients[get_rank()]]
    factors = _scale_factors(runner, scales)
    for name, parameter in unwrapped_model(runner).named_parameters():
        found = [own[name] for own in gradients if name in own]
        if found:
            mean = torch.stack(found).sum(0) / len(gradients)
            parameter.grad = (mean * factors.get(id(parameter), 1.0)).to(parameter)


def _scale_factors(runner: Runner, then: list[float]) -> dict[int, float]:
    """Map the id of each parameter to its present loss scale over that of before."""
    factors: dict[int, float] = {}
    for wrapper, scale in zip(optim_wrappers(runner.optim_wrapper), then):
        scaler = getattr(wrapper, 'loss_scaler', None)
        factor = (scaler.get_scale() if scaler is not None else 1.0) / scale
        for group in wrapper.param_groups:
            factors.update((id(parameter), factor) for parameter in group['params'])
    return factors


def at_update(runner: Runner) -> bool:
    """Tell whether no optimizer is within a cycle of gradient accumulation.

    Args:
        runner (Runner): The runner.

    Returns:
        bool: Whether gradients that parameters have are done with.
    """
    wrappers = optim_wrappers(runner.optim_wrapper)
    return all(not isinstance(w, OptimWrapper) or w.should_update() for w in wrappers)


def accumulation_cycles(runner: Runner) -> list[list[int]]:
    """Tell how far each optimizer is in its cycle of gradient accumulation.

    Args:
        runner (Runner): The runner.

    Returns:
        list[list[int]]: Batches that are done, and batches of a cycle.
    """
    wrappers = optim_wrappers(runner.optim_wrapper)
    return [
        [w._inner_count % w._accumulative_counts, w._accumulative_counts]
        for w in wrappers
        if isinstance(w, OptimWrapper)
    ]


def _gradients(runner: Runner) -> dict[str, Tensor]:
    if at_update(runner):
        return {}
    return {
        name: parameter.grad.to('cpu', copy=True)
        for name, parameter in unwrapped_model(runner).named_parameters()
        if parameter.grad is not None
    }


def _own_buffers(runner: Runner) -> dict[str, Tensor]:
    if get_rank() == 0:
        return {}
    buffers = unwrapped_model(runner).named_buffers()
    return {name: b.cpu() for name, b in buffers if b.is_floating_point()}
