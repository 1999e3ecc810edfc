# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
import pytest
import torch
import torch.nn.functional as F
from mmengine.registry import MODELS

from mmfakd.models.losses import HierarchicalContextLoss, hierarchical_context_loss
from tests.helpers.golden import load_golden


def test_golden():
    golden = load_golden('review_kd_small4')
    loss = hierarchical_context_loss(
        [golden[f'out{i}'] for i in range(4)], [golden[f'teacher{i}'] for i in range(4)]
    )
    assert loss.item() == pytest.approx(golden['loss'].item(), rel=1e-5)


@pytest.mark.parametrize(
    ('size', 'scales'),
    [
        ((8, 8), [8, 4, 2, 1]),
        ((5, 9), [5, 4, 2, 1]),
        ((9, 4), [9, 2, 1]),
        ((4, 4), [4, 2, 1]),
        ((2, 7), [2, 1]),
        ((1, 1), [1]),
        ((1, 5), [1]),
    ],
)
def test_scales(size, scales):
    student, teacher = torch.randn(2, 3, 4, *size, dtype=torch.float64)
    weights = [0.5**i for i in range(len(scales))]
    errors = [F.mse_loss(student, teacher)] + [
        F.mse_loss(F.adaptive_avg_pool2d(student, n), F.adaptive_avg_pool2d(teacher, n))
        for n in scales[1:]
    ]
    expected = sum(w * e for w, e in zip(weights, errors)) / sum(weights)
    loss = hierarchical_context_loss(student, teacher)
    assert loss.item() == pytest.approx(expected.item())


def test_class():
    loss = MODELS.build(dict(type='mmfakd.HierarchicalContextLoss', loss_weight=0.5))
    assert isinstance(loss, HierarchicalContextLoss)
    student = torch.ones(2, 3, requires_grad=True)
    value = loss(s_feature=(student,), t_feature=[torch.zeros(2, 3)])
    assert value == 0.5
    value.backward()
    assert torch.allclose(student.grad, torch.full((2, 3), 1 / 6))


@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16])
def test_half_precision(dtype):
    student, teacher = torch.randn(2, 2, 3, 7, 6)
    expected = hierarchical_context_loss(student.to(dtype).float(), teacher)
    with torch.autocast('cpu', dtype=torch.bfloat16):
        loss = hierarchical_context_loss(student.to(dtype), teacher)
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(expected.item())


def test_bad_inputs():
    with pytest.raises(ValueError, match='HierarchicalContextLoss, level 0: got a stu'):
        HierarchicalContextLoss()(torch.ones(1, 2, 4, 4), torch.ones(1, 2, 8, 8))
    with pytest.raises(ValueError, match='got 2 student and 1 teacher features'):
        HierarchicalContextLoss()([torch.ones(1, 2)] * 2, torch.ones(1, 2))


@pytest.mark.parametrize('weight', [-1, float('nan'), 'x', None])
def test_bad_weight(weight):
    with pytest.raises(ValueError, match=f'got loss_weight={weight!r}, expected'):
        HierarchicalContextLoss(loss_weight=weight)
