# NKD (arXiv 2303.13005), with the numbers of its published config for CIFAR-100. The
# labels are what enters the student's loss.
nkd = dict(
    type='mmrazor.ConfigurableDistiller',
    student_recorders=dict(
        fc=dict(type='mmrazor.ModuleOutputs', source='head.fc'),
        target=dict(type='mmrazor.ModuleInputs', source='head.loss_module'),
    ),
    teacher_recorders=dict(fc=dict(type='mmrazor.ModuleOutputs', source='head.fc')),
    distill_losses=dict(loss_nkd=dict(type='mmfakd.NKDLoss', tau=3, gamma=3.5)),
    loss_forward_mappings=dict(
        loss_nkd=dict(
            preds_S=dict(recorder='fc', from_student=True),
            preds_T=dict(recorder='fc', from_student=False),
            gt_labels=dict(recorder='target', from_student=True, data_idx=1),
        )
    ),
)
