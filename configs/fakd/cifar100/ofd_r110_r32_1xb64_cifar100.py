# OFD (arXiv 1904.01866), before the activation that ends a stage: what enters the
# second call of its last block's ReLU.
_base_ = '../../_base_/pairs/cifar100/r110_r32.py'
inputs = dict(type='mmrazor.ModuleInputs')
second = dict(record_idx=1, data_idx=0)
conv = dict(type='mmrazor.ConvModuleConnector', norm_cfg=dict(type='BN'), act_cfg=None)
model = dict(
    distiller=dict(
        type='mmfakd.OverhaulDistiller',
        student_levels=[
            dict(second, recorder=dict(inputs, source=f'backbone.layer{i}.4.relu'))
            for i in (1, 2, 3)
        ],
        teacher_levels=[
            dict(second, recorder=dict(inputs, source=f'backbone.layer{i}.17.relu'))
            for i in (1, 2, 3)
        ],
        margins=[f'backbone.layer{i}.17.bn2' for i in (1, 2, 3)],
        student_connectors=[
            dict(conv, in_channel=student, out_channel=teacher)
            for student, teacher in [(16, 16), (32, 32), (64, 64)]
        ],
        level_loss=[
            dict(type='mmrazor.OFDLoss', loss_weight=weight)
            for weight in (0.25, 0.5, 1.0)
        ],
    )
)
