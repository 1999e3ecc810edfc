# OFD (arXiv 1904.01866), before the activation that ends a stage: in the teacher
# what enters the second call of its last block's ReLU.
_base_ = '../../_base_/pairs/cifar100/r32x4_shuv2.py'
inputs = dict(type='mmrazor.ModuleInputs')
second = dict(record_idx=1, data_idx=0)
conv = dict(type='mmrazor.ConvModuleConnector', norm_cfg=dict(type='BN'), act_cfg=None)
model = dict(
    distiller=dict(
        type='mmfakd.OverhaulDistiller',
        student_levels=[
            'backbone.layer1.3.preact',
            'backbone.layer2.7.preact',
            'backbone.layer3.3.preact',
        ],
        teacher_levels=[
            dict(second, recorder=dict(inputs, source=f'backbone.layer{i}.4.relu'))
            for i in (1, 2, 3)
        ],
        margins=[f'backbone.layer{i}.4.bn2' for i in (1, 2, 3)],
        student_connectors=[
            dict(conv, in_channel=student, out_channel=teacher)
            for student, teacher in [(116, 64), (232, 128), (464, 256)]
        ],
        # The teacher's maps are twice as large.
        teacher_connectors=dict(
            type='mmrazor.TorchNNConnector',
            module_name='AvgPool2d',
            module_args=dict(kernel_size=2),
        ),
        level_loss=[
            dict(type='mmrazor.OFDLoss', loss_weight=weight)
            for weight in (0.25, 0.5, 1.0)
        ],
    )
)
