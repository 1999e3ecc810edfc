# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""A training on joined data sets that differ, from its start to the exported file.

mmdet's `ConcatDataset` has a list of their meta information, and writes it into
checkpoints.
"""

import copy

import pytest
import torch
from mmdet.apis import init_detector
from mmengine.config import Config
from mmengine.registry import MODELS, init_default_scope

from mmfakd import cli
from mmfakd.checkpoints.class_names import trained_classes
from mmfakd.compat import load_checkpoint_file
from tests.helpers.toy_detectors import detection_run, pyramid_distiller, retinanet

CLASSES = ('a', 'b', 'c')


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    """A trained pair, whose teacher comes from such a training, too."""
    folder = tmp_path_factory.mktemp('joined')
    pair = dict(
        type='mmfakd.FeatureDistill',
        architecture=retinanet(),
        teacher=retinanet(),
        teacher_ckpt=str(folder / 'teacher.pth'),
        distiller=pyramid_distiller(),
    )
    cfg = detection_run(folder, pair)
    one = cfg.train_dataloader.dataset
    other = copy.deepcopy(one)
    other.metainfo.palette = [(1, 2, 3)] * 3
    cfg.train_dataloader.dataset = dict(type='ConcatDataset', datasets=[one, other])
    cfg.default_hooks = dict(student=dict(type='mmfakd.StudentCheckpointHook'))
    cfg.dump(folder / 'pair.py')
    init_default_scope('mmdet')
    meta = [dict(classes=CLASSES, palette=i) for i in range(2)]
    weights = MODELS.build(retinanet()).state_dict()
    torch.save(
        dict(state_dict=weights, meta=dict(dataset_meta=meta)), folder / 'teacher.pth'
    )
    cli.main(['train', str(folder / 'pair.py')])
    return folder


def test_files(folder):
    """The checkpoint has what mmdet writes, the student what inferencers read."""
    meta = load_checkpoint_file(folder / 'run/epoch_1.pth')['meta']['dataset_meta']
    assert [one['classes'] for one in meta] == [CLASSES] * 2
    student = torch.load(folder / 'run/epoch_1_student.pth', weights_only=True)
    assert student['meta']['dataset_meta']['classes'] == CLASSES
    cfg = Config.fromstring(student['meta']['cfg'], '.py')
    model = init_detector(cfg, str(folder / 'run/epoch_1_student.pth'), device='cpu')
    assert model.dataset_meta['classes'] == CLASSES


def test_names_of_the_teacher(folder, capsys, monkeypatch, tmp_path):
    assert trained_classes(str(folder / 'teacher.pth')) == CLASSES
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit, match='0'):
        cli.main(['check-teacher', str(folder / 'pair.py')])
    printed = capsys.readouterr().out
    assert 'Teacher RetinaNet with 3 classes' in printed and 'WARNING' not in printed


def test_export(folder, tmp_path):
    out = tmp_path / 'student.pth'
    cli.main(['export', str(folder / 'run/epoch_1.pth'), '-o', str(out)])
    found = torch.load(out, weights_only=True)['meta']['dataset_meta']
    assert found['classes'] == CLASSES
