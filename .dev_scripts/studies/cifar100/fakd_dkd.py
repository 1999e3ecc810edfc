# FAM-KD with review, and DKD on the logits beside it.
_base_ = [
    '../../../configs/fakd/cifar100/fakd_review_r56_r20_1xb64_cifar100.py',
    '../../../configs/_base_/distillers/dkd.py',
]
model = dict(
    distiller=dict(
        student_recorders={{_base_.dkd.student_recorders}},
        teacher_recorders={{_base_.dkd.teacher_recorders}},
        distill_losses=dict(
            loss_dkd=dict(type='mmrazor.DKDLoss', tau=4, alpha=1, beta=2)
        ),
        loss_forward_mappings={{_base_.dkd.loss_forward_mappings}},
    )
)
