# FAM-KD layer to layer, on the teacher's features before their activation.
_base_ = '../../_base_/pairs/cifar100/r110_r32.py'
model = dict(
    distiller=dict(
        type='mmfakd.ReviewDistiller',
        student_levels={{_base_.r32_levels}},
        teacher_levels={{_base_.r110_preact}},
        loss_weight=1.0,
        connector=dict(
            type='mmfakd.LayerwiseConnector',
            in_channels={{_base_.r32_channels}},
            out_channels={{_base_.r110_channels}},
            sizes=[32, 16, 8, 1],
            connector=dict(type='mmfakd.FrequencyAttentionConnector', high_pass=0),
        ),
    )
)
