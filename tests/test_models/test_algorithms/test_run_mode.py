# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""Models run as deep as their recorded layers need it."""

import pytest
import torch
from mmengine.model import BaseModel
from torch import nn

from mmfakd.models.algorithms.run_mode import run_model


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
