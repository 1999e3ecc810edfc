# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""What a file says of its images is what the test pipeline makes of them."""

import json

import cv2
import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmpretrain import ImageClassificationInferencer, get_model

from mmfakd.checkpoints.mdistiller_file import convert_file
from mmfakd.export.command import export_checkpoint
from mmfakd.export.preprocessing import describe_preprocessing
from tests.helpers.mdistiller_zoo import zoo_state_dict
from tests.test_export.conftest import classifier_config


def test_converted_files_are_exported(tmp_path, pictures):
    """Their config has a pipeline for inferencers, and no data set."""
    source, plain = str(tmp_path / 'source.pth'), str(tmp_path / 'resnet8.pth')
    torch.save(dict(model=zoo_state_dict('resnet8')), source)
    convert_file(source, plain)
    out = str(tmp_path / 'resnet8.torchscript')
    export_checkpoint(plain, out)
    files = {'meta.json': ''}
    traced = torch.jit.load(out, _extra_files=files)
    how = json.loads(json.loads(files['meta.json'])['preprocessing'])
    assert how['channel_order'] == 'RGB' and how['input_size'] == [32, 32]

    picture = str(pictures / 'china.png')
    image = cv2.resize(cv2.imread(picture), (32, 32))[..., ::-1]
    scaled = (image - np.float32(how['mean'])) / np.float32(how['std'])
    with torch.no_grad():
        [logits] = traced(torch.from_numpy(scaled.transpose(2, 0, 1)[None]))
    text = torch.load(plain, weights_only=True)['meta']['cfg']
    model = get_model(Config.fromstring(text, '.py'), pretrained=plain)
    [expected] = ImageClassificationInferencer(model)(picture)
    np.testing.assert_allclose(
        logits.softmax(1)[0], expected['pred_scores'], rtol=1e-4, atol=1e-6
    )


@pytest.mark.parametrize(
    ('pipeline', 'to_rgb', 'order'),
    [
        (['LoadImageFromFile'], True, 'RGB'),
        (['LoadImageFromFile'], False, 'BGR'),
        (['LoadImageFromFile', dict(type='NumpyToPIL', to_rgb=True)], False, 'RGB'),
        (['LoadImageFromFile', dict(type='NumpyToPIL', to_rgb=True)], True, 'BGR'),
        (
            [
                'LoadImageFromFile',
                dict(type='NumpyToPIL', to_rgb=True),
                dict(type='PILToNumpy', to_bgr=True),
            ],
            True,
            'RGB',
        ),
        ([dict(type='NumpyToPIL', to_rgb=True)], False, 'RGB'),
        ([dict(type='NumpyToPIL', to_rgb=True)], True, 'BGR'),
        (['NumpyToPIL'], True, 'as in the data set'),
    ],
)
def test_order_of_channels(pipeline, to_rgb, order):
    cfg = classifier_config()
    cfg.model = dict(data_preprocessor=dict(cfg.data_preprocessor, to_rgb=to_rgb))
    steps = [dict(type=t) if isinstance(t, str) else t for t in pipeline]
    steps += [dict(type='Resize', scale=(32, 24)), dict(type='PackInputs')]
    cfg.test_dataloader.dataset.pipeline = steps
    assert describe_preprocessing(cfg)['channel_order'] == order


@pytest.mark.parametrize(
    'step',
    [
        dict(type='Normalize', mean=[0.0] * 3, std=[255.0] * 3),
        dict(type='torchvision/ToTensor'),
        dict(
            type='Albumentations',
            transforms=[dict(type='Normalize'), dict(type='Resize', height=8, width=8)],
        ),
    ],
)
def test_values_that_the_pipeline_changes(step):
    cfg = classifier_config()
    cfg.model = dict(data_preprocessor=cfg.data_preprocessor)
    cfg.test_dataloader.dataset.pipeline.insert(2, step)
    with pytest.raises(ValueError, match='(Normalize|ToTensor) in its test pipeline'):
        describe_preprocessing(cfg)
    # mmcv's, of other values than the image's.
    cfg.test_dataloader.dataset.pipeline[2] = dict(type='ToTensor', keys=['gt_label'])
    assert describe_preprocessing(cfg)['input_size'] == [24, 32]


@pytest.mark.parametrize(
    ('steps', 'size', 'expected'),
    [
        ([dict(type='Pad', size=(48, 40))], None, [40, 48]),
        ([dict(type='Pad', size=(48, 40))], (20, 20), [20, 20]),
        ([dict(type='Pad', size_divisor=20)], None, [40, 40]),
        ([dict(type='Pad', pad_to_square=True)], None, [32, 32]),
        (
            [dict(type='Pad', size=(48, 40)), dict(type='CenterCrop', crop_size=16)],
            None,
            None,
        ),
    ],
)
def test_padding_to_one_size(steps, size, expected):
    cfg = classifier_config()
    cfg.model = dict(data_preprocessor=cfg.data_preprocessor)
    cfg.test_dataloader.dataset.pipeline[2:2] = steps
    how = describe_preprocessing(cfg, size)
    assert how['pad_size'] == expected
    assert how['input_size'] == (expected or [16, 16])


@pytest.mark.parametrize(
    'pad',
    [
        dict(size_divisor=32),
        dict(pad_to_square=True),
        dict(size=(64, 64), padding_mode='reflect'),
    ],
)
def test_padding_that_depends_on_the_image(pad):
    cfg = classifier_config()
    cfg.model = dict(data_preprocessor=cfg.data_preprocessor)
    pipeline = cfg.test_dataloader.dataset.pipeline
    pipeline[1].keep_ratio = True
    pipeline.insert(2, dict(type='Pad', **pad))
    with pytest.raises(ValueError, match='depends on the image'):
        describe_preprocessing(cfg)
