# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""Small real models and configs that several tests build on."""

import copy

import torch
from mmengine.config import ConfigDict
from mmengine.registry import MODELS

import mmfakd  # noqa: F401


def classifier(width=4, num_classes=10, in_channels=3, **kwargs):
    """Config of a residual mmpretrain classifier with stages of 1, 1/2, 1/4 size."""
    return dict(
        type='ImageClassifier',
        _scope_='mmpretrain',
        backbone=dict(
            type='ResNet_CIFAR',
            depth=18,
            in_channels=in_channels,
            stem_channels=width,
            base_channels=width,
            num_stages=3,
            strides=(1, 2, 2),
            dilations=(1, 1, 1),
            out_indices=(2,),
        ),
        neck=dict(type='GlobalAveragePooling'),
        head=dict(
            type='LinearClsHead',
            num_classes=num_classes,
            in_channels=4 * width,
            loss=dict(type='CrossEntropyLoss'),
        ),
        **kwargs,
    )


LEVELS = ['backbone.layer1', 'backbone.layer2', 'backbone.layer3', 'neck.gap']


def review_distiller(width=4, teacher_width=8, size=8, **kwargs):
    """Config of FAM-KD with review for a pair of ``classifier``."""
    factors = (1, 2, 4, 4)
    return dict(
        type='mmfakd.ReviewDistiller',
        student_levels=LEVELS,
        teacher_levels=LEVELS,
        connector=dict(
            type='mmfakd.ReviewConnector',
            in_channels=[width * f for f in factors],
            out_channels=[teacher_width * f for f in factors],
            sizes=[size, size // 2, size // 4, 1],
        ),
        **kwargs,
    )


def reviewkd_distiller(**connector):
    """Config of ReviewKD for the same pair; `connector` overrides its connector."""
    cfg = review_distiller(level_loss=dict(type='mmfakd.HierarchicalContextLoss'))
    cfg['connector'].update(
        mid_channels=8,
        fusion=dict(type='mmfakd.AttentionBasedFusion'),
        transform=dict(type='mmfakd.ConvTransform'),
        always_match=True,
        match_act_cfg=None,
        act_cfg=None,
    )
    cfg['connector'].update(connector)
    return cfg


def layer_distiller(source='backbone.layer3', loss='mmrazor.L2Loss', channels=(16, 32)):
    """Config of mmrazor's stock distiller with one frequency-attention connector."""
    recorders = dict(feature=dict(type='mmrazor.ModuleOutputs', source=source))
    return dict(
        type='mmrazor.ConfigurableDistiller',
        student_recorders=recorders,
        teacher_recorders=copy.deepcopy(recorders),
        connectors=dict(
            fam=dict(
                type='mmfakd.FrequencyAttentionConnector',
                in_channels=channels[0],
                out_channels=channels[1],
                modes=4,
            )
        ),
        distill_losses=dict(loss_fam=dict(type=loss)),
        loss_forward_mappings=dict(
            loss_fam=dict(
                s_feature=dict(recorder='feature', from_student=True, connector='fam'),
                t_feature=dict(recorder='feature', from_student=False),
            )
        ),
    )


POOL = dict(
    type='mmrazor.TorchNNConnector',
    module_name='AvgPool2d',
    module_args=dict(kernel_size=2),
)


def convolution(in_channel, out_channel, **kwargs):
    """Config of mmrazor's connector of a 1x1 convolution with a batch norm."""
    return dict(
        type='mmrazor.ConvModuleConnector',
        in_channel=in_channel,
        out_channel=out_channel,
        norm_cfg=dict(type='BN'),
        **kwargs,
    )


def feature_distill(**kwargs):
    """Build FeatureDistill for a pair of ``classifier`` at 8 x 8 pixels."""
    cfg = dict(
        type='mmfakd.FeatureDistill',
        architecture=classifier(),
        teacher=classifier(width=8),
        distiller=review_distiller(),
    )
    cfg.update(kwargs)
    return MODELS.build(ConfigDict(cfg))


def batch(count=4, size=8, channels=3, num_classes=10):
    """A batch as an mmpretrain data loader gives it, before preprocessing."""
    from mmpretrain.structures import DataSample

    return dict(
        inputs=torch.randint(0, 256, (count, channels, size, size), dtype=torch.uint8),
        data_samples=[DataSample().set_gt_label(i % num_classes) for i in range(count)],
    )


def losses_of(model, data):
    """Preprocess a batch as in training and compute the losses."""
    return model(**model.data_preprocessor(data, True), mode='loss')


def step(model, data):
    """One backward pass; returns the losses."""
    losses = losses_of(model, data)
    model.parse_losses(losses)[0].backward()
    return losses


def without_gradient(model):
    """Names of trainable parameters that got no gradient, or an all-zero one."""
    return [
        name
        for name, p in model.named_parameters()
        if p.requires_grad and (p.grad is None or not p.grad.any())
    ]
