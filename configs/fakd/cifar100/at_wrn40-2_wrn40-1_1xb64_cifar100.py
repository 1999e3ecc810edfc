# AT (arXiv 1612.03928), on every stage.
_base_ = '../../_base_/pairs/cifar100/wrn40-2_wrn40-1.py'
model = dict(
    distiller=dict(
        type='mmfakd.LevelDistiller',
        student_levels=[f'backbone.layer{i}' for i in (1, 2, 3)],
        teacher_levels=[f'backbone.layer{i}' for i in (1, 2, 3)],
        level_loss=dict(type='mmrazor.ATLoss', loss_weight=1000),
    )
)
