# Wide ResNet 40-2 alone, as a teacher.
_base_ = [
    '../../_base_/models/cifar100/wrn40-2.py',
    '../../_base_/datasets/cifar100.py',
    '../../_base_/schedules/cifar100_240e.py',
    '../../_base_/default_runtime.py',
]
model = {{_base_.wrn40_2}}
