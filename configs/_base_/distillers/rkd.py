# RKD (arXiv 1904.05068) on the pooled features as they are, not normalised.
rkd = dict(
    type='mmrazor.ConfigurableDistiller',
    student_recorders=dict(gap=dict(type='mmrazor.ModuleOutputs', source='neck.gap')),
    teacher_recorders=dict(gap=dict(type='mmrazor.ModuleOutputs', source='neck.gap')),
    distill_losses=dict(
        loss_distance=dict(
            type='mmrazor.DistanceWiseRKD', loss_weight=25, with_l2_norm=False
        ),
        loss_angle=dict(
            type='mmrazor.AngleWiseRKD', loss_weight=50, with_l2_norm=False
        ),
    ),
    loss_forward_mappings=dict(
        loss_distance=dict(
            preds_S=dict(recorder='gap', from_student=True),
            preds_T=dict(recorder='gap', from_student=False),
        ),
        loss_angle=dict(
            preds_S=dict(recorder='gap', from_student=True),
            preds_T=dict(recorder='gap', from_student=False),
        ),
    ),
)
