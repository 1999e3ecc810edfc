# KD (arXiv 1503.02531) at temperature 1, half labels and half teacher.
_base_ = [
    '../../_base_/pairs/imagenet/r50_mv1.py',
    '../../_base_/distillers/kd_in1k.py',
]
model = dict(
    architecture=dict(head=dict(loss=dict(loss_weight=0.5))),
    distiller={{_base_.kd}},
)
