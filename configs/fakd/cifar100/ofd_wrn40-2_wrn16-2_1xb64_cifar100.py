# OFD (arXiv 1904.01866), before the activation that ends a stage.
_base_ = '../../_base_/pairs/cifar100/wrn40-2_wrn16-2.py'
conv = dict(type='mmrazor.ConvModuleConnector', norm_cfg=dict(type='BN'), act_cfg=None)
model = dict(
    distiller=dict(
        type='mmfakd.OverhaulDistiller',
        student_levels=[
            'backbone.layer2.0.bn1',
            'backbone.layer3.0.bn1',
            'backbone.bn1',
        ],
        teacher_levels=[
            'backbone.layer2.0.bn1',
            'backbone.layer3.0.bn1',
            'backbone.bn1',
        ],
        margins=['backbone.layer2.0.bn1', 'backbone.layer3.0.bn1', 'backbone.bn1'],
        student_connectors=[
            dict(conv, in_channel=student, out_channel=teacher)
            for student, teacher in [(32, 32), (64, 64), (128, 128)]
        ],
        level_loss=[
            dict(type='mmrazor.OFDLoss', loss_weight=weight)
            for weight in (0.25, 0.5, 1.0)
        ],
    )
)
