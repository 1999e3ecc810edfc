# CRD (arXiv 1910.10699).
_base_ = [
    '../../_base_/pairs/cifar100/vgg13_mv2.py',
    '../../_base_/distillers/crd.py',
]
train_dataloader = dict(
    dataset=dict(
        _delete_=True,
        type='mmfakd.ContrastiveSamples',
        dataset={{_base_.train_dataloader.dataset}},
    )
)
embedding = dict(type='mmrazor.CRDConnector', dim_out=128)
model = dict(
    distiller=dict(
        type='mmrazor.ConfigurableDistiller',
        student_recorders={{_base_.crd.student_recorders}},
        teacher_recorders={{_base_.crd.teacher_recorders}},
        connectors=dict(
            student=dict(embedding, dim_in=_base_.student_channels[-1]),
            teacher=dict(embedding, dim_in=_base_.teacher_channels[-1]),
        ),
        distill_losses={{_base_.crd.distill_losses}},
        loss_forward_mappings={{_base_.crd.loss_forward_mappings}},
    )
)
