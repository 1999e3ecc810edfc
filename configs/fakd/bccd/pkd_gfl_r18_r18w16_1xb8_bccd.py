# PKD (arXiv 2207.02039), mmrazor's loss at its weight for detectors.
_base_ = '../../_base_/pairs/bccd/gfl_r18_r18w16.py'
model = dict(
    distiller=dict(
        type='mmrazor.ConfigurableDistiller',
        student_recorders=dict(fpn=dict(type='mmrazor.ModuleOutputs', source='neck')),
        teacher_recorders=dict(fpn=dict(type='mmrazor.ModuleOutputs', source='neck')),
        distill_losses=dict(loss_pkd=dict(type='mmrazor.PKDLoss', loss_weight=6)),
        loss_forward_mappings=dict(
            loss_pkd=dict(
                preds_S=dict(from_student=True, recorder='fpn'),
                preds_T=dict(from_student=False, recorder='fpn'),
            )
        ),
    )
)
