# DIST (arXiv 2205.10536).
_base_ = [
    '../../_base_/pairs/cifar100/r56_r20.py',
    '../../_base_/distillers/dist.py',
]
model = dict(distiller={{_base_.dist}})
