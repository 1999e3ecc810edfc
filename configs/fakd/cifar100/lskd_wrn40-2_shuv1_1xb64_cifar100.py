# KD of standardised logits (arXiv 2403.01427).
_base_ = [
    '../../_base_/pairs/cifar100/wrn40-2_shuv1.py',
    '../../_base_/distillers/lskd.py',
]
model = dict(
    architecture=dict(head=dict(loss=dict(loss_weight=0.1))),
    distiller={{_base_.lskd}},
)
