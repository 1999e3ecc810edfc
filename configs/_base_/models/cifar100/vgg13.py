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
vgg13_levels = [f'backbone.layer{i}' for i in (2, 3, 4, 5)] + ['neck.gap']
vgg13_preact = [f'backbone.layer{i}.conv2.bn' for i in (2, 3, 4, 5)] + ['neck.gap']
vgg13_channels = [128, 256, 512, 512, 512]
