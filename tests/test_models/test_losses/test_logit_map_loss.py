# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""The losses on maps of logits, against sums over pixels written out."""

import math

import pytest
import torch
from mmengine.registry import MODELS

KD = dict(type='mmrazor.KLDivergence', tau=2)
CWD = dict(type='mmrazor.ChannelWiseDivergence', tau=2)


def build(loss, **kwargs):
    return MODELS.build(dict(type='mmfakd.LogitMapLoss', loss=loss, **kwargs))


def logits(*shape, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator, dtype=torch.float64)


def softmax(values, tau):
    powers = [math.exp(value / tau) for value in values]
    return [power / sum(powers) for power in powers]


def divergence(ours, theirs, tau=2):
    """tau^2 KL(teacher, student) of two rows of logits."""
    pairs = zip(softmax(theirs.tolist(), tau), softmax(ours.tolist(), tau))
    return tau**2 * sum(p * math.log(p / q) for p, q in pairs)


def test_kd_is_a_mean_over_pixels():
    ours, theirs = logits(2, 3, 2, 4), logits(2, 3, 2, 4, seed=1)
    expected = [
        divergence(ours[n, :, y, x], theirs[n, :, y, x])
        for n in range(2)
        for y in range(2)
        for x in range(4)
    ]
    loss = build(KD, per_pixel=True, loss_weight=3)(ours, theirs)
    assert loss.item() == pytest.approx(3 * sum(expected) / len(expected))


def test_cwd_compares_the_pixels_of_a_channel():
    ours, theirs = logits(2, 3, 2, 4), logits(2, 3, 2, 4, seed=1)
    expected = [
        divergence(ours[n, c].flatten(), theirs[n, c].flatten())
        for n in range(2)
        for c in range(3)
    ]
    # A view of another memory format, which mmrazor's own loss refuses.
    ours = ours.to(memory_format=torch.channels_last)
    assert build(CWD)(ours, theirs).item() == pytest.approx(sum(expected) / 6)


def test_what_padding_is_left_out_of():
    """Maps keep their images; pixels are samples of one batch."""
    assert build(CWD).mean_over == 'images'
    assert build(KD, per_pixel=True).mean_over == 'batch'


@pytest.mark.parametrize(
    'size, ours_size, theirs_size, expected',
    [
        ('teacher', (4, 8), (8, 16), (8, 16)),
        ('teacher', (8, 16), (4, 8), (4, 8)),
        ('student', (4, 8), (8, 16), (4, 8)),
        ('smaller', (4, 8), (8, 16), (4, 8)),
        ('smaller', (8, 16), (4, 8), (4, 8)),
        # As of sizes that do not divide.
        ('smaller', (5, 9), (9, 17), (5, 9)),
    ],
)
def test_maps_of_two_sizes(size, ours_size, theirs_size, expected):
    ours, theirs = logits(2, 3, *ours_size), logits(2, 3, *theirs_size, seed=1)
    resized = [
        torch.nn.functional.interpolate(x, size=expected, mode='bilinear')
        for x in (ours, theirs)
    ]
    assert build(CWD, size=size)(ours, theirs) == build(CWD)(*resized)


def test_gradients_reach_the_student_alone():
    ours = logits(1, 3, 4, 4).requires_grad_()
    theirs = logits(1, 3, 2, 2, seed=1).requires_grad_()
    build(KD, per_pixel=True)(ours, theirs).backward()
    assert ours.grad.any() and theirs.grad is None


@pytest.mark.parametrize(
    'loss', [CWD, dict(type='mmrazor.ATLoss'), dict(type='mmrazor.PKDLoss')]
)
def test_losses_of_whole_maps_have_no_pixels(loss):
    """They fail on one, or are 0 there, as AT is."""
    with pytest.raises(ValueError, match='compares whole maps.*Leave `per_pixel` out'):
        build(loss, per_pixel=True)
    build(loss)


@pytest.mark.parametrize('kind', ['mmrazor.DKDLoss', 'mmfakd.NKDLoss'])
def test_losses_that_need_labels(kind):
    with pytest.raises(ValueError, match='needs preds_S, preds_T, gt_labels; expected'):
        build(dict(type=kind))


@pytest.mark.parametrize('around', ['LogitMapLoss', 'StandardizedLogitsLoss'])
def test_several_losses(around):
    with pytest.raises(ValueError, match=f'{around} got loss=.*config of one loss'):
        MODELS.build(dict(type=f'mmfakd.{around}', loss=[dict(KD), dict(KD)]))


def test_what_cannot_be_compared():
    maps = logits(1, 3, 4, 4)
    with pytest.raises(ValueError, match=r'student has \(1, 3\).*decode_head.conv_seg'):
        build(CWD)(logits(1, 3), maps)
    with pytest.raises(ValueError, match=r'class with class.*\(1, 3, .*\(1, 5, '):
        build(CWD)(maps, logits(1, 5, 4, 4))
    with pytest.raises(ValueError, match='softmax is 1.*ChannelWiseDivergence'):
        build(KD, per_pixel=True)(maps[:, :1], maps[:, :1])
    with pytest.raises(ValueError, match="size='larger'; expected one of"):
        build(CWD, size='larger')
    for loss, weight in ((CWD, -1), (dict(CWD, loss_weight=-1), 1)):
        with pytest.raises(ValueError, match='loss_weight'):
            build(loss, loss_weight=weight)
