# ResNet-32x4 teaches ShuffleNetV1; the leaves add the method.
_base_ = [
    '../../../fakd/cifar100/shuv1_1xb64_cifar100.py',
    '../../models/cifar100/r32x4.py',
]
model = dict(
    _delete_=True,
    type='mmfakd.FeatureDistill',
    architecture={{_base_.shuv1}},
    teacher={{_base_.r32x4}},
    teacher_ckpt='work_dirs/r32x4_1xb64_cifar100/epoch_240.pth',
)
