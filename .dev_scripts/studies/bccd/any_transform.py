# A quarter of GFL R18 under GFL R18 on BCCD, with one transform for all levels, which
# the studies replace: the project's own config else.
_base_ = '../../../configs/fakd/bccd/fakd_review_gfl_r18_r18w16_1xb8_bccd.py'
model = dict(
    teacher_ckpt='work_dirs/bccd_teacher/epoch_48.pth',
    distiller=dict(
        connector=dict(transform=dict(_delete_=True, type='mmfakd.ConvTransform'))
    ),
)
