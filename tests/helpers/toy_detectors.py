# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""Small real detectors of mmdet, and batches for them."""

import json

import cv2
import numpy as np
import torch
from mmengine.config import Config

from tests.helpers.toy import classifier

CHANNELS = 16


def retinanet(width=8, channels=CHANNELS, num_outs=3, num_classes=3, **kwargs):
    """Config of a RetinaNet whose pyramid has strides of 8, 16, 32, ..."""
    return dict(
        dict(
            type='RetinaNet',
            _scope_='mmdet',
            data_preprocessor=dict(
                type='DetDataPreprocessor',
                mean=[123.675, 116.28, 103.53],
                std=[58.395, 57.12, 57.375],
                bgr_to_rgb=True,
                pad_size_divisor=32,
            ),
            backbone=dict(
                type='ResNet', depth=18, stem_channels=width, base_channels=width
            ),
            neck=dict(
                type='FPN',
                in_channels=[width, 2 * width, 4 * width, 8 * width],
                out_channels=channels,
                start_level=1,
                add_extra_convs='on_output',
                num_outs=num_outs,
            ),
            bbox_head=dict(
                type='RetinaHead',
                num_classes=num_classes,
                in_channels=channels,
                feat_channels=channels,
                stacked_convs=1,
                anchor_generator=dict(
                    type='AnchorGenerator',
                    octave_base_scale=4,
                    scales_per_octave=1,
                    ratios=[1.0],
                    strides=[8 * 2**i for i in range(num_outs)],
                ),
            ),
            train_cfg=dict(
                assigner=dict(type='MaxIoUAssigner', pos_iou_thr=0.5, neg_iou_thr=0.4),
                sampler=dict(type='PseudoSampler'),
                allowed_border=-1,
                pos_weight=-1,
            ),
            test_cfg=dict(
                nms_pre=100,
                score_thr=0.0,
                nms=dict(type='nms', iou_threshold=0.5),
                max_per_img=10,
            ),
        ),
        **kwargs,
    )


def reid(width):
    """Config of a model for re-identification, which has five classes to learn."""
    head = dict(type='LinearReIDHead', num_fcs=1, in_channels=4 * width, fc_channels=8)
    head.update(out_channels=8, num_classes=5, norm_cfg=dict(type='BN1d'))
    head.update(act_cfg=dict(type='ReLU'))
    head['loss_cls'] = dict(type='mmpretrain.CrossEntropyLoss', loss_weight=1.0)
    head['loss_triplet'] = dict(type='TripletLoss', margin=0.3)
    model = dict(classifier(width), type='BaseReID', head=head, _scope_='mmdet')
    model['backbone'] = dict(model['backbone'], type='mmpretrain.ResNet_CIFAR')
    model['neck'] = dict(type='mmpretrain.GlobalAveragePooling')
    model['data_preprocessor'] = dict(type='ReIDDataPreprocessor')
    return model


def pyramid_distiller(levels=3, channels=CHANNELS, teacher_channels=CHANNELS, **kwargs):
    """Config of FAM-KD with review from neck to neck; `kwargs` are the connector's."""
    connector = dict(
        type='mmfakd.ReviewConnector',
        in_channels=[channels] * levels,
        out_channels=[teacher_channels] * levels,
        transform=dict(type='mmfakd.FrequencyAttention', modes=4),
        act_cfg=None,
    )
    return dict(
        type='mmfakd.ReviewDistiller',
        student_levels='neck',
        teacher_levels='neck',
        connector=dict(connector, **kwargs),
    )


def detector_distillation(**kwargs):
    """Config of FAM-KD from neck to neck of a RetinaNet and one twice as wide."""
    cfg = dict(
        type='mmfakd.FeatureDistill',
        architecture=retinanet(),
        teacher=retinanet(width=16),
        distiller=pyramid_distiller(),
    )
    return dict(cfg, **kwargs)


def detection_batch(*sizes):
    """A batch of random images, each of its own height and width, with two boxes."""
    from mmdet.structures import DetDataSample
    from mmengine.structures import InstanceData

    inputs, data_samples = [], []
    for height, width in sizes or [(64, 96), (80, 64)]:
        info = dict(
            img_shape=(height, width),
            ori_shape=(height, width),
            scale_factor=(1.0, 1.0),
        )
        sample = DetDataSample(metainfo=info)
        boxes = [[2.0, 2.0, 34.0, 34.0], [4.0, 8.0, 30.0, 60.0]]
        sample.gt_instances = InstanceData(
            bboxes=torch.tensor(boxes), labels=torch.tensor([0, 2])
        )
        inputs.append(torch.randint(0, 256, (3, height, width), dtype=torch.uint8))
        data_samples.append(sample)
    return dict(inputs=inputs, data_samples=data_samples)


def write_images(folder, count=4, size=(64, 96)):
    """Write noise with two boxes an image as a data set in COCO's format."""
    rng = np.random.default_rng(0)
    (folder / 'images').mkdir()
    images, annotations = [], []
    for i in range(count):
        pixels = rng.integers(0, 256, (*size, 3), np.uint8)
        cv2.imwrite(str(folder / 'images' / f'{i}.png'), pixels)
        images.append(dict(id=i, file_name=f'{i}.png', height=size[0], width=size[1]))
        for j, box in enumerate([[2, 2, 32, 32], [40, 10, 30, 50]]):
            annotations.append(
                dict(
                    id=2 * i + j + 1,
                    image_id=i,
                    category_id=j,
                    bbox=box,
                    area=box[2] * box[3],
                    iscrowd=0,
                )
            )
    categories = [dict(id=i, name=name) for i, name in enumerate('abc')]
    content = dict(images=images, annotations=annotations, categories=categories)
    (folder / 'boxes.json').write_text(json.dumps(content))


def detection_run(folder, model, epochs=1, workers=0):
    """Config of a run on the images of `write_images`, which it writes if need be."""
    if not (folder / 'images').exists():
        write_images(folder)
    meta_keys = ('img_id', 'img_path', 'ori_shape', 'img_shape', 'scale_factor')
    load = [
        dict(type='LoadImageFromFile'),
        dict(type='Resize', scale=(96, 96), keep_ratio=True),
        dict(type='LoadAnnotations', with_bbox=True),
    ]
    dataset = dict(
        type='CocoDataset',
        ann_file=str(folder / 'boxes.json'),
        data_prefix=dict(img=str(folder / 'images')),
        metainfo=dict(classes=('a', 'b', 'c')),
    )
    loader = dict(batch_size=2, num_workers=workers)
    validation = dict(
        **loader,
        dataset=dict(
            dataset,
            test_mode=True,
            pipeline=[
                *load,
                dict(type='PackDetInputs', meta_keys=meta_keys),
            ],
        ),
        sampler=dict(type='DefaultSampler', shuffle=False),
    )
    evaluator = dict(type='CocoMetric', ann_file=str(folder / 'boxes.json'))
    return Config(
        dict(
            default_scope='mmdet',
            work_dir=str(folder / 'run'),
            model=model,
            train_dataloader=dict(
                **loader,
                dataset=dict(dataset, pipeline=[*load, dict(type='PackDetInputs')]),
                sampler=dict(type='DefaultSampler', shuffle=True),
            ),
            train_cfg=dict(by_epoch=True, max_epochs=epochs, val_interval=1),
            optim_wrapper=dict(optimizer=dict(type='SGD', lr=1e-4)),
            val_dataloader=validation,
            val_evaluator=evaluator,
            val_cfg=dict(),
            test_dataloader=validation,
            test_evaluator=evaluator,
            test_cfg=dict(),
            log_level='ERROR',
            randomness=dict(seed=0),
            experiment_name=folder.name,
        )
    )
