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
