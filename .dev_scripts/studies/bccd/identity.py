# The student's maps are to be the teacher's as they are, without a connector.
_base_ = '../../../configs/_base_/pairs/bccd/gfl_r18_r18w16.py'
model = dict(
    teacher_ckpt='work_dirs/bccd_teacher/epoch_48.pth',
    distiller=dict(
        type='mmfakd.LevelDistiller',
        student_levels={{_base_.levels}},
        teacher_levels={{_base_.levels}},
        level_loss=dict(type='mmrazor.L2Loss'),
        loss_weight={{_base_.weights}},
    ),
)
