# GFL ResNet-101 teaches ResNet-50; the leaves add the method.
_base_ = [
    'mmdet::gfl/gfl_r50_fpn_1x_coco.py',
    '../../distillers/fpn_p3_p7.py',
    '../../distill_hooks.py',
]
model = dict(
    _delete_=True,
    type='mmfakd.FeatureDistill',
    architecture={{_base_.model}},
    teacher=dict(cfg_path='mmdet::gfl/gfl_r101_fpn_ms-2x_coco.py'),
    teacher_ckpt='gfl_r101_fpn_ms-2x_coco',
)
default_hooks = {{_base_.distill_hooks}}
