# NKD (arXiv 2303.13005).
_base_ = [
    '../../_base_/pairs/cifar100/wrn40-2_wrn40-1.py',
    '../../_base_/distillers/nkd.py',
]
model = dict(distiller={{_base_.nkd}})
