# As of the ResNets.
_base_ = 'mmpretrain::swin_transformer/swin-tiny_16xb64_in1k.py'
model = dict(backbone=dict(out_indices=(0, 1, 2, 3)))
