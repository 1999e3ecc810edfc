# ReviewKD (arXiv 2104.09044).
_base_ = '../../_base_/pairs/bccd/gfl_r18_r18w16.py'
model = dict(
    distiller=dict(
        type='mmfakd.ReviewDistiller',
        student_levels={{_base_.levels}},
        teacher_levels={{_base_.levels}},
        loss_weight={{_base_.weights}},
        level_loss=dict(type='mmfakd.HierarchicalContextLoss'),
        connector=dict(
            type='mmfakd.ReviewConnector',
            in_channels={{_base_.channels}},
            out_channels={{_base_.channels}},
            fusion=dict(type='mmfakd.AttentionBasedFusion'),
            transform=dict(type='mmfakd.ConvTransform'),
            always_match=True,
            match_act_cfg=None,
            act_cfg=None,
        ),
    )
)
