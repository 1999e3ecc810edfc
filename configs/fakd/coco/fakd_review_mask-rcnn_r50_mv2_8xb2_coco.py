# FAM-KD in the review pyramid (arXiv 2403.05894), with ReviewKD's weight for this pair.
_base_ = '../../_base_/pairs/coco/mask-rcnn_r50_mv2.py'
model = dict(
    distiller=dict(
        type='mmfakd.ReviewDistiller',
        student_levels='neck',
        teacher_levels='neck',
        loss_weight=1.0,
        connector={{_base_.fakd_review}},
    )
)
