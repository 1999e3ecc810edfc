# OFD (arXiv 1904.01866), before the activation that ends a stage: in the teacher what
# enters the third call of its last block's ReLU.
_base_ = '../../_base_/pairs/cifar100/r50_mv2.py'
inputs = dict(type='mmrazor.ModuleInputs')
third = dict(record_idx=2, data_idx=0)
last = [(1, 2), (2, 3), (3, 5), (4, 2)]
conv = dict(type='mmrazor.ConvModuleConnector', norm_cfg=dict(type='BN'), act_cfg=None)
model = dict(
    distiller=dict(
        type='mmfakd.OverhaulDistiller',
        student_levels=[f'backbone.layer{i}' for i in (1, 2, 3, 4)],
        teacher_levels=[
            dict(third, recorder=dict(inputs, source=f'backbone.layer{i}.{block}.relu'))
            for i, block in last
        ],
        margins=[f'backbone.layer{i}.{block}.bn3' for i, block in last],
        student_connectors=[
            dict(conv, in_channel=student, out_channel=teacher)
            for student, teacher in [(12, 256), (16, 512), (48, 1024), (160, 2048)]
        ],
        # The teacher's maps are twice as large.
        teacher_connectors=dict(
            type='mmrazor.TorchNNConnector',
            module_name='AvgPool2d',
            module_args=dict(kernel_size=2),
        ),
        level_loss=[
            dict(type='mmrazor.OFDLoss', loss_weight=weight)
            for weight in (0.125, 0.25, 0.5, 1.0)
        ],
    )
)
