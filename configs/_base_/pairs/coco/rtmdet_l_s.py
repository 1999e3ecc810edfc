# RTMDet-l teaches RTMDet-s; the leaves add the method.
_base_ = [
    'mmdet::rtmdet/rtmdet_s_8xb32-300e_coco.py',
    '../../distill_hooks.py',
    '../../distillers/pafpn_s_l.py',
]
model = dict(
    _delete_=True,
    type='mmfakd.FeatureDistill',
    architecture={{_base_.model}},
    teacher=dict(cfg_path='mmdet::rtmdet/rtmdet_l_8xb32-300e_coco.py'),
    teacher_ckpt='rtmdet_l_8xb32-300e_coco',
)
default_hooks = {{_base_.distill_hooks}}
# Its learning rate is meant for 8 x 32 images, not for those of the schedule that
# the stock config starts from.
auto_scale_lr = dict(base_batch_size=256)
