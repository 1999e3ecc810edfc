# VGG-8 with batch norm alone, as a student.
_base_ = [
    '../../_base_/models/cifar100/vgg8.py',
    '../../_base_/datasets/cifar100.py',
    '../../_base_/schedules/cifar100_240e.py',
    '../../_base_/default_runtime.py',
]
model = {{_base_.vgg8}}
