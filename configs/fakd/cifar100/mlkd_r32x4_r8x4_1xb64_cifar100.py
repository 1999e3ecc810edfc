# Multi-level logit distillation (CVPR 2023) of standardised logits.
_base_ = [
    '../../_base_/pairs/cifar100/r32x4_r8x4.py',
    '../../_base_/distillers/mlkd.py',
]
model = dict(
    architecture=dict(head=dict(loss=dict(loss_weight=0.2))),
    distiller={{_base_.mlkd}},
)
train_dataloader = dict(
    dataset=dict(pipeline={{_base_.two_views}}),
    collate_fn=dict(type='mmfakd.collate_views'),
)
