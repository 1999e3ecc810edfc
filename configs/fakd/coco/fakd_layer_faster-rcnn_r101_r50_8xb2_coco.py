# FAM-KD layer to layer (arXiv 2403.05894), weights by measurement.
_base_ = '../../_base_/pairs/coco/faster-rcnn_r101_r50.py'
model = dict(
    distiller=dict(
        type='mmfakd.ReviewDistiller',
        student_levels='neck',
        teacher_levels='neck',
        loss_weight='balance',
        connector={{_base_.fakd_layer}},
    )
)
