# VGG-8 with batch norm, and where its stages and its pooled feature are recorded.
vgg8 = dict(
    type='ImageClassifier',
    backbone=dict(type='mmfakd.CIFARVGG', depth=8),
    neck=dict(type='GlobalAveragePooling'),
    head=dict(
        type='LinearClsHead',
        num_classes=100,
        in_channels=512,
        loss=dict(type='CrossEntropyLoss', loss_weight=1.0),
    ),
)
vgg8_levels = [
    'backbone.layer2',
    'backbone.layer3',
    'backbone.layer4',
    'backbone.layer5',
    'neck.gap',
]
vgg8_preact = [
    'backbone.layer2.conv1.bn',
    'backbone.layer3.conv1.bn',
    'backbone.layer4.conv1.bn',
    'backbone.layer5.conv1.bn',
    'neck.gap',
]
vgg8_channels = [128, 256, 512, 512, 512]
