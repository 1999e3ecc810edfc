# FAM-KD layer to layer, on the teacher's features before their activation.
_base_ = '../../_base_/pairs/cifar100/r32x4_r8x4.py'
model = dict(
    distiller=dict(
        type='mmfakd.ReviewDistiller',
        student_levels={{_base_.r8x4_levels}},
        teacher_levels={{_base_.r32x4_preact}},
        loss_weight=20.0,
        connector=dict(
            type='mmfakd.LayerwiseConnector',
            in_channels={{_base_.r8x4_channels}},
            out_channels={{_base_.r32x4_channels}},
            sizes=[32, 16, 8, 1],
            connector=dict(type='mmfakd.FrequencyAttentionConnector', high_pass=0),
        ),
    )
)
