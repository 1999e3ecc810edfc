# ResNet-56, and where its stages and its pooled feature are recorded.
r56 = dict(
    type='ImageClassifier',
    backbone=dict(type='mmfakd.CIFARResNet', depth=56),
    neck=dict(type='GlobalAveragePooling'),
    head=dict(
        type='LinearClsHead',
        num_classes=100,
        in_channels=64,
        loss=dict(type='CrossEntropyLoss', loss_weight=1.0),
        init_cfg=None,  # torch's own
    ),
)
r56_levels = ['backbone.layer1', 'backbone.layer2', 'backbone.layer3', 'neck.gap']
# Before the activation: what enters the last block's ReLU at its second call.
r56_preact = [
    dict(
        recorder=dict(type='mmrazor.ModuleInputs', source=f'backbone.layer{i}.8.relu'),
        record_idx=1,
        data_idx=0,
    )
    for i in (1, 2, 3)
] + ['neck.gap']
r56_channels = [16, 32, 64, 64]
