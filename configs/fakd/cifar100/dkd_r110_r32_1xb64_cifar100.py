# DKD (arXiv 2203.08679).
_base_ = [
    '../../_base_/pairs/cifar100/r110_r32.py',
    '../../_base_/distillers/dkd.py',
]
model = dict(
    distiller=dict(
        type='mmfakd.WarmupDistiller',
        warmup={{_base_.dkd.warmup}},
        student_recorders={{_base_.dkd.student_recorders}},
        teacher_recorders={{_base_.dkd.teacher_recorders}},
        distill_losses=dict(
            loss_dkd=dict(type='mmrazor.DKDLoss', tau=4, alpha=1, beta=2)
        ),
        loss_forward_mappings={{_base_.dkd.loss_forward_mappings}},
    )
)
