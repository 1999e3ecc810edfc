# NKD (arXiv 2303.13005).
_base_ = [
    '../../_base_/pairs/cifar100/r50_mv2.py',
    '../../_base_/distillers/nkd.py',
]
model = dict(distiller={{_base_.nkd}})
