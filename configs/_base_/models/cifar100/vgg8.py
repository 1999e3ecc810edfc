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
vgg8_levels = [f'backbone.layer{i}' for i in (2, 3, 4, 5)] + ['neck.gap']
vgg8_preact = [f'backbone.layer{i}.conv1.bn' for i in (2, 3, 4, 5)] + ['neck.gap']
vgg8_channels = [128, 256, 512, 512, 512]
