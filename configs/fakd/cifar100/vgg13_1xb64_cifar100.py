# VGG-13 with batch norm alone, as a teacher.
_base_ = [
    '../../_base_/models/cifar100/vgg13.py',
    '../../_base_/datasets/cifar100.py',
    '../../_base_/schedules/cifar100_240e.py',
    '../../_base_/default_runtime.py',
]
model = {{_base_.vgg13}}
