# ShuffleNetV2, and where its stages and its pooled feature are recorded.
shuv2 = dict(
    type='ImageClassifier',
    backbone=dict(type='mmfakd.CIFARShuffleNetV2'),
    neck=dict(type='GlobalAveragePooling'),
    head=dict(
        type='LinearClsHead',
        num_classes=100,
        in_channels=1024,
        loss=dict(type='CrossEntropyLoss', loss_weight=1.0),
        init_cfg=None,  # torch's own
    ),
)
shuv2_levels = ['backbone.layer1', 'backbone.layer2', 'backbone.layer3', 'neck.gap']
shuv2_preact = [
    'backbone.layer1.3.preact',
    'backbone.layer2.7.preact',
    'backbone.layer3.3.preact',
    'neck.gap',
]
shuv2_channels = [116, 232, 464, 1024]
