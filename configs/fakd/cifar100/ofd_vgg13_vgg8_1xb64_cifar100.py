# OFD (arXiv 1904.01866), before the activation that ends a stage.
_base_ = '../../_base_/pairs/cifar100/vgg13_vgg8.py'
conv = dict(type='mmrazor.ConvModuleConnector', norm_cfg=dict(type='BN'), act_cfg=None)
model = dict(
    distiller=dict(
        type='mmfakd.OverhaulDistiller',
        student_levels=[f'backbone.layer{i}.conv1.bn' for i in (2, 3, 4, 5)],
        teacher_levels=[f'backbone.layer{i}.conv2.bn' for i in (2, 3, 4, 5)],
        margins=[f'backbone.layer{i}.conv2.bn' for i in (2, 3, 4, 5)],
        student_connectors=[
            dict(conv, in_channel=student, out_channel=teacher)
            for student, teacher in [(128, 128), (256, 256), (512, 512), (512, 512)]
        ],
        level_loss=[
            dict(type='mmrazor.OFDLoss', loss_weight=weight)
            for weight in (0.125, 0.25, 0.5, 1.0)
        ],
    )
)
