# OFD (arXiv 1904.01866), before the activation that ends a stage.
_base_ = '../../_base_/pairs/cifar100/r110_r20.py'
conv = dict(type='mmrazor.ConvModuleConnector', norm_cfg=dict(type='BN'), act_cfg=None)
stages = len(_base_.sizes) - 1
model = dict(
    distiller=dict(
        type='mmfakd.OverhaulDistiller',
        student_levels=_base_.student_preact[:-1],
        teacher_levels=_base_.teacher_preact[:-1],
        margins=[f'backbone.layer{i}.17.bn2' for i in (1, 2, 3)],
        student_connectors=[
            dict(conv, in_channel=student, out_channel=teacher)
            for student, teacher in zip(
                _base_.student_channels[:-1], _base_.teacher_channels
            )
        ],
        level_loss=[
            dict(type='mmrazor.OFDLoss', loss_weight=0.5 ** (stages - 1 - i))
            for i in range(stages)
        ],
    )
)
