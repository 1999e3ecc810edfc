# CRD (arXiv 1910.10699) but for its connectors, whose channels depend on the pair:
# `student` and `teacher`, of type mmrazor.CRDConnector. The memory banks hold one
# embedding for each of CIFAR-100's 50,000 training images, which come from
# mmfakd.ContrastiveSamples.
crd = dict(
    student_recorders=dict(
        gap=dict(type='mmrazor.ModuleOutputs', source='neck.gap'),
        inputs=dict(type='mmrazor.ModuleInputs', source=''),
    ),
    teacher_recorders=dict(gap=dict(type='mmrazor.ModuleOutputs', source='neck.gap')),
    distill_losses=dict(
        loss_crd=dict(
            type='mmfakd.CRDLoss', loss_weight=0.8, neg_num=16384, sample_n=50000
        )
    ),
    loss_forward_mappings=dict(
        loss_crd=dict(
            s_feats=dict(recorder='gap', from_student=True, connector='student'),
            t_feats=dict(recorder='gap', from_student=False, connector='teacher'),
            data_samples=dict(recorder='inputs', from_student=True, data_idx=1),
        )
    ),
)
