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
