# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""Whether connectors move is found out, and then no longer asked."""

from unittest.mock import patch

import pytest
import torch
from torch import nn

from mmfakd.plain import moves
from mmfakd.plain.moves import Moves


def move(model):
    """As a fused optimizer does: the version stays."""
    for parameter in model.parameters():
        parameter.data.add_(1)


@pytest.mark.parametrize(
    ('moved', 'told', 'known'),
    [
        # Which of student (s) and connectors (c) move before each further call.
        (['', '', ''], [False] * 3, False),
        (['s', '', 's', 's'], [False, False, True, False], True),
        (['s', 'sc'], [False] * 2, True),
        (['sc', 's', 's'], [False] * 3, True),
        (['c', 's', 's'], [False] * 3, True),
    ],
)
def test_who_moves(moved, told, known):
    student, connectors = nn.Linear(2, 2), nn.BatchNorm2d(2)
    found = Moves()
    assert not found.left_out(student, connectors)
    for which, expected in zip(moved, told):
        for name, model in (('s', student), ('c', connectors)):
            if name in which:
                move(model)
        assert found.left_out(student, connectors) == expected
    assert found.known == known


def test_looking_ends():
    """Values are read until it is known, and of nobody for ever."""
    student, connectors = nn.Linear(2, 2), nn.Linear(2, 2)
    found = Moves()
    with patch.object(moves, '_state', wraps=moves._state) as state:
        for _ in range(1000):
            assert not found.left_out(student, connectors)
    assert state.call_count < 600 and found.known
    found = Moves()
    with patch.object(moves, '_state', wraps=moves._state) as state:
        for _ in range(5):
            found.left_out(student, connectors)
            torch._foreach_add_([p.data for p in student.parameters()], 1)
            with torch.no_grad():
                torch._foreach_add_(list(connectors.parameters()), 1)
    assert state.call_count == 2 and found.known


def test_weights_of_all_kinds():
    weights = [
        torch.zeros(2, 3, 4, 4).to(memory_format=torch.channels_last),
        torch.zeros(()),
        torch.zeros(0),
        torch.zeros(2, dtype=torch.complex64),
        torch.zeros(2, dtype=torch.bfloat16),
    ]
    model = nn.ParameterList(weights)
    assert moves._state(model) == (0, [0] * 8)
    assert moves._state(model.requires_grad_(False)) == (0, [])
    assert len(moves._state(nn.ModuleList(nn.Linear(1, 1) for _ in range(99)))[1]) < 33
    nothing_learns = Moves()
    assert not nothing_learns.left_out(nn.Linear(1, 1), model)
    assert nothing_learns.known
