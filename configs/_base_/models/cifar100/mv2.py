# MobileNetV2 of half width, and where its stages and its pooled feature are recorded.
mv2 = dict(
    type='ImageClassifier',
    backbone=dict(type='mmfakd.CIFARMobileNetV2'),
    neck=dict(type='GlobalAveragePooling'),
    head=dict(
        type='LinearClsHead',
        num_classes=100,
        in_channels=1280,
        loss=dict(type='CrossEntropyLoss', loss_weight=1.0),
    ),
)
mv2_levels = [f'backbone.layer{i}' for i in (1, 2, 3, 4)] + ['neck.gap']
# Its stages end in linear bottlenecks, which no activation follows.
mv2_preact = mv2_levels
mv2_channels = [12, 16, 48, 160, 1280]
