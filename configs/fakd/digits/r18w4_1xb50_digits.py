# Student alone: 5 labelled images of each class, seen 20 times an epoch.
_base_ = [
    '../../_base_/datasets/digits.py',
    '../../_base_/models/digits_pair.py',
    '../../_base_/schedules/digits.py',
    '../../_base_/default_runtime.py',
]
model = {{_base_.student_model}}
train_dataloader = dict(dataset=dict(times=20, dataset=dict(labels_per_class=5)))
