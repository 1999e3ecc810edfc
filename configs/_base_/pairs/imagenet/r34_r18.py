# ResNet-34 teaches ResNet-18; the leaves add the method. The teacher's weights are
# torchvision's, as in the literature; the README says how to get them.
_base_ = '../../../fakd/imagenet/r18_8xb32_in1k.py'
model = dict(
    _delete_=True,
    type='mmfakd.FeatureDistill',
    architecture={{_base_.model}},
    teacher=dict(cfg_path='mmpretrain::resnet/resnet34_8xb32_in1k.py'),
    teacher_ckpt='checkpoints/resnet34_torchvision.pth',
)
# Where stages and pooled feature are recorded, after and before the activation, and
# how wide and (the teacher's) how large they are.
student_levels = [f'backbone.layer{i}' for i in (1, 2, 3, 4)] + ['neck.gap']
teacher_levels = student_levels
student_preact = [
    dict(
        recorder=dict(
            type='mmrazor.ModuleInputs', source=f'backbone.layer{i}.{block}.relu'
        ),
        record_idx=1,
        data_idx=0,
    )
    for i, block in enumerate((1, 1, 1, 1), 1)
] + ['neck.gap']
teacher_preact = [
    dict(
        recorder=dict(
            type='mmrazor.ModuleInputs', source=f'backbone.layer{i}.{block}.relu'
        ),
        record_idx=1,
        data_idx=0,
    )
    for i, block in enumerate((2, 3, 5, 2), 1)
] + ['neck.gap']
student_channels = [64, 128, 256, 512, 512]
teacher_channels = [64, 128, 256, 512, 512]
sizes = [56, 28, 14, 7, 1]
