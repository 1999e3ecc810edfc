# ResNet-50 for 32 pixels, and where its stages and its pooled feature are recorded.
r50 = dict(
    type='ImageClassifier',
    backbone=dict(type='ResNet_CIFAR', depth=50, zero_init_residual=False),
    neck=dict(type='GlobalAveragePooling'),
    head=dict(
        type='LinearClsHead',
        num_classes=100,
        in_channels=2048,
        loss=dict(type='CrossEntropyLoss', loss_weight=1.0),
        init_cfg=None,  # torch's own
    ),
)
r50_levels = [f'backbone.layer{i}' for i in (1, 2, 3, 4)] + ['neck.gap']
# Before the activation: what enters the last block's ReLU at its third call.
r50_preact = [
    dict(
        recorder=dict(
            type='mmrazor.ModuleInputs', source=f'backbone.layer{i}.{block}.relu'
        ),
        record_idx=2,
        data_idx=0,
    )
    for i, block in ((1, 2), (2, 3), (3, 5), (4, 2))
] + ['neck.gap']
r50_channels = [256, 512, 1024, 2048, 2048]
