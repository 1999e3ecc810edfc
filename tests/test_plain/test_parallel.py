# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""Distillation in a plain loop of two processes."""

import copy
from contextlib import ExitStack
from unittest.mock import patch

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from tests.helpers.plain_models import Checkpointed, distilled, images, pair
from tests.helpers.two_processes import run_twice

STEPS = 3


def train(student, distillation, forward, data, sync=(), every=1):
    """Gradients and losses of steps, of which each sums `every` batches."""
    modules = [*student.parameters(), *distillation.parameters()]
    optimizer = torch.optim.SGD(modules, lr=0.1)
    for i, batch in enumerate(data):
        last = i % every == every - 1
        with ExitStack() as stack:
            for module in () if last else sync:
                stack.enter_context(module.no_sync())
            logits = student(batch)
            own = F.cross_entropy(logits, torch.arange(len(batch)) % 5)
            loss = own + forward(own=own)
            (loss / every).backward()
        if last:
            optimizer.step()
            optimizer.zero_grad()


def states(*modules):
    return [p.detach() for module in modules for p in module.parameters()]


def evaluated(distillation):
    """Norms by their statistics, so that a batch may be split."""
    for module in distillation.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.eval()
    return distillation


def two_ranks(rank):
    """All in one start of the processes."""
    train_as_one(rank, wrapped_before=True, every=1)
    train_as_one(rank, wrapped_before=False, every=2)
    apart(rank)
    beside_a_reentrant_checkpoint(rank)
    below_a_static_graph(rank)


def beside_a_reentrant_checkpoint(rank):
    """Nothing disturbs a wrapper that waits for gradients."""
    student, teacher = pair()
    student[1] = Checkpointed(nn.ModuleList([student[1]]), reentrant=True)
    made = distilled(student, teacher, ['2'], report=True)
    trained_alike(rank, DistributedDataParallel(student), made)
    assert 'would disturb the training' in made.first_step.unmeasured


def below_a_static_graph(rank):
    """A wrapper that counts its backward passes counts those of the training."""
    student, teacher = pair()
    made = distilled(student, teacher, report=True)
    trained_alike(rank, DistributedDataParallel(student, static_graph=True), made)
    assert 'static_graph=True' in made.first_step.notes[-1]
    student, teacher = pair()
    made = distilled(student, teacher, report=True)
    wrapped = DistributedDataParallel(student, find_unused_parameters=True)
    trained_alike(rank, wrapped, made)
    assert made.first_step.levels[0].ratio > 0


def trained_alike(rank, student, distillation):
    made = DistributedDataParallel(distillation)
    for i in range(2):
        student.zero_grad()
        made.zero_grad()
        own = F.cross_entropy(student(images(rank + 5 * i)), torch.arange(4))
        (own + made(own=own)).backward()
        same_gradients(student, made)


def same_gradients(student, made):
    for module in (student, made):
        for p in module.parameters():
            other = p.grad.clone()
            dist.broadcast(other, 0)
            assert torch.equal(p.grad, other)


def train_as_one(rank, wrapped_before, every):
    """Both ranks train as one process does with both their batches."""
    student, teacher = pair()
    evaluated(student)
    alone = copy.deepcopy((student, teacher))
    reference = evaluated(distilled(*alone))
    if wrapped_before:
        student = DistributedDataParallel(student)
        distillation = distilled(
            student, teacher, ['module.0', 'module.1'], report=True
        )
    else:
        distillation = distilled(student, teacher, report=True)
        student = DistributedDataParallel(student)
    inner = evaluated(distillation)
    distillation = DistributedDataParallel(distillation, broadcast_buffers=False)
    data = [images(seed) for seed in range(STEPS * every)]
    halves = [batch[2 * rank : 2 * rank + 2] for batch in data]
    train(student, distillation, distillation, halves, (student, distillation), every)
    train_whole(alone[0], reference, data, every)
    assert inner.first_step is not None and inner.losses
    for ours, theirs in zip(states(student, inner), states(alone[0], reference)):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-6)
        other = ours.clone()
        dist.broadcast(other, 0)
        assert torch.equal(ours, other)
    # What is saved has the names of one process.
    assert inner.state_dict().keys() == reference.state_dict().keys()


def train_whole(student, distillation, data, every):
    """As `train`, with the labels of the two halves."""
    optimizer = torch.optim.SGD(
        [*student.parameters(), *distillation.parameters()], lr=0.1
    )
    for i, batch in enumerate(data):
        own = F.cross_entropy(student(batch), torch.tensor([0, 1, 0, 1]))
        ((own + distillation.loss()) / every).backward()
        if i % every == every - 1:
            optimizer.step()
            optimizer.zero_grad()


def apart(rank):
    """Without a wrapper the connectors would part, and that is told."""
    student, teacher = pair()
    distillation = distilled(student, teacher)
    student = DistributedDataParallel(student)
    student(images(rank))
    with patch('mmfakd.plain.distillation.print_log') as said:
        distillation.loss()
        student(images(rank))
        distillation.loss()
    assert said.call_count == 1
    assert 'distillation = DistributedDataParallel' in said.call_args[0][0]


def test_two_processes_train_as_one_and_unwrapped_connectors_are_told():
    run_twice(two_ranks)
