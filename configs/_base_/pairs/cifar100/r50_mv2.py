# ResNet-50 teaches MobileNetV2; the leaves add the method.
_base_ = [
    '../../../fakd/cifar100/mv2_1xb64_cifar100.py',
    '../../models/cifar100/r50.py',
]
model = dict(
    _delete_=True,
    type='mmfakd.FeatureDistill',
    architecture={{_base_.mv2}},
    teacher={{_base_.r50}},
    teacher_ckpt='work_dirs/r50_1xb64_cifar100/epoch_240.pth',
)
# Where stages and pooled feature are recorded, after and before the activation, and
# how wide and (the teacher's) how large they are.
student_levels = {{_base_.mv2_levels}}
teacher_levels = {{_base_.r50_levels}}
student_preact = {{_base_.mv2_preact}}
teacher_preact = {{_base_.r50_preact}}
student_channels = {{_base_.mv2_channels}}
teacher_channels = {{_base_.r50_channels}}
sizes = [32, 16, 8, 4, 1]
