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
            in_channels={{_base_.student_channels}},
            out_channels={{_base_.teacher_channels}},
            sizes={{_base_.sizes}},
            fusion=dict(type='mmfakd.AttentionBasedFusion'),
            transform=dict(type='mmfakd.FrequencyAttention', groups=8, high_pass=0),
            act_cfg=None,
        ),
    )
)
