# DIST (arXiv 2205.10536) with its numbers for CIFAR-100: weight 2 for both relations,
# temperature 4.
dist = dict(
    type='mmrazor.ConfigurableDistiller',
    student_recorders=dict(fc=dict(type='mmrazor.ModuleOutputs', source='head.fc')),
    teacher_recorders=dict(fc=dict(type='mmrazor.ModuleOutputs', source='head.fc')),
    distill_losses=dict(
        loss_dist=dict(
            type='mmrazor.DISTLoss', inter_loss_weight=2, intra_loss_weight=2, tau=4
        )
    ),
    loss_forward_mappings=dict(
        loss_dist=dict(
            logits_S=dict(recorder='fc', from_student=True),
            logits_T=dict(recorder='fc', from_student=False),
        )
    ),
)
