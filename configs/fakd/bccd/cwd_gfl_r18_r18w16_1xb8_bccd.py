# CWD (arXiv 2011.13256), mmrazor's loss at its weight for detectors, on the four maps
# that the other methods take.
_base_ = '../../_base_/pairs/bccd/gfl_r18_r18w16.py'
model = dict(
    distiller=dict(
        type='mmfakd.LevelDistiller',
        student_levels={{_base_.levels}},
        teacher_levels={{_base_.levels}},
        level_loss=dict(type='mmrazor.ChannelWiseDivergence', tau=1, loss_weight=10),
    )
)
