# OFD (arXiv 1904.01866), before the activation that ends a stage.
_base_ = '../../_base_/pairs/cifar100/r50_mv2.py'
conv = dict(type='mmrazor.ConvModuleConnector', norm_cfg=dict(type='BN'), act_cfg=None)
stages = len(_base_.sizes) - 1
model = dict(
    distiller=dict(
        type='mmfakd.OverhaulDistiller',
        student_levels=_base_.student_preact[:-1],
        teacher_levels=_base_.teacher_preact[:-1],
        margins=[
            f'backbone.layer{i}.{block}.bn3'
            for i, block in ((1, 2), (2, 3), (3, 5), (4, 2))
        ],
        student_connectors=[
            dict(conv, in_channel=student, out_channel=teacher)
            for student, teacher in zip(
                _base_.student_channels[:-1], _base_.teacher_channels
            )
        ],
        # The teacher's maps are twice as large.
        teacher_connectors=dict(
            type='mmrazor.TorchNNConnector',
            module_name='AvgPool2d',
            module_args=dict(kernel_size=2),
        ),
        level_loss=[
            dict(type='mmrazor.OFDLoss', loss_weight=0.5 ** (stages - 1 - i))
            for i in range(stages)
        ],
    )
)
