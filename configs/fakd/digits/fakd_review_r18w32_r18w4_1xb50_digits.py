# FAM-KD in the review pyramid (arXiv 2403.05894): three stages and the pooled
# feature, which counts as a 1 x 1 map.
_base_ = './r18w4_1xb50_digits.py'

levels = ['backbone.layer1', 'backbone.layer2', 'backbone.layer3', 'neck.gap']
model = dict(
    _delete_=True,
    type='mmfakd.FeatureDistill',
    architecture={{_base_.student_model}},
    teacher={{_base_.teacher_model}},
    teacher_ckpt='work_dirs/r18w32_1xb50_digits/epoch_30.pth',
    distiller=dict(
        type='mmfakd.ReviewDistiller',
        student_levels=levels,
        teacher_levels=levels,
        loss_weight=10.0,
        warmup=dict(by_epoch=True, begin=0, end=5),
        connector=dict(
            type='mmfakd.ReviewConnector',
            in_channels=[4, 8, 16, 16],
            out_channels=[32, 64, 128, 128],
            sizes=[8, 4, 2, 1],
        ),
    ),
)
