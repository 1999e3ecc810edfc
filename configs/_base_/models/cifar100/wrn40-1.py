# Wide ResNet 40-1, and where its stages and its pooled feature are recorded.
wrn40_1 = dict(
    type='ImageClassifier',
    backbone=dict(type='mmrazor.WideResNet', depth=40, widen_factor=1),
    neck=dict(type='GlobalAveragePooling'),
    head=dict(
        type='LinearClsHead',
        num_classes=100,
        in_channels=64,
        loss=dict(type='CrossEntropyLoss', loss_weight=1.0),
        init_cfg=None,  # torch's own
    ),
)
wrn40_1_levels = [
    'backbone.layer2.0.relu1',
    'backbone.layer3.0.relu1',
    'backbone.relu',
    'neck.gap',
]
# Norm and activation of a stage stand at the head of the next.
wrn40_1_preact = [
    'backbone.layer2.0.bn1',
    'backbone.layer3.0.bn1',
    'backbone.bn1',
    'neck.gap',
]
wrn40_1_channels = [16, 32, 64, 64]
