# FitNet (arXiv 1412.6550), with its hint after the second stage.
_base_ = [
    '../../_base_/pairs/cifar100/r50_mv2.py',
    '../../_base_/distillers/fitnet.py',
]
model = dict(
    distiller=dict(
        type='mmfakd.LevelDistiller',
        student_levels='backbone.layer2',
        teacher_levels='backbone.layer2',
        student_connectors=dict(
            type='mmrazor.ConvModuleConnector',
            in_channel=_base_.student_channels[1],
            out_channel=_base_.teacher_channels[1],
            # The teacher's map is twice as large.
            conv_cfg=dict(type='deconv'),
            kernel_size=4,
            stride=2,
            padding=1,
            norm_cfg=dict(type='BN'),
        ),
        level_loss={{_base_.fitnet_loss}},
    )
)
