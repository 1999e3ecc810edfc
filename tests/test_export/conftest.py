# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""Checkpoints of distillations, as training writes them, and pictures."""

import cv2
import pytest
import torch
from mmengine.config import Config
from mmengine.registry import MODELS, DefaultScope
from sklearn.datasets import load_sample_image

from tests.helpers.toy import classifier, review_distiller
from tests.helpers.toy_detectors import detection_run, detector_distillation

CLASSES = ('temple', 'flower', 'digit', 'cell')


def classifier_config(**architecture):
    """A distillation of pictures of 32 x 32 pixels, in RGB."""
    pipeline = [
        dict(type='LoadImageFromFile'),
        dict(type='Resize', scale=(32, 24)),
        dict(type='PackInputs'),
    ]
    loader = dict(dataset=dict(type='CustomDataset', pipeline=pipeline))
    student = classifier(num_classes=4)
    student['backbone'].update(architecture)
    return Config(
        dict(
            default_scope='mmpretrain',
            data_preprocessor=dict(
                num_classes=4,
                mean=[123.675, 116.28, 103.53],
                std=[58.395, 57.12, 57.375],
                to_rgb=True,
            ),
            model=dict(
                type='mmfakd.FeatureDistill',
                architecture=student,
                teacher=classifier(width=8, num_classes=4),
                distiller=review_distiller(),
            ),
            train_dataloader=loader,
            test_dataloader=loader,
        )
    )


def save(cfg, path, **meta):
    """Write a checkpoint of a distillation at random, whose norms have statistics."""
    torch.manual_seed(0)
    model = Config(dict(model=cfg.model)).model
    if cfg.get('data_preprocessor'):
        model.data_preprocessor = cfg.data_preprocessor
    with DefaultScope.overwrite_default_scope(cfg.default_scope):
        built = MODELS.build(model)
    for name, buffer in built.named_buffers():
        if name.endswith('running_mean'):
            torch.nn.init.uniform_(buffer, -0.1, 0.1)
        elif name.endswith('running_var'):
            torch.nn.init.uniform_(buffer, 0.5, 1.5)
    meta = dict(meta, cfg=cfg.pretty_text)
    torch.save(dict(state_dict=built.state_dict(), meta=meta), path)
    return str(path)


@pytest.fixture(scope='session')
def pictures(tmp_path_factory):
    """Two photographs as files, in BGR as OpenCV writes them."""
    folder = tmp_path_factory.mktemp('pictures')
    for name in ('china', 'flower'):
        pixels = load_sample_image(f'{name}.jpg')[..., ::-1]
        cv2.imwrite(str(folder / f'{name}.png'), pixels)
    return folder


@pytest.fixture(scope='session')
def classifier_ckpt(tmp_path_factory):
    path = tmp_path_factory.mktemp('classifier') / 'epoch_1.pth'
    return save(classifier_config(), path, dataset_meta=dict(classes=CLASSES))


@pytest.fixture(scope='session')
def detector_ckpt(tmp_path_factory):
    folder = tmp_path_factory.mktemp('detector')
    cfg = detection_run(folder, detector_distillation())
    cfg.test_dataloader = cfg.val_dataloader
    return save(cfg, folder / 'epoch_1.pth', dataset_meta=dict(classes=('a', 'b', 'c')))
