# All four stages go to the neck, whose one pooling is called for each.
_base_ = 'mmpretrain::resnet/resnet18_8xb32_in1k.py'
model = dict(backbone=dict(out_indices=(0, 1, 2, 3)))
