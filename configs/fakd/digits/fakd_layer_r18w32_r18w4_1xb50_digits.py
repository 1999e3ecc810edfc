# FAM-KD layer to layer: each stage on its own.
_base_ = './r18w4_1xb50_digits.py'

stages = ['backbone.layer1', 'backbone.layer2', 'backbone.layer3']
model = dict(
    _delete_=True,
    type='mmfakd.FeatureDistill',
    architecture={{_base_.student_model}},
    teacher={{_base_.teacher_model}},
    teacher_ckpt='work_dirs/r18w32_1xb50_digits/epoch_30.pth',
    distiller=dict(
        type='mmfakd.ReviewDistiller',
        student_levels=stages,
        teacher_levels=stages,
        level_loss=dict(type='mmfakd.FFTFeatureLoss', loss_weight=10.0),
        connector=dict(
            type='mmfakd.LayerwiseConnector',
            in_channels=[4, 8, 16],
            out_channels=[32, 64, 128],
            sizes=[8, 4, 2],
        ),
    ),
)
