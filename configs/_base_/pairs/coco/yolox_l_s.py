# YOLOX-l teaches YOLOX-s; the leaves add the method.
_base_ = [
    'mmdet::yolox/yolox_s_8xb8-300e_coco.py',
    '../../distill_hooks.py',
    '../../distillers/pafpn_s_l.py',
]
model = dict(
    _delete_=True,
    type='mmfakd.FeatureDistill',
    architecture={{_base_.model}},
    teacher=dict(cfg_path='mmdet::yolox/yolox_l_8xb8-300e_coco.py'),
    teacher_ckpt='yolox_l_8x8_300e_coco',
)
default_hooks = {{_base_.distill_hooks}}
