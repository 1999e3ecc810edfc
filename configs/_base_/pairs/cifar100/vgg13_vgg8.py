# VGG-13 teaches VGG-8; the leaves add the method.
_base_ = [
    '../../../fakd/cifar100/vgg8_1xb64_cifar100.py',
    '../../models/cifar100/vgg13.py',
]
model = dict(
    _delete_=True,
    type='mmfakd.FeatureDistill',
    architecture={{_base_.vgg8}},
    teacher={{_base_.vgg13}},
    teacher_ckpt='work_dirs/vgg13_1xb64_cifar100/epoch_240.pth',
)
