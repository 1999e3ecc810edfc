# GFL with ResNet-18 alone, as a teacher.
_base_ = [
    '../../_base_/models/bccd/gfl.py',
    '../../_base_/datasets/bccd.py',
    '../../_base_/schedules/bccd_48e.py',
    '../../_base_/default_runtime.py',
]
default_scope = 'mmdet'
default_hooks = dict(
    visualization=dict(_delete_=True, type='mmdet.DetVisualizationHook')
)
visualizer = dict(type='mmdet.DetLocalVisualizer')
model = {{_base_.gfl_r18}}
