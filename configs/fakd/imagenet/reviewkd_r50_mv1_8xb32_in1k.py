# ReviewKD (arXiv 2104.09044).
_base_ = '../../_base_/pairs/imagenet/r50_mv1.py'
model = dict(
    distiller=dict(
        type='mmfakd.ReviewDistiller',
        student_levels={{_base_.student_preact}},
        teacher_levels={{_base_.teacher_preact}},
        loss_weight=8.0,
        level_loss=dict(type='mmfakd.HierarchicalContextLoss'),
        connector=dict(
            type='mmfakd.ReviewConnector',
            in_channels={{_base_.student_channels}},
            out_channels={{_base_.teacher_channels}},
            mid_channels=256,
            sizes={{_base_.sizes}},
            fusion=dict(type='mmfakd.AttentionBasedFusion'),
            transform=dict(type='mmfakd.ConvTransform'),
            always_match=True,
            match_act_cfg=None,
            act_cfg=None,
        ),
    )
)
