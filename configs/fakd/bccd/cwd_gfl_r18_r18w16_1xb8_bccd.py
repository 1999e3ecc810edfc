# CWD (arXiv 2011.13256), mmrazor's loss at its weight for detectors, on the four maps
# that the other methods take.
_base_ = '../../_base_/pairs/bccd/gfl_r18_r18w16.py'
model = dict(
    distiller=dict(
        type='mmrazor.ConfigurableDistiller',
        student_recorders=dict(fpn=dict(type='mmrazor.ModuleOutputs', source='neck')),
        teacher_recorders=dict(fpn=dict(type='mmrazor.ModuleOutputs', source='neck')),
        distill_losses={
            f'loss_cwd{i}': dict(
                type='mmrazor.ChannelWiseDivergence', tau=1, loss_weight=10
            )
            for i in range(4)
        },
        loss_forward_mappings={
            f'loss_cwd{i}': dict(
                preds_S=dict(from_student=True, recorder='fpn', data_idx=i),
                preds_T=dict(from_student=False, recorder='fpn', data_idx=i),
            )
            for i in range(4)
        },
    )
)
