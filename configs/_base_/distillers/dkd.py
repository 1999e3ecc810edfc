# DKD (arXiv 2203.08679) but for its loss, whose beta depends on the pair. The weight
# grows over 20 epochs. The labels are what enters the student's loss.
dkd = dict(
    warmup=dict(by_epoch=True, begin=0, end=20),
    student_recorders=dict(
        fc=dict(type='mmrazor.ModuleOutputs', source='head.fc'),
        target=dict(type='mmrazor.ModuleInputs', source='head.loss_module'),
    ),
    teacher_recorders=dict(fc=dict(type='mmrazor.ModuleOutputs', source='head.fc')),
    loss_forward_mappings=dict(
        loss_dkd=dict(
            preds_S=dict(recorder='fc', from_student=True),
            preds_T=dict(recorder='fc', from_student=False),
            gt_labels=dict(recorder='target', from_student=True, data_idx=1),
        )
    ),
)
