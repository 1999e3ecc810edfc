# RKD (arXiv 1904.05068).
_base_ = [
    '../../_base_/pairs/cifar100/r110_r32.py',
    '../../_base_/distillers/rkd.py',
]
model = dict(distiller={{_base_.rkd}})
