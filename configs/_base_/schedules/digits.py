# 30 epochs of SGD with a step decay, the shape of the CIFAR recipe of the paper
# (arXiv 2403.05894) at a length that two CPU cores manage in seconds.
optim_wrapper = dict(
    optimizer=dict(type='SGD', lr=0.05, momentum=0.9, weight_decay=5e-4)
)
param_scheduler = dict(
    type='MultiStepLR', by_epoch=True, milestones=[18, 24, 27], gamma=0.1
)
train_cfg = dict(by_epoch=True, max_epochs=30, val_interval=1)
val_cfg = dict()
test_cfg = dict()
auto_scale_lr = dict(base_batch_size=50)
