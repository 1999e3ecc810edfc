# FAM-KD in the review pyramid (arXiv 2403.05894). The published warm-up of one epoch
# is none: its weight is full from the first epoch on.
_base_ = '../../_base_/pairs/imagenet/r34_r18.py'
model = dict(
    distiller=dict(
        type='mmfakd.ReviewDistiller',
        student_levels={{_base_.student_levels}},
        teacher_levels={{_base_.teacher_levels}},
        loss_weight=1.0,
        connector=dict(
            type='mmfakd.ReviewConnector',
            in_channels={{_base_.student_channels}},
            out_channels={{_base_.teacher_channels}},
            sizes={{_base_.sizes}},
        ),
    )
)
