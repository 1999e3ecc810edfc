# OFD (arXiv 1904.01866), before the activation that ends a stage.
_base_ = '../../_base_/pairs/cifar100/vgg13_mv2.py'
conv = dict(type='mmrazor.ConvModuleConnector', norm_cfg=dict(type='BN'), act_cfg=None)
model = dict(
    distiller=dict(
        type='mmfakd.OverhaulDistiller',
        student_levels=[f'backbone.layer{i}' for i in (1, 2, 3, 4)],
        teacher_levels=[f'backbone.layer{i}.conv2.bn' for i in (2, 3, 4, 5)],
        margins=[f'backbone.layer{i}.conv2.bn' for i in (2, 3, 4, 5)],
        student_connectors=[
            dict(conv, in_channel=student, out_channel=teacher)
            for student, teacher in [(12, 128), (16, 256), (48, 512), (160, 512)]
        ],
        # The teacher's last maps are twice as large.
        teacher_connectors=[
            None,
            None,
            None,
            dict(
                type='mmrazor.TorchNNConnector',
                module_name='AvgPool2d',
                module_args=dict(kernel_size=2),
            ),
        ],
        level_loss=[
            dict(type='mmrazor.OFDLoss', loss_weight=weight)
            for weight in (0.125, 0.25, 0.5, 1.0)
        ],
    )
)
