# KD (arXiv 1503.02531) with mmrazor's loss at temperature 4; weights as the
# recipes of the field have them: 0.1 of the labels, 0.9 of the teacher.
_base_ = './fakd_layer_r18w32_r18w4_1xb50_digits.py'

logits = dict(fc=dict(type='mmrazor.ModuleOutputs', source='head.fc'))
model = dict(
    architecture=dict(head=dict(loss=dict(loss_weight=0.1))),
    distiller=dict(
        _delete_=True,
        type='mmrazor.ConfigurableDistiller',
        student_recorders=logits,
        teacher_recorders=logits,
        distill_losses=dict(
            loss_kl=dict(type='mmrazor.KLDivergence', tau=4, loss_weight=0.9)
        ),
        loss_forward_mappings=dict(
            loss_kl=dict(
                preds_S=dict(recorder='fc', from_student=True),
                preds_T=dict(recorder='fc', from_student=False),
            )
        ),
    ),
)
