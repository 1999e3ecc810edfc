# FAM-KD in the review pyramid (arXiv 2403.05894).
_base_ = '../../_base_/pairs/cifar100/wrn40-2_shuv1.py'
model = dict(
    distiller=dict(
        type='mmfakd.ReviewDistiller',
        student_levels={{_base_.student_levels}},
        teacher_levels={{_base_.teacher_levels}},
        loss_weight=5.0,
        warmup=dict(by_epoch=True, begin=0, end=20),
        connector=dict(
            type='mmfakd.ReviewConnector',
            in_channels={{_base_.student_channels}},
            out_channels={{_base_.teacher_channels}},
            sizes={{_base_.sizes}},
        ),
    )
)
