# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""Small modules without any library, and their distillation."""

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

import mmfakd

IMAGES = (4, 3, 16, 16)


def network(width=4, classes=5):
    """Two stages with in-place activations, pooling and a linear layer."""

    def stage(inputs, outputs):
        return nn.Sequential(
            nn.Conv2d(inputs, outputs, 3, 2, 1),
            nn.BatchNorm2d(outputs),
            nn.ReLU(inplace=True),
        )

    return nn.Sequential(
        stage(3, width),
        stage(width, 2 * width),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(2 * width, classes),
    )


class Checkpointed(nn.Module):
    """A network whose stages are computed again in the backward pass."""

    def __init__(self, layers, reentrant):
        super().__init__()
        self.layers, self.reentrant = layers, reentrant

    def forward(self, x):
        for i, layer in enumerate(self.layers):
            if i < 2:
                x = checkpoint(layer, x, use_reentrant=self.reentrant)
            else:
                x = layer(x)
        return x


def pair(width=4, teacher_width=6):
    """A student and a teacher, the same each time."""
    torch.manual_seed(0)
    return network(width), network(teacher_width)


def images(seed=1, shape=IMAGES):
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed))


def distilled(student, teacher, layers=('0', '1'), **kwargs):
    """Their distillation, with the same initial weights each time."""
    torch.manual_seed(2)
    kwargs = {'example_input': torch.zeros(1, *IMAGES[1:]), 'report': False, **kwargs}
    return mmfakd.distill(student, teacher, list(layers), **kwargs)
