# RKD (arXiv 1904.05068).
_base_ = [
    '../../_base_/pairs/cifar100/wrn40-2_wrn40-1.py',
    '../../_base_/distillers/rkd.py',
]
model = dict(distiller={{_base_.rkd}})
