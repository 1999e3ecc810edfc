# ResNet-110 teaches ResNet-20; the leaves add the method.
_base_ = [
    '../../../fakd/cifar100/r20_1xb64_cifar100.py',
    '../../models/cifar100/r110.py',
]
model = dict(
    _delete_=True,
    type='mmfakd.FeatureDistill',
    architecture={{_base_.r20}},
    teacher={{_base_.r110}},
    teacher_ckpt='work_dirs/r110_1xb64_cifar100/epoch_240.pth',
)
# Where stages and pooled feature are recorded, after and before the activation, and
# how wide and (the teacher's) how large they are.
student_levels = {{_base_.r20_levels}}
teacher_levels = {{_base_.r110_levels}}
student_preact = {{_base_.r20_preact}}
teacher_preact = {{_base_.r110_preact}}
student_channels = {{_base_.r20_channels}}
teacher_channels = {{_base_.r110_channels}}
sizes = [32, 16, 8, 1]
