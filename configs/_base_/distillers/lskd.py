# KD of standardised logits (arXiv 2403.01427): weight 9 at temperature 2. The labels
# have 0.1 (set in the leaves, at the head's loss).
lskd = dict(
    type='mmrazor.ConfigurableDistiller',
    student_recorders=dict(fc=dict(type='mmrazor.ModuleOutputs', source='head.fc')),
    teacher_recorders=dict(fc=dict(type='mmrazor.ModuleOutputs', source='head.fc')),
    distill_losses=dict(
        loss_kl=dict(
            type='mmfakd.StandardizedLogitsLoss',
            loss=dict(type='mmrazor.KLDivergence', tau=2, loss_weight=9),
        )
    ),
    loss_forward_mappings=dict(
        loss_kl=dict(
            preds_S=dict(recorder='fc', from_student=True),
            preds_T=dict(recorder='fc', from_student=False),
        )
    ),
)
