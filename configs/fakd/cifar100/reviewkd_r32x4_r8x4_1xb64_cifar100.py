# ReviewKD (arXiv 2104.09044).
_base_ = '../../_base_/pairs/cifar100/r32x4_r8x4.py'
model = dict(
    distiller=dict(
        type='mmfakd.ReviewDistiller',
        student_levels={{_base_.r8x4_levels}},
        teacher_levels={{_base_.r32x4_preact}},
        loss_weight=5.0,
        warmup=dict(by_epoch=True, begin=0, end=20),
        level_loss=dict(type='mmfakd.HierarchicalContextLoss'),
        connector=dict(
            type='mmfakd.ReviewConnector',
            in_channels={{_base_.r8x4_channels}},
            out_channels={{_base_.r32x4_channels}},
            mid_channels=256,
            sizes=[32, 16, 8, 1],
            fusion=dict(type='mmfakd.AttentionBasedFusion'),
            transform=dict(type='mmfakd.ConvTransform'),
            always_match=True,
            match_act_cfg=None,
            act_cfg=None,
        ),
    )
)
