# FAM-KD in the review pyramid (arXiv 2403.05894). A filter has at most as many modes as
# the short side of its map.
_base_ = '../../_base_/pairs/bccd/gfl_r18_r18w16.py'
model = dict(
    distiller=dict(
        type='mmfakd.ReviewDistiller',
        student_levels={{_base_.levels}},
        teacher_levels={{_base_.levels}},
        loss_weight={{_base_.weights}},
        connector=dict(
            type='mmfakd.ReviewConnector',
            in_channels={{_base_.channels}},
            out_channels={{_base_.channels}},
            transform=[
                dict(type='mmfakd.FrequencyAttention', modes=16),
                dict(type='mmfakd.FrequencyAttention', modes=12),
                dict(type='mmfakd.FrequencyAttention', modes=6),
                dict(type='mmfakd.FrequencyAttention', modes=3),
            ],
            act_cfg=None,
        ),
    )
)
