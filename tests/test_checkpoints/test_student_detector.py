# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""An exported detector runs in stock mmdet, which has no mmfakd to import."""

import os
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from mmcv.transforms import Compose
from mmengine.config import Config
from mmengine.hub import get_config
from mmengine.registry import MODELS, init_default_scope

from mmfakd.checkpoints.student import export_student
from tests.helpers.pair_runs import values

SHARED = Path(__file__).resolve().parents[3] / 'shared' / 'data'
CLASSES = ('a', 'b', 'c')
SIZE = (128, 128)

# Neither mmfakd nor mmrazor can be imported, wherever they are installed. Each folder
# holds a student, which is used in three ways.
STOCK = """
import sys


class Missing:
    def find_spec(self, name, path=None, target=None):
        if name.split('.')[0] in ('mmfakd', 'mmrazor'):
            raise ModuleNotFoundError(f'{name} is not installed here')


sys.meta_path.insert(0, Missing())

import glob

import numpy as np
import torch
from mmdet.apis import DetInferencer, inference_detector, init_detector
from mmengine.config import Config

images, *folders = sys.argv[1:]
images = sorted(glob.glob(images + '/*'))
for folder in folders:
    file = folder + '/student.pth'
    meta = torch.load(file, weights_only=True)['meta']
    config = Config.fromstring(meta['cfg'], '.py')
    config.dump(folder + '/student.py')
    ways = {}
    for way, given in dict(file=folder + '/student.py', config=config).items():
        model = init_detector(given, file, device='cpu')
        assert model.dataset_meta['classes'] == ('a', 'b', 'c'), model.dataset_meta
        ways[way] = inference_detector(model, images)
    inferencer = DetInferencer(weights=file, device='cpu', show_progress=False)
    found = inferencer(images, return_datasamples=True, no_save_vis=True)
    ways['weights'] = found['predictions']
    found = {
        f'{way} {i} {key}': value.numpy()
        for way, samples in ways.items()
        for i, sample in enumerate(samples)
        for key, value in sample.pred_instances.items()
    }
    np.savez(folder + '/found.npz', **found)
taken = [name for name in sys.modules if name.split('.')[0] in ('mmfakd', 'mmrazor')]
assert not taken, taken
"""


@pytest.fixture(scope='module')
def images(tmp_path_factory):
    """Two photographs of different shapes; smooth noise where there are none."""
    folder = tmp_path_factory.mktemp('images')
    photographs = sorted((SHARED / 'coco_tiny' / 'val2017').glob('*.jpg'))
    rng = np.random.default_rng(0)
    for i, (width, height) in enumerate([(120, 80), (70, 110)]):
        if photographs:
            image = cv2.imread(str(photographs[i]))
        else:
            image = cv2.GaussianBlur(rng.random((96, 128, 3)) * 255, (0, 0), 5)
        cv2.imwrite(str(folder / f'{i}.png'), cv2.resize(image, (width, height)))
    return folder


def distillation_config(student, inherited, model):
    """A distillation whose student is a stock detector of three classes.

    Its training also has what only mmfakd knows. Test images are small.
    """
    path = f'mmdet::{student}.py'
    cfg = get_config(path)
    architecture = dict(cfg_path=path, **model)
    if inherited:
        cfg.model.merge(Config(dict(model=model)).model)
        architecture = cfg.model
    levels = dict(type='mmrazor.ModuleOutputs', source='neck')
    cfg.model = dict(
        type='mmfakd.FeatureDistill',
        architecture=architecture,
        teacher=dict(cfg_path=path, **model),
        teacher_ckpt='teacher.pth',
        inherit='neck',
        distiller=dict(
            type='mmrazor.ConfigurableDistiller',
            student_recorders=dict(neck=levels),
            teacher_recorders=dict(neck=levels),
        ),
    )
    data = dict(type='mmfakd.ImageArrays', data_files='images.npz')
    cfg.train_dataloader.dataset = dict(type='mmfakd.CRDDataset', dataset=data)
    cfg.custom_hooks = [
        *cfg.get('custom_hooks', []),
        dict(type='mmfakd.EpochSeedHook'),
        dict(type='mmfakd.StudentCheckpointHook'),
    ]
    cfg.custom_imports = dict(imports=['mmfakd'])
    # Training draws nothing.
    cfg.pop('visualizer')
    for pipeline in values(cfg.test_dataloader, 'pipeline'):
        for transform in pipeline:
            if transform['type'] == 'Resize':
                transform['scale'] = SIZE
            if transform['type'] == 'Pad' and 'size' in transform:
                transform['size'] = SIZE
    cfg.test_dataloader.dataset.metainfo = dict(classes=CLASSES)
    return cfg


def export(case, folder):
    """Export a student with random weights; returns the model that it was in."""
    cfg = distillation_config(**case)
    init_default_scope('mmdet')
    model = MODELS.build(cfg.model).eval()
    # The usual initialisation would predict nearly the same everywhere.
    for name, parameter in model.architecture.named_parameters():
        if not name.startswith('backbone') and parameter.dim() > 1:
            torch.nn.init.normal_(parameter, std=(2 / parameter[0].numel()) ** 0.5)
    meta = dict(cfg=cfg.pretty_text, dataset_meta=dict(classes=CLASSES))
    folder.mkdir()
    checkpoint = dict(meta=meta, state_dict=model.state_dict())
    torch.save(export_student(checkpoint), folder / 'student.pth')
    return cfg, model


def run_stock(images, *folders):
    env = {key: value for key, value in os.environ.items() if key != 'PYTHONPATH'}
    process = subprocess.run(
        [sys.executable, '-c', STOCK, *map(str, [images, *folders])],
        cwd=images,
        env=env,
        capture_output=True,
        text=True,
    )
    assert process.returncode == 0, process.stdout[-2000:] + process.stderr[-2000:]


@torch.no_grad()
def compare(cfg, model, images, folder):
    """The stock process has found what the student finds in a run's validation."""
    found = np.load(folder / 'found.npz')
    pipeline = Compose(cfg.test_dataloader.dataset.pipeline)
    boxes = []
    for i, path in enumerate(sorted(images.iterdir())):
        data = pipeline(dict(img_path=str(path), img_id=i))
        [sample] = model.val_step({key: [value] for key, value in data.items()})
        instances = sample.pred_instances
        assert len(instances) >= 5 and len(set(instances.scores.tolist())) >= 5
        boxes.append(instances.bboxes[:3])
        for way in ('file', 'config', 'weights'):
            for key, value in instances.items():
                # The same operations on the same weights, in another process.
                other = found[f'{way} {i} {key}']
                np.testing.assert_array_equal(other, value.numpy(), f'{way} {key}')
    assert not torch.equal(*boxes)
    return instances


TEST = dict(score_thr=0.0, max_per_img=10)
CASES = {
    'retinanet/retinanet_r18_fpn_1x_coco': dict(
        inherited=False, model=dict(bbox_head=dict(num_classes=3), test_cfg=TEST)
    ),
    'mask_rcnn/mask-rcnn_r50_fpn_1x_coco': dict(
        inherited=True,
        model=dict(
            backbone=dict(depth=18),
            neck=dict(in_channels=[64, 128, 256, 512], out_channels=32),
            rpn_head=dict(in_channels=32, feat_channels=32),
            roi_head=dict(
                bbox_roi_extractor=dict(out_channels=32),
                bbox_head=dict(in_channels=32, fc_out_channels=64, num_classes=3),
                mask_roi_extractor=dict(out_channels=32),
                mask_head=dict(in_channels=32, conv_out_channels=32, num_classes=3),
            ),
            test_cfg=dict(rcnn=TEST),
        ),
    ),
}
ONE_STAGE = dict(bbox_head=dict(num_classes=3), test_cfg=TEST)
MATRIX = {
    'faster_rcnn/faster-rcnn_r50_fpn_1x_coco': dict(
        roi_head=dict(bbox_head=dict(num_classes=3)), test_cfg=dict(rcnn=TEST)
    ),
    'rtmdet/rtmdet_tiny_8xb32-300e_coco': ONE_STAGE,
    'rtmdet/rtmdet-ins_tiny_8xb32-300e_coco': ONE_STAGE,
    'yolox/yolox_nano_8xb8-300e_coco': dict(
        bbox_head=dict(num_classes=3), test_cfg=dict(score_thr=0.0)
    ),
    'yolo/yolov3_mobilenetv2_8xb24-320-300e_coco': ONE_STAGE,
    'gfl/gfl_r50_fpn_1x_coco': ONE_STAGE,
    'fcos/fcos_r50-caffe_fpn_gn-head_1x_coco': ONE_STAGE,
    'atss/atss_r50_fpn_1x_coco': ONE_STAGE,
}


def test_stock_process_finds_the_same(images, tmp_path):
    """A student of boxes by `cfg_path`, one of masks by inheritance."""
    exported = {
        tmp_path / str(i): export(dict(case, student=student), tmp_path / str(i))
        for i, (student, case) in enumerate(CASES.items())
    }
    run_stock(images, *exported)
    boxes, masks = (
        compare(*pair, images=images, folder=folder)
        for folder, pair in exported.items()
    )
    assert sorted(boxes.keys()) == ['bboxes', 'labels', 'scores']
    assert sorted(masks.keys()) == ['bboxes', 'labels', 'masks', 'scores']
    assert 0 < masks.masks.float().mean() < 1


@pytest.mark.matrix
@pytest.mark.parametrize('student', MATRIX)
def test_other_detectors(student, images, tmp_path):
    case = dict(student=student, inherited=True, model=MATRIX[student])
    folder = tmp_path / 'student'
    pair = export(case, folder)
    run_stock(images, folder)
    compare(*pair, images=images, folder=folder)
