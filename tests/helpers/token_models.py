# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""Small real transformers of mmpretrain, and their levels."""

import torch
from mmpretrain.models.backbones import VisionTransformer
from mmpretrain.registry import MODELS
from torch import nn

from tests.helpers.toy import LEVELS, classifier

ARCH = dict(embed_dims=16, num_layers=2, num_heads=2, feedforward_channels=32)


class Registers(nn.Module):
    """Puts register tokens between the class token and the patches."""

    def __init__(self, count, channels):
        super().__init__()
        self.tokens = nn.Parameter(torch.randn(1, count, channels))

    def forward(self, x):
        return torch.cat([x[:, :1], self.tokens.expand(len(x), -1, -1), x[:, 1:]], 1)


@MODELS.register_module(force=True)
class RegisterViT(VisionTransformer):
    """DINOv2 with registers, which enter behind the position embedding."""

    def __init__(self, registers=4, layer_scale_init_value=1e-5, **kwargs):
        super().__init__(layer_scale_init_value=layer_scale_init_value, **kwargs)
        self.pre_norm = Registers(registers, self.embed_dims)
        self.registers = registers

    def _format_output(self, x, hw):
        return super()._format_output(
            torch.cat([x[:, :1], x[:, 1 + self.registers :]], 1), hw
        )


def vit_classifier(kind='VisionTransformer', layers=3, size=16, patch=4):
    """Config of a ViT with blocks of 16 channels over a grid of size / patch."""
    head = 'DeiTClsHead' if kind == 'DistilledVisionTransformer' else None
    return dict(
        type='ImageClassifier',
        _scope_='mmpretrain',
        backbone=dict(
            type=kind,
            arch=dict(ARCH, num_layers=layers),
            img_size=size,
            patch_size=patch,
        ),
        head=dict(
            type=head or 'VisionTransformerClsHead', num_classes=10, in_channels=16
        ),
    )


def swin_classifier():
    """Config of a Swin with stages of 8 to 32 channels, 1/2, 1/4 and 1/8 in size."""
    return dict(
        type='ImageClassifier',
        _scope_='mmpretrain',
        backbone=dict(
            type='SwinTransformer',
            arch=dict(embed_dims=8, depths=[1, 2, 1], num_heads=[1, 2, 2]),
            patch_size=2,
            window_size=2,
            out_indices=(2,),
        ),
        neck=dict(type='GlobalAveragePooling'),
        head=dict(type='LinearClsHead', num_classes=10, in_channels=32),
    )


def _blocks(prefix):
    tokens = dict(prefix=prefix)
    return [dict(recorder=f'backbone.layers.{i}', tokens=tokens) for i in range(3)]


# Config, levels, their channels, and their grids on 16 x 16 images.
MODELS_WITH_LEVELS = {
    'cnn': (classifier(), LEVELS, [4, 8, 16, 16], [16, 8, 4, 1]),
    'vit': (
        vit_classifier(),
        [*_blocks(1), dict(recorder='backbone', data_idx=0)],
        [16] * 4,
        [4, 4, 4, 1],
    ),
    'deit': (
        vit_classifier('DistilledVisionTransformer'),
        [*_blocks(2), dict(recorder='backbone', data_idx=(0, 0))],
        [16] * 4,
        [4, 4, 4, 1],
    ),
    'registers': (
        vit_classifier('RegisterViT', patch=2),
        [*_blocks(5), dict(recorder='backbone', data_idx=0)],
        [16] * 4,
        [8, 8, 8, 1],
    ),
    'swin': (
        swin_classifier(),
        [*(f'backbone.stages.{i}' for i in range(3)), 'neck.gap'],
        [8, 16, 32, 32],
        [8, 4, 2, 1],
    ),
}
