# KD (arXiv 1503.02531) at temperature 4. The recipes of the field put 0.1 on the
# labels (set in the leaves, at the head's loss) and 0.9 on the teacher.
kd = dict(
    type='mmrazor.ConfigurableDistiller',
    student_recorders=dict(fc=dict(type='mmrazor.ModuleOutputs', source='head.fc')),
    teacher_recorders=dict(fc=dict(type='mmrazor.ModuleOutputs', source='head.fc')),
    distill_losses=dict(
        loss_kl=dict(type='mmrazor.KLDivergence', tau=4, loss_weight=0.9)
    ),
    loss_forward_mappings=dict(
        loss_kl=dict(
            preds_S=dict(recorder='fc', from_student=True),
            preds_T=dict(recorder='fc', from_student=False),
        )
    ),
)
