# ResNet-32x4 teaches ShuffleNetV2; the leaves add the method.
_base_ = [
    '../../../fakd/cifar100/shuv2_1xb64_cifar100.py',
    '../../models/cifar100/r32x4.py',
]
model = dict(
    _delete_=True,
    type='mmfakd.FeatureDistill',
    architecture={{_base_.shuv2}},
    teacher={{_base_.r32x4}},
    teacher_ckpt='work_dirs/r32x4_1xb64_cifar100/epoch_240.pth',
)
# Where stages and pooled feature are recorded, after and before the activation, and
# how wide and (the teacher's) how large they are.
student_levels = {{_base_.shuv2_levels}}
teacher_levels = {{_base_.r32x4_levels}}
student_preact = {{_base_.shuv2_preact}}
teacher_preact = {{_base_.r32x4_preact}}
student_channels = {{_base_.shuv2_channels}}
teacher_channels = {{_base_.r32x4_channels}}
sizes = [32, 16, 8, 1]
