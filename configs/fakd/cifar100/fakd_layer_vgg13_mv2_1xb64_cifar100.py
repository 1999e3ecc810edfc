# FAM-KD layer to layer, on the teacher's features before their activation.
_base_ = '../../_base_/pairs/cifar100/vgg13_mv2.py'
model = dict(
    distiller=dict(
        type='mmfakd.ReviewDistiller',
        student_levels={{_base_.mv2_levels}},
        teacher_levels={{_base_.vgg13_preact}},
        loss_weight=8.0,
        connector=dict(
            type='mmfakd.LayerwiseConnector',
            in_channels={{_base_.mv2_channels}},
            out_channels={{_base_.vgg13_channels}},
            sizes=[16, 8, 4, 4, 1],
            connector=dict(type='mmfakd.FrequencyAttentionConnector', high_pass=0),
        ),
    )
)
