# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
import pytest
import torch

from mmfakd.models.backbones import CIFARMobileNetV2


@pytest.mark.parametrize(
    ('widen_factor', 'channels'),
    [
        (0.35, (8, 11, 33, 112, 1280)),
        (1.0, (24, 32, 96, 320, 1280)),
        (2.0, (48, 64, 192, 640, 2560)),
    ],
)
def test_widths_are_rounded_down(widen_factor, channels):
    model = CIFARMobileNetV2(widen_factor, expand_ratio=2, out_indices=range(5))
    model.eval()
    with torch.no_grad():
        outs = model(torch.rand(1, 3, 32, 32))
    assert tuple(out.shape[1] for out in outs) == channels


def test_bottlenecks_are_linear():
    model = CIFARMobileNetV2(out_indices=(0, 1, 2, 3, 4))
    model.eval()
    with torch.no_grad():
        *bottlenecks, last = model(torch.randn(2, 3, 32, 32))
    assert all(out.min() < 0 for out in bottlenecks)
    assert last.min() == 0
