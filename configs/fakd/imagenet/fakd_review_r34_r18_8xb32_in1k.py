# FAM-KD in the review pyramid (arXiv 2403.05894). The published warm-up of one epoch
# is none: its weight is full from the first epoch on.
_base_ = '../../_base_/pairs/imagenet/r34_r18.py'
model = dict(
    distiller=dict(
        type='mmfakd.ReviewDistiller',
        student_levels={{_base_.levels}},
        teacher_levels={{_base_.levels}},
        loss_weight=1.0,
        connector=dict(
            type='mmfakd.ReviewConnector',
            in_channels=[64, 128, 256, 512, 512],
            out_channels=[64, 128, 256, 512, 512],
            sizes=[56, 28, 14, 7, 1],
        ),
    )
)
