# Teacher: all 1,297 training images.
_base_ = [
    '../../_base_/datasets/digits.py',
    '../../_base_/models/digits_pair.py',
    '../../_base_/schedules/digits.py',
    '../../_base_/default_runtime.py',
]
model = {{_base_.teacher_model}}
