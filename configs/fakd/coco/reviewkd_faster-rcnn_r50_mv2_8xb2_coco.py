# ReviewKD (arXiv 2104.09044), with the published weight for this pair.
_base_ = '../../_base_/pairs/coco/faster-rcnn_r50_mv2.py'
model = dict(
    distiller=dict(
        type='mmfakd.ReviewDistiller',
        student_levels='neck',
        teacher_levels='neck',
        loss_weight=2.0,
        level_loss=dict(type='mmfakd.HierarchicalContextLoss'),
        connector={{_base_.reviewkd}},
    )
)
