# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""What a file says of its images is what the test pipeline makes of them."""

import json

import cv2
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from mmengine.config import Config
from mmengine.hub import get_config
from mmengine.structures import BaseDataElement
from mmpretrain import ImageClassificationInferencer, get_model
from torch import nn

from mmfakd.checkpoints.mdistiller_file import convert_file
from mmfakd.checkpoints.student import stock_config
from mmfakd.export.command import export_checkpoint
from mmfakd.export.preprocessing import describe_preprocessing
from mmfakd.export.student_model import binary_threshold, load_student
from mmfakd.model_zoo.find import config_file
from tests.helpers.mdistiller_zoo import zoo_state_dict
from tests.test_export.conftest import classifier_config, save


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
    ('name', 'order', 'size'),
    [
        ('r20_1xb64_cifar100', 'RGB', [32, 32]),
        ('r18w4_1xb50_digits', 'grey', [8, 8]),
    ],
)
def test_models_of_arrays(name, order, size):
    """The same of a training's config and of the stock one, which takes files."""
    cfg = Config.fromfile(config_file(name))
    cfg.model.data_preprocessor = cfg.data_preprocessor
    for described in (cfg, stock_config(cfg)):
        how = describe_preprocessing(described)
        assert (how['channel_order'], how['input_size']) == (order, size)


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
        # CenterNet's, each side to the next multiple of 32.
        dict(
            type='RandomCenterCropPad',
            test_mode=True,
            test_pad_mode=['logical_or', 31],
        ),
    ],
)
def test_padding_that_depends_on_the_image(pad):
    cfg = classifier_config()
    cfg.model = dict(data_preprocessor=cfg.data_preprocessor)
    pipeline = cfg.test_dataloader.dataset.pipeline
    pipeline[1].keep_ratio = True
    pipeline.insert(2, {'type': 'Pad', **pad})
    with pytest.raises(ValueError, match='depends on the image'):
        describe_preprocessing(cfg)


def exported(cfg, folder):
    """What a file says of its images."""
    out = str(folder / 'x.torchscript')
    export_checkpoint(save(cfg, folder / 'x.pth'), out)
    files = {'meta.json': ''}
    torch.jit.load(out, _extra_files=files)
    return json.loads(json.loads(files['meta.json'])['preprocessing'])


@pytest.mark.parametrize('channels', [1, 3])
def test_one_mean_for_all_channels(tmp_path, channels):
    cfg = classifier_config(in_channels=channels)
    cfg.model.teacher.backbone.in_channels = channels
    cfg.data_preprocessor.update(mean=[127.5], std=[127.5], to_rgb=channels == 3)
    how = exported(cfg, tmp_path)
    assert how['mean'] == how['std'] == [127.5] * channels
    assert how['channel_order'] == ('RGB' if channels == 3 else 'grey')
    # Where there is no model, the pipeline knows.
    kind = 'color' if channels == 3 else 'grayscale'
    cfg.test_dataloader.dataset.pipeline[0].color_type = kind
    cfg.model = dict(data_preprocessor=cfg.data_preprocessor)
    assert describe_preprocessing(cfg)['mean'] == [127.5] * channels


@pytest.mark.parametrize(
    ('test_cfg', 'size', 'value'),
    [
        (dict(size_divisor=32), [64, 64], [0.0] * 3),
        (dict(size=(80, 96)), [80, 96], [110.0, 120.0, 130.0]),
        (dict(size=(32, 96)), [40, 96], [110.0, 120.0, 130.0]),
    ],
)
def test_segmentors_that_pad_in_tests(tmp_path, test_cfg, size, value):
    cfg = segmentor_config(data_preprocessor=dict(test_cfg=test_cfg, pad_val=1))
    how = exported(cfg, tmp_path)
    assert how['input_size'] == size and how['pad_value'] == value
    # Both ways of padding make the same of an image.
    image = np.random.default_rng(0).integers(0, 256, (40, 56, 3), np.uint8)
    batch = dict(
        inputs=[torch.from_numpy(image).permute(2, 0, 1)],
        data_samples=[BaseDataElement()],
    )
    preprocessor = load_student(str(tmp_path / 'x.pth')).model.data_preprocessor
    expected = preprocessor(batch)['inputs'][0].permute(1, 2, 0).numpy()
    canvas = np.tile(np.float32(how['pad_value']), (*(how['pad_size'] or (40, 56)), 1))
    canvas[:40, :56] = image[..., ::-1]
    scaled = (canvas - np.float32(how['mean'])) / np.float32(how['std'])
    margins = [(0, a - b) for a, b in zip(how['input_size'], scaled.shape)]
    fill = how['divisor_value']
    scaled = np.pad(scaled, [*margins, (0, 0)], constant_values=fill)
    np.testing.assert_allclose(scaled, expected, atol=1e-4)


def test_segmentors_of_one_channel_say_their_threshold(tmp_path):
    cfg = segmentor_config({})
    loss = dict(type='CrossEntropyLoss', use_sigmoid=True)
    cfg.model.decode_head.update(
        num_classes=2, out_channels=1, threshold=0.4, loss_decode=loss
    )
    path, out = save(cfg, tmp_path / 'x.pth'), str(tmp_path / 'x.torchscript')
    assert '\nthreshold: sigmoid, above 0.4 is class 1\n' in export_checkpoint(
        path, out
    )
    files = {'meta.json': ''}
    network = torch.jit.load(out, _extra_files=files)
    threshold = json.loads(json.loads(files['meta.json'])['threshold'])
    # As mmseg decides.
    model = load_student(path).model
    images = torch.randn(1, 3, 40, 56, generator=torch.Generator().manual_seed(0))
    logits = F.interpolate(network(images)[0], (40, 56), mode='bilinear')
    # An untrained model says the same everywhere.
    logits = (logits - logits.mean()) / logits.std()
    [found] = model.postprocess_result(logits)
    expected = logits[0].sigmoid() > threshold
    assert torch.equal(found.pred_sem_seg.data, expected.to(torch.float32))
    assert 0 < expected.sum() < expected.numel()


def test_a_depth_has_no_threshold():
    """Its one channel is no score."""
    from mmseg.models import DepthEstimator

    depth = DepthEstimator.__new__(DepthEstimator)
    nn.Module.__init__(depth)
    depth.decode_head = nn.Identity()
    depth.decode_head.out_channels, depth.decode_head.threshold = 1, 0.3
    assert binary_threshold(depth) is None


def segmentor_config(data_preprocessor, **model):
    """A segmentor of images of 40 x 56 pixels."""
    pipeline = [
        dict(type='LoadImageFromFile'),
        dict(type='Resize', scale=(56, 40)),
        dict(type='PackSegInputs'),
    ]
    return Config(
        dict(
            default_scope='mmseg',
            model=dict(
                dict(
                    type='EncoderDecoder',
                    data_preprocessor=dict(
                        data_preprocessor,
                        type='SegDataPreProcessor',
                        mean=[100.0] * 3,
                        std=[10.0, 20.0, 30.0],
                        bgr_to_rgb=True,
                    ),
                    backbone=dict(
                        type='ResNet', depth=18, stem_channels=8, base_channels=8
                    ),
                    decode_head=fcn_head(),
                    train_cfg=dict(),
                    test_cfg=dict(mode='whole'),
                ),
                **model,
            ),
            test_dataloader=dict(
                dataset=dict(type='BaseSegDataset', pipeline=pipeline)
            ),
        )
    )


def fcn_head():
    return dict(
        type='FCNHead',
        in_channels=64,
        channels=8,
        in_index=3,
        num_convs=1,
        num_classes=3,
        concat_input=False,
        norm_cfg=dict(type='BN'),
    )


def test_models_that_want_more_than_images(tmp_path):
    """PointRend's second head refines what the first one says."""
    point_head = dict(
        type='PointHead',
        in_channels=[64],
        in_index=[3],
        channels=8,
        num_fcs=1,
        num_classes=3,
        dropout_ratio=-1,
    )
    cfg = segmentor_config(
        {},
        type='CascadeEncoderDecoder',
        num_stages=2,
        decode_head=[fcn_head(), point_head],
        test_cfg=dict(
            mode='whole', subdivision_steps=2, subdivision_num_points=64, scale_factor=2
        ),
    )
    with pytest.raises(ValueError, match=r'runs in no way.*mmdeploy.*it fails with'):
        exported(cfg, tmp_path)
    assert not (tmp_path / 'x.torchscript').exists()


@pytest.mark.parametrize(
    'name',
    [
        'yolact/yolact_r50_1xb8-55e_coco.py',
        'condinst/condinst_r50_fpn_ms-poly-90k_coco_instance.py',
    ],
)
def test_detectors_with_masks(tmp_path, name):
    cfg = get_config(f'mmdet::{name}')
    cfg.model.backbone.update(init_cfg=None)
    path = save(cfg, tmp_path / 'masks.pth')
    with pytest.raises(ValueError, match='runs in no way.*mmdeploy'):
        export_checkpoint(path, str(tmp_path / 'x.torchscript'))
