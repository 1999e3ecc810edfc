# ResNet-32, and where its stages and its pooled feature are recorded.
r32 = dict(
    type='ImageClassifier',
    backbone=dict(type='mmfakd.CIFARResNet', depth=32),
    neck=dict(type='GlobalAveragePooling'),
    head=dict(
        type='LinearClsHead',
        num_classes=100,
        in_channels=64,
        loss=dict(type='CrossEntropyLoss', loss_weight=1.0),
        init_cfg=None,  # torch's own
    ),
)
r32_levels = ['backbone.layer1', 'backbone.layer2', 'backbone.layer3', 'neck.gap']
# Before the activation: what enters the last block's ReLU at its second call.
r32_preact = [
    dict(
        recorder=dict(type='mmrazor.ModuleInputs', source=f'backbone.layer{i}.4.relu'),
        record_idx=1,
        data_idx=0,
    )
    for i in (1, 2, 3)
] + ['neck.gap']
r32_channels = [16, 32, 64, 64]
