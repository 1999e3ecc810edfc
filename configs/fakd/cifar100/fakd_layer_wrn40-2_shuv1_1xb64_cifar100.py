# FAM-KD layer to layer, on the teacher's features before their activation.
_base_ = '../../_base_/pairs/cifar100/wrn40-2_shuv1.py'
model = dict(
    distiller=dict(
        type='mmfakd.ReviewDistiller',
        student_levels={{_base_.student_levels}},
        teacher_levels={{_base_.teacher_preact}},
        loss_weight=5.0,
        connector=dict(
            type='mmfakd.LayerwiseConnector',
            in_channels={{_base_.student_channels}},
            out_channels={{_base_.teacher_channels}},
            sizes={{_base_.sizes}},
            connector=dict(type='mmfakd.FrequencyAttentionConnector', high_pass=0),
        ),
    )
)
