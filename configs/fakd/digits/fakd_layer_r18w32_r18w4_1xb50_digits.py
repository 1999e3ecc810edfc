# FAM-KD layer to layer: each stage on its own, in mmrazor's stock distiller.
_base_ = './r18w4_1xb50_digits.py'

record = dict(type='mmrazor.ModuleOutputs')
stages = dict(
    stage1=dict(record, source='backbone.layer1'),
    stage2=dict(record, source='backbone.layer2'),
    stage3=dict(record, source='backbone.layer3'),
)
fam = dict(type='mmfakd.FrequencyAttentionConnector')
mse = dict(type='mmfakd.FFTFeatureLoss', loss_weight=10.0)
model = dict(
    _delete_=True,
    type='mmfakd.FeatureDistill',
    architecture={{_base_.student_model}},
    teacher={{_base_.teacher_model}},
    teacher_ckpt='work_dirs/r18w32_1xb50_digits/epoch_30.pth',
    distiller=dict(
        type='mmrazor.ConfigurableDistiller',
        student_recorders=stages,
        teacher_recorders=stages,
        connectors=dict(
            stage1=dict(fam, in_channels=4, out_channels=32, size=8),
            stage2=dict(fam, in_channels=8, out_channels=64, size=4),
            stage3=dict(fam, in_channels=16, out_channels=128, size=2),
        ),
        distill_losses=dict(loss_stage1=mse, loss_stage2=mse, loss_stage3=mse),
        loss_forward_mappings={
            f'loss_{stage}': dict(
                s_feature=dict(recorder=stage, from_student=True, connector=stage),
                t_feature=dict(recorder=stage, from_student=False),
            )
            for stage in stages
        },
    ),
)
