# ShuffleNetV1, and where its stages and its pooled feature are recorded.
shuv1 = dict(
    type='ImageClassifier',
    backbone=dict(type='mmfakd.CIFARShuffleNetV1'),
    neck=dict(type='GlobalAveragePooling'),
    head=dict(
        type='LinearClsHead',
        num_classes=100,
        in_channels=960,
        loss=dict(type='CrossEntropyLoss', loss_weight=1.0),
        init_cfg=None,  # torch's own
    ),
)
shuv1_levels = ['backbone.layer1', 'backbone.layer2', 'backbone.layer3', 'neck.gap']
shuv1_preact = [
    'backbone.layer1.3.preact',
    'backbone.layer2.7.preact',
    'backbone.layer3.3.preact',
    'neck.gap',
]
shuv1_channels = [240, 480, 960, 960]
