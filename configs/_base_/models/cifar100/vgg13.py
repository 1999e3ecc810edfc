# VGG-13 with batch norm, and where its stages and its pooled feature are recorded.
vgg13 = dict(
    type='ImageClassifier',
    backbone=dict(type='mmfakd.CIFARVGG', depth=13),
    neck=dict(type='GlobalAveragePooling'),
    head=dict(
        type='LinearClsHead',
        num_classes=100,
        in_channels=512,
        loss=dict(type='CrossEntropyLoss', loss_weight=1.0),
    ),
)
vgg13_levels = [
    'backbone.layer2',
    'backbone.layer3',
    'backbone.layer4',
    'backbone.layer5',
    'neck.gap',
]
vgg13_preact = [
    'backbone.layer2.conv2.bn',
    'backbone.layer3.conv2.bn',
    'backbone.layer4.conv2.bn',
    'backbone.layer5.conv2.bn',
    'neck.gap',
]
vgg13_channels = [128, 256, 512, 512, 512]
