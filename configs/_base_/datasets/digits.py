# The 1,797 handwritten digits of scikit-learn, grey, 8 x 8. Split and number of
# labels were fixed before anything was measured.
dataset_type = 'mmfakd.Digits'
# Mean and deviation of all 1,797 images.
data_preprocessor = dict(num_classes=10, mean=[77.8], std=[95.9], to_rgb=False)

train_pipeline = [
    dict(type='RandomCrop', crop_size=8, padding=1),
    dict(type='PackInputs'),
]
test_pipeline = [dict(type='PackInputs')]

# mmpretrain's own scripts switch persistent workers on where a config is silent, for
# which there must be workers.
train_dataloader = dict(
    batch_size=50,
    num_workers=0,
    persistent_workers=False,
    dataset=dict(
        type='RepeatDataset',
        times=1,
        dataset=dict(type=dataset_type, split='train', pipeline=train_pipeline),
    ),
    sampler=dict(type='DefaultSampler', shuffle=True),
    collate_fn=dict(type='default_collate'),
)
val_dataloader = dict(
    batch_size=500,
    num_workers=0,
    persistent_workers=False,
    dataset=dict(type=dataset_type, split='test', pipeline=test_pipeline),
    sampler=dict(type='DefaultSampler', shuffle=False),
    collate_fn=dict(type='default_collate'),
)
val_evaluator = dict(type='Accuracy', topk=(1,))
test_dataloader = val_dataloader
test_evaluator = val_evaluator
