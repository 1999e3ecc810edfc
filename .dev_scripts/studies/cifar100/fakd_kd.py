# FAM-KD with review, and KD on the logits beside it; labels keep their whole weight.
_base_ = [
    '../../../configs/fakd/cifar100/fakd_review_r56_r20_1xb64_cifar100.py',
    '../../../configs/_base_/distillers/kd.py',
]
model = dict(
    distiller=dict(
        student_recorders={{_base_.kd.student_recorders}},
        teacher_recorders={{_base_.kd.teacher_recorders}},
        distill_losses={{_base_.kd.distill_losses}},
        loss_forward_mappings={{_base_.kd.loss_forward_mappings}},
    )
)
