# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""`docs/en/label_free.md`: its configs train on folders of images."""

import re
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from mmengine.registry import MODELS, init_default_scope

from mmfakd.cli import main
from tests.helpers.toy import classifier
from tests.helpers.toy_detectors import retinanet

REPOSITORY = Path(__file__).resolve().parents[1]
PAGE = (REPOSITORY / 'docs/en/label_free.md').read_text()
SNIPPETS = re.findall(r'^```python\n# (\w+\.py)\n(.*?)^```', PAGE, re.M | re.S)
# Of a classifier, and of a detector.
PAIRS = re.findall(r'^mmfakd (pair .*)', PAGE, re.M)
# The student's part of a checkpoint.
PREFIX = 'architecture.'
CLASSIFIER = """
default_scope = 'mmpretrain'
model = {model}
data_preprocessor = dict(num_classes=10, mean=[127.5] * 3, std=[127.5] * 3)
train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='ResizeEdge', scale=16),
    dict(type='CenterCrop', crop_size=16),
    dict(type='PackInputs'),
]
train_dataloader = dict(
    batch_size=2,
    num_workers=0,
    sampler=dict(type='DefaultSampler', shuffle=True),
    dataset=dict(type='CustomDataset', data_prefix='none', pipeline=train_pipeline),
)
"""
DETECTOR = """
default_scope = 'mmdet'
model = {model}
train_dataloader = dict(
    batch_size=2,
    num_workers=0,
    sampler=dict(type='DefaultSampler', shuffle=True),
    batch_sampler=dict(type='AspectRatioBatchSampler'),
    dataset=dict(type='CocoDataset', ann_file='none.json'),
)
"""
RUN = """
train_cfg = dict(by_epoch=True, max_epochs=1)
optim_wrapper = dict(optimizer=dict(type='SGD', lr=0.01, weight_decay=0.1))
"""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """The page's configs, tiny models and four images in folders."""
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    for name in ('a/1.png', 'a/2.png', 'b/3.png', '4.png'):
        path = tmp_path / 'data/unlabelled' / name
        path.parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(path), rng.integers(0, 256, (48, 64, 3), np.uint8))
    for name, text in SNIPPETS:
        (tmp_path / name).write_text(text.replace('(640, 480)', '(96, 64)'))
    return tmp_path


def write(path, text, model):
    model = {k: v for k, v in model.items() if k != '_scope_'}
    path.write_text(text.format(model=model) + RUN)
    return str(path)


def save_teacher(model):
    """Give the page's teacher weights; these."""
    init_default_scope(model['_scope_'])
    weights = MODELS.build(model).state_dict()
    torch.save(weights, 'teacher.pth')
    return weights


def trained(work_dir):
    return torch.load(work_dir / 'epoch_1.pth', weights_only=False)['state_dict']


def test_classifier(folder):
    write(folder / 'my_student.py', CLASSIFIER, classifier())
    write(folder / 'my_teacher.py', CLASSIFIER, classifier(width=8))
    save_teacher(classifier(width=8))
    assert not main([*PAIRS[0].split(), '--input-size', '16x16'])
    assert not main(['train', 'my_label_free.py', '--no-validate', '--seed', '0'])
    log = next((folder / 'work_dirs/my_label_free').glob('*/*.log')).read_text()
    assert 'NEVER TRAINED' not in log and "The student runs in mode 'tensor'" in log
    assert 'distill.loss' in log and 'student.loss' not in log


def test_detector(folder):
    write(folder / 'my_detector.py', DETECTOR, retinanet())
    write(folder / 'my_teacher_detector.py', DETECTOR, retinanet(width=16))
    teacher = save_teacher(retinanet(width=16))
    assert not main(PAIRS[1].split())
    cfg = ('train', 'my_detector_label_free.py', '--no-validate', '--seed', '0')
    assert not main([*cfg])
    work_dir = folder / 'work_dirs/my_detector_label_free'
    log = next(work_dir.glob('*/*.log')).read_text()
    assert 'NEVER TRAINED: bbox_head of the student' in log
    # The head stays the teacher's from first to last.
    student = trained(work_dir)
    heads = [name for name in teacher if name.startswith('bbox_head.')]
    assert heads and all(
        student[f'{PREFIX}{name}'].equal(teacher[name]) for name in heads
    )
