# ShuffleNetV2 alone, as a student.
_base_ = [
    '../../_base_/models/cifar100/shuv2.py',
    '../../_base_/datasets/cifar100.py',
    '../../_base_/schedules/cifar100_240e.py',
    '../../_base_/default_runtime.py',
]
model = {{_base_.shuv2}}
# The field trains light students at a fifth of the rate.
optim_wrapper = dict(optimizer=dict(lr=0.01))
