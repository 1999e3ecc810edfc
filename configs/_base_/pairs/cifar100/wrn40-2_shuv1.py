# Wide ResNet 40-2 teaches ShuffleNetV1; the leaves add the method.
_base_ = [
    '../../../fakd/cifar100/shuv1_1xb64_cifar100.py',
    '../../models/cifar100/wrn40-2.py',
]
model = dict(
    _delete_=True,
    type='mmfakd.FeatureDistill',
    architecture={{_base_.shuv1}},
    teacher={{_base_.wrn40_2}},
    teacher_ckpt='work_dirs/wrn40-2_1xb64_cifar100/epoch_240.pth',
)
# Where stages and pooled feature are recorded, after and before the activation, and
# how wide and (the teacher's) how large they are.
student_levels = {{_base_.shuv1_levels}}
teacher_levels = {{_base_.wrn40_2_levels}}
student_preact = {{_base_.shuv1_preact}}
teacher_preact = {{_base_.wrn40_2_preact}}
student_channels = {{_base_.shuv1_channels}}
teacher_channels = {{_base_.wrn40_2_channels}}
sizes = [32, 16, 8, 1]
