# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""A data set of shapes with their masks, and small real segmentors of mmseg."""

from pathlib import Path

import cv2
import numpy as np

SIZE = 64
CLASSES = ('ground', 'disk', 'square')

_DATA = """
_base_ = ['mmseg::_base_/default_runtime.py']
dataset = dict(
    type='BaseSegDataset',
    data_root={root!r},
    data_prefix=dict(img_path='images', seg_map_path='masks'),
    img_suffix='.png',
    seg_map_suffix='.png',
    metainfo=dict(
        classes={classes!r},
        palette=[[128, 128, 128], [255, 0, 0], [0, 0, 255]],
    ),
)
train_dataloader = dict(
    batch_size=2,
    num_workers=0,
    sampler=dict(type='InfiniteSampler', shuffle=True),
    dataset=dict(
        **dataset,
        pipeline=[
            dict(type='LoadImageFromFile'),
            dict(type='LoadAnnotations'),
            dict(type='RandomCrop', crop_size=(48, 64)),
            dict(type='RandomFlip', prob=0.5),
            dict(type='PackSegInputs'),
        ],
    ),
)
val_dataloader = dict(
    batch_size=1,
    num_workers=0,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(
        **dataset,
        pipeline=[
            dict(type='LoadImageFromFile'),
            dict(type='LoadAnnotations'),
            dict(type='PackSegInputs'),
        ],
    ),
)
test_dataloader = val_dataloader
val_evaluator = dict(type='IoUMetric', iou_metrics=['mIoU'])
test_evaluator = val_evaluator
tta_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(
        type='TestTimeAug',
        transforms=[
            [dict(type='RandomFlip', prob=p) for p in (0.0, 1.0)],
            [dict(type='LoadAnnotations')],
            [dict(type='PackSegInputs')],
        ],
    ),
]
train_cfg = dict(type='IterBasedTrainLoop', max_iters=4, val_interval=2)
val_cfg = dict(type='ValLoop')
test_cfg = dict(type='TestLoop')
optim_wrapper = dict(
    type='OptimWrapper', optimizer=dict(type='SGD', lr=0.01, momentum=0.9)
)
param_scheduler = [
    dict(type='PolyLR', eta_min=1e-4, power=0.9, begin=0, end=4, by_epoch=False)
]
default_hooks = dict(
    logger=dict(type='LoggerHook', interval=1, log_metric_by_epoch=False),
    checkpoint=dict(type='CheckpointHook', by_epoch=False, interval=2),
    visualization=dict(type='SegVisualizationHook'),
)
randomness = dict(seed=0)
"""
_MODEL = """
_base_ = ['data.py']
model = dict(
    type='EncoderDecoder',
    data_preprocessor=dict(
        type='SegDataPreProcessor',
        size=(48, 64),
        pad_val=0,
        seg_pad_val=255,
        bgr_to_rgb=True,
        mean={mean},
        std={std},
        test_cfg=dict(size_divisor=16),
    ),
    backbone=dict(
        type='ResNetV1c',
        depth=18,
        base_channels={channels},
        out_indices=(0, 1, 2, 3),
        strides=(1, 2, 1, 1),
        dilations=(1, 1, 2, 4),
        norm_cfg=dict(type='SyncBN'),
        contract_dilation=True,
    ),
    decode_head=dict(
        type='FCNHead',
        in_channels={channels} * 8,
        in_index=3,
        channels=8,
        num_convs=1,
        num_classes=3,
        norm_cfg=dict(type='SyncBN'),
    ),
    auxiliary_head=dict(
        type='FCNHead',
        in_channels={channels} * 4,
        in_index=2,
        channels=8,
        num_convs=1,
        num_classes=3,
        norm_cfg=dict(type='SyncBN'),
        loss_decode=dict(type='CrossEntropyLoss', loss_weight=0.4),
    ),
    train_cfg=dict(),
    test_cfg=dict(mode='slide', crop_size=(48, 48), stride=(32, 32)),
)
"""


def draw_shapes(folder: Path, count: int = 6) -> None:
    """Draw images of a disk and a square on noise, and masks of class numbers.

    Args:
        folder (Path): It gets `images` and `masks`.
        count (int): Number of images.
    """
    rng = np.random.default_rng(0)
    for name in ('images', 'masks'):
        (folder / name).mkdir(parents=True)
    for number in range(count):
        image = rng.integers(90, 160, (SIZE, SIZE, 3), np.uint8)
        mask = np.zeros((SIZE, SIZE), np.uint8)
        x, y = (int(n) for n in rng.integers(14, 34, 2))
        cv2.rectangle(image, (y, x), (y + 18, x + 18), (255, 0, 0), -1)
        cv2.rectangle(mask, (y, x), (y + 18, x + 18), 2, -1)
        cv2.circle(image, (x, y), 10, (0, 0, 255), -1)
        cv2.circle(mask, (x, y), 10, 1, -1)
        # Some pixels without a label.
        mask[:3] = 255
        cv2.imwrite(str(folder / 'images' / f'{number}.png'), image)
        cv2.imwrite(str(folder / 'masks' / f'{number}.png'), mask)


def write_segmentors(folder: Path) -> tuple[str, str]:
    """Write the configs of a student and a teacher for the shapes.

    Args:
        folder (Path): Where they go, beside the images.

    Returns:
        tuple[str, str]: Paths of the two; the teacher has another normalisation.
    """
    draw_shapes(folder / 'shapes')
    data = _DATA.format(root=str(folder / 'shapes'), classes=CLASSES)
    (folder / 'data.py').write_text(data)
    paths = []
    for name, channels, mean, std in (
        ('student', 8, [123.675, 116.28, 103.53], [58.395, 57.12, 57.375]),
        ('teacher', 16, [0.0, 0.0, 0.0], [255.0, 255.0, 255.0]),
    ):
        path = folder / f'{name}.py'
        path.write_text(_MODEL.format(channels=channels, mean=mean, std=std))
        paths.append(str(path))
    return paths[0], paths[1]
