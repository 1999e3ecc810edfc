# RKD (arXiv 1904.05068).
_base_ = [
    '../../_base_/pairs/cifar100/r32x4_r8x4.py',
    '../../_base_/distillers/rkd.py',
]
model = dict(distiller={{_base_.rkd}})
