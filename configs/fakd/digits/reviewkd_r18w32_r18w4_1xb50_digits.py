# ReviewKD (arXiv 2104.09044): sigmoid fusion, 3x3 convolutions, HCL.
_base_ = './fakd_review_r18w32_r18w4_1xb50_digits.py'

model = dict(
    distiller=dict(
        level_loss=dict(type='mmfakd.HierarchicalContextLoss'),
        connector=dict(
            mid_channels=16,
            fusion=dict(type='mmfakd.AttentionBasedFusion'),
            transform=dict(type='mmfakd.ConvTransform'),
            always_match=True,
            match_act_cfg=None,
            act_cfg=None,
        ),
    )
)
