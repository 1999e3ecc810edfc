# DKD (arXiv 2203.08679) at temperature 1. The published warm-up of one epoch is none.
_base_ = [
    '../../_base_/pairs/imagenet/r34_r18.py',
    '../../_base_/distillers/dkd.py',
]
model = dict(
    distiller=dict(
        type='mmrazor.ConfigurableDistiller',
        student_recorders={{_base_.dkd.student_recorders}},
        teacher_recorders={{_base_.dkd.teacher_recorders}},
        distill_losses=dict(
            loss_dkd=dict(type='mmrazor.DKDLoss', tau=1, alpha=1, beta=0.5)
        ),
        loss_forward_mappings={{_base_.dkd.loss_forward_mappings}},
    )
)
