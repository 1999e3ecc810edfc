# FAM-KD in the review pyramid with ReviewKD's fusion and no high pass, on features
# before their activation. Eight groups bring the filters from 455 M weights to 57 M.
_base_ = '../../_base_/pairs/imagenet/r50_mv1.py'
model = dict(
    distiller=dict(
        type='mmfakd.ReviewDistiller',
        student_levels={{_base_.student_preact}},
        teacher_levels={{_base_.teacher_preact}},
        loss_weight=8.0,
        connector=dict(
            type='mmfakd.ReviewConnector',
            in_channels=[128, 256, 512, 1024, 1024],
            out_channels=[256, 512, 1024, 2048, 2048],
            sizes=[56, 28, 14, 7, 1],
            fusion=dict(type='mmfakd.AttentionBasedFusion'),
            transform=dict(type='mmfakd.FrequencyAttention', groups=8, high_pass=0),
            act_cfg=None,
        ),
    )
)
