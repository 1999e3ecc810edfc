# Wide ResNet 40-1 alone, as a student.
_base_ = [
    '../../_base_/models/cifar100/wrn40-1.py',
    '../../_base_/datasets/cifar100.py',
    '../../_base_/schedules/cifar100_240e.py',
    '../../_base_/default_runtime.py',
]
model = {{_base_.wrn40_1}}
