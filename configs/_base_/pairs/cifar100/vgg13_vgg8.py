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
# Where stages and pooled feature are recorded, after and before the activation, and
# how wide and (the teacher's) how large they are.
student_levels = {{_base_.vgg8_levels}}
teacher_levels = {{_base_.vgg13_levels}}
student_preact = {{_base_.vgg8_preact}}
teacher_preact = {{_base_.vgg13_preact}}
student_channels = {{_base_.vgg8_channels}}
teacher_channels = {{_base_.vgg13_channels}}
sizes = [16, 8, 4, 4, 1]
