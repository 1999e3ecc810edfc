# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""Models run as deep as their recorded layers need it."""

from types import SimpleNamespace

import pytest
import torch
from mmengine.model import BaseModel
from torch import nn

from mmfakd.models.algorithms.run_mode import (
    recorded_part,
    run_model,
    shallowest_mode,
)


class Volumes(BaseModel):
    """Of batches (N, C, D, H, W), as of tomography."""

    def __init__(self):
        super().__init__()
        self.backbone = nn.Conv3d(1, 4, 3)

    def extract_feat(self, inputs):
        return self.backbone(inputs)

    def forward(self, inputs, data_samples=None, mode='tensor'):
        return self.extract_feat(inputs)


@pytest.mark.parametrize('mode', ['backbone', 'neck', 'tensor'])
@pytest.mark.parametrize('images', [1, 2])
def test_volumes(mode, images):
    """They are no samples of several images."""
    found = run_model(Volumes(), mode, torch.rand(images, 1, 6, 8, 8), None)
    assert found.shape == (images, 4, 4, 6, 6)


def masking(x, mask=True):
    """As the backbone of an MAE."""


def not_masking(x, mask=None):
    """As that of another model, which takes a mask where one is given."""


@pytest.mark.parametrize(
    ('forward', 'mode'),
    [(masking, 'neck'), (not_masking, 'backbone'), (lambda x: x, 'backbone')],
)
def test_backbones_that_mask_by_default_are_not_run_alone(forward, mode):
    model = Volumes()
    model.backbone.forward = forward
    recorders = dict(one=SimpleNamespace(source='backbone.layers.1'))
    manager = SimpleNamespace(recorders=recorders)
    assert shallowest_mode(model, manager) == mode
    # No more weights are needed for it.
    assert recorded_part(model, manager) == 'backbone'
