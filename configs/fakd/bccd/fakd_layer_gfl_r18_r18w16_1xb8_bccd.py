# FAM-KD layer to layer.
_base_ = '../../_base_/pairs/bccd/gfl_r18_r18w16.py'
model = dict(
    distiller=dict(
        type='mmfakd.ReviewDistiller',
        student_levels={{_base_.levels}},
        teacher_levels={{_base_.levels}},
        loss_weight={{_base_.weights}},
        connector=dict(
            type='mmfakd.LayerwiseConnector',
            in_channels={{_base_.channels}},
            out_channels={{_base_.channels}},
            connector=dict(type='mmfakd.FrequencyAttentionConnector', modes=12),
        ),
    )
)
