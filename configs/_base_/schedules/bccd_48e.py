# Twice as long, for teachers.
_base_ = './bccd_24e.py'
train_cfg = dict(max_epochs=48)
param_scheduler = [
    dict(type='LinearLR', start_factor=0.01, by_epoch=False, begin=0, end=100),
    dict(type='CosineAnnealingLR', eta_min=1e-5, T_max=48, convert_to_iter_based=True),
]
