# Wide ResNet 40-2 teaches Wide ResNet 16-2; the leaves add the method.
_base_ = [
    '../../../fakd/cifar100/wrn16-2_1xb64_cifar100.py',
    '../../models/cifar100/wrn40-2.py',
]
model = dict(
    _delete_=True,
    type='mmfakd.FeatureDistill',
    architecture={{_base_.wrn16_2}},
    teacher={{_base_.wrn40_2}},
    teacher_ckpt='work_dirs/wrn40-2_1xb64_cifar100/epoch_240.pth',
)
