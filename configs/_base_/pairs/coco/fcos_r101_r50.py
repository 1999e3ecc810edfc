# FCOS ResNet-101 teaches ResNet-50; the leaves add the method.
_base_ = [
    'mmdet::fcos/fcos_r50-caffe_fpn_gn-head_1x_coco.py',
    '../../distillers/fpn_p3_p7.py',
    '../../distill_hooks.py',
]
model = dict(
    _delete_=True,
    type='mmfakd.FeatureDistill',
    architecture={{_base_.model}},
    teacher=dict(cfg_path='mmdet::fcos/fcos_r101-caffe_fpn_gn-head-1x_coco.py'),
    teacher_ckpt='fcos_r101-caffe_fpn_gn-head-1x_coco',
)
default_hooks = {{_base_.distill_hooks}}
