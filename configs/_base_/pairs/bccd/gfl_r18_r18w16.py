# GFL R18 teaches GFL R18 of a quarter of the width; the leaves add the method.
_base_ = '../../../fakd/bccd/gfl_r18w16_1xb8_bccd.py'
model = dict(
    _delete_=True,
    type='mmfakd.FeatureDistill',
    architecture={{_base_.model}},
    teacher={{_base_.gfl_r18}},
    teacher_ckpt='work_dirs/gfl_r18_1xb8_bccd/epoch_48.pth',
)
# In so short a training with AdamW the connectors do not reach means and variances of
# the teacher's maps at the student's learning rate: theirs is ten times that.
optim_wrapper = dict(paramwise_cfg=dict(custom_keys=dict(distiller=dict(lr_mult=10))))
# The maps of the FPN, strides 8 to 64. The teacher's have mean squares of 4.7, 2.9, 1.6
# and 19.8: with these weights each level's loss starts between 0.2 and 0.5.
levels = [dict(recorder='neck', data_idx=i) for i in range(4)]
channels = [64, 64, 64, 64]
weights = [0.1, 0.1, 0.1, 0.02]
