# Wide ResNet 16-2, and where its stages and its pooled feature are recorded.
wrn16_2 = dict(
    type='ImageClassifier',
    backbone=dict(type='mmrazor.WideResNet', depth=16, widen_factor=2),
    neck=dict(type='GlobalAveragePooling'),
    head=dict(
        type='LinearClsHead',
        num_classes=100,
        in_channels=128,
        loss=dict(type='CrossEntropyLoss', loss_weight=1.0),
        init_cfg=None,  # torch's own
    ),
)
wrn16_2_levels = [
    'backbone.layer2.0.relu1',
    'backbone.layer3.0.relu1',
    'backbone.relu',
    'neck.gap',
]
# Norm and activation of a stage stand at the head of the next.
wrn16_2_preact = [
    'backbone.layer2.0.bn1',
    'backbone.layer3.0.bn1',
    'backbone.bn1',
    'neck.gap',
]
wrn16_2_channels = [32, 64, 128, 128]
