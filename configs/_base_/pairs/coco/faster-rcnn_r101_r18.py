# Faster R-CNN ResNet-101 teaches ResNet-18; the leaves add the method.
_base_ = [
    '../../../fakd/coco/faster-rcnn_r18_8xb2_coco.py',
    '../../distillers/fpn_p2_p6.py',
    '../../distill_hooks.py',
]
model = dict(
    _delete_=True,
    type='mmfakd.FeatureDistill',
    architecture={{_base_.model}},
    teacher=dict(cfg_path='mmdet::faster_rcnn/faster-rcnn_r101_fpn_2x_coco.py'),
    teacher_ckpt='faster-rcnn_r101_fpn_2x_coco',
)
default_hooks = {{_base_.distill_hooks}}
