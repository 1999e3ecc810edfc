# AT (arXiv 1612.03928), on every stage.
_base_ = '../../_base_/pairs/cifar100/r32x4_shuv1.py'
model = dict(
    distiller=dict(
        type='mmfakd.LevelDistiller',
        student_levels=[f'backbone.layer{i}' for i in (1, 2, 3)],
        teacher_levels=[f'backbone.layer{i}' for i in (1, 2, 3)],
        # The teacher's maps are twice as large.
        teacher_connectors=dict(
            type='mmrazor.TorchNNConnector',
            module_name='AvgPool2d',
            module_args=dict(kernel_size=2),
        ),
        level_loss=dict(type='mmrazor.ATLoss', loss_weight=1000),
    )
)
