# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""Every config of `configs/fakd/coco` on real images, through its own pipeline.

A plain test run takes a few of them; `-m matrix` takes all the others. That a neck may
yield its deepest map first, or be a list, is shown by `test_pairs.py` (YOLOv3, DyHead).
"""

import copy
import math
import re
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
import yaml
from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.runner import Runner

from mmfakd.pairing.filters import plan_modes
from tests.helpers.pair_runs import save_weights, values, watched_run
from tests.test_configs import (
    REPOSITORY,
    SHARED,
    find_config,
    metafile_entries,
    pair_file,
)

FOLDER = REPOSITORY / 'configs' / 'fakd' / 'coco'
PAIRS = {
    name: (
        entry['Metadata']['Student']['Config'],
        entry['Metadata']['Teacher']['Config'],
    )
    for name, entry in metafile_entries(FOLDER).items()
    if 'Metadata' in entry
}
IMAGES = SHARED / 'coco_tiny'
# Two wide images and two high ones, with several large objects each.
FEW = [16, 17, 42, 45]
# One of each method, and detectors of one and two stages, with masks and of two widths.
BY_DEFAULT = {
    'fakd_review_faster-rcnn_r50_mv2_8xb2_coco',
    'fakd_layer_rtmdet_l_s_8xb32_coco',
    'reviewkd_mask-rcnn_r50_mv2_8xb2_coco',
    'pkd_yolox_l_s_8xb8_coco',
    'cwd_yolox_l_s_8xb8_coco',
}
needs_images = pytest.mark.skipif(
    not IMAGES.exists(), reason=f'{IMAGES} has the images, and is not here'
)


@pytest.fixture(autouse=True)
def needs_operators():
    pytest.importorskip('mmcv.ops', reason='detection needs the full mmcv')


def leaf(name):
    return Config.fromfile(FOLDER / f'{name}.py')


def tiny(cfg, images=FEW):
    """A config with a few real images, about 96 to 160 pixels wide and high."""
    cfg = Config(copy.deepcopy(cfg._cfg_dict))
    usual = (1333, 800) in values(cfg.train_dataloader, 'scale')
    loaders = [cfg.train_dataloader, cfg.val_dataloader]
    augments = values(cfg.model, 'batch_augments')
    shrink([*loaders, cfg.get('custom_hooks'), *augments], 8 if usual else 5)
    for loader in loaders:
        loader.update(batch_size=2, num_workers=0, persistent_workers=False)
        dataset = next(d for d in values(loader, 'dataset') if 'ann_file' in d)
        dataset.update(data_root=f'{IMAGES}/', indices=images)
    for sampler in values(cfg.model, 'sampler'):
        # Instead of 512 regions of each image.
        sampler['num'] = 32
    cfg.train_dataloader.sampler = dict(type='DefaultSampler', shuffle=False)
    annotations = f'{IMAGES}/annotations/instances_val2017.json'
    cfg.val_evaluator.ann_file = annotations
    return cfg


def shrink(part, factor):
    """Divide what is in pixels in a part of a config."""
    sides = {'border', 'crop_size', 'img_scale', 'random_size_range', 'scale', 'size'}
    if isinstance(part, dict):
        for key in sides & part.keys():
            part[key] = tuple(round(side / factor) for side in part[key])
        part = list(part.values())
    if isinstance(part, (list, tuple)):
        for value in part:
            shrink(value, factor)


@pytest.fixture(scope='module')
def stock(tmp_path_factory):
    """What the leaves of a pair share; only that of the last pair is kept.

    Returns:
        A function of the paths of a student and a teacher: the hook that watched the
        student as it trained alone, the file of the weights that it began with, and
        one of weights for the teacher.
    """
    folder = tmp_path_factory.mktemp('stock')
    files = folder / 'student.pth', folder / 'teacher.pth'

    @lru_cache(maxsize=1)
    def make(student, teacher):
        cfg = tiny(find_config(student))
        # The same random numbers as in a distillation.
        cfg.default_hooks.epoch_seed = dict(type='mmfakd.EpochSeedHook')
        _, watch = watched_run(cfg, folder, files[0])
        save_weights(teacher, files[1])
        return watch, *files

    return make


def table():
    """The leaves, those of a pair one after the other."""
    for name in sorted(PAIRS, key=lambda name: (PAIRS[name], name)):
        marks = [] if name in BY_DEFAULT else [pytest.mark.matrix]
        yield pytest.param(name, id=name, marks=marks)


@needs_images
@pytest.mark.parametrize('name', list(table()))
def test_leaf_takes_two_steps(name, stock, tmp_path):
    alone, student, teacher = stock(*PAIRS[name])
    cfg = tiny(leaf(name))
    cfg.model.teacher_ckpt = str(teacher)
    parts = cfg.model.get('inherit', [])
    if parts:
        weights = torch.load(student)
        student = tmp_path / 'student.pth'
        kept = {k: v for k, v in weights.items() if not k.startswith(tuple(parts))}
        torch.save(kept, student)
    cfg.model.student_ckpt = str(student)
    runner, taught = watched_run(cfg, tmp_path)

    losses = [loss for losses in taught.losses for loss in losses.values()]
    assert len(taught.losses) == 2 and all(map(math.isfinite, losses))
    assert any(key.startswith('distill.loss') for key in taught.losses[0])
    if not parts:
        # The same batch, the same weights: the student's own losses are the same.
        shared = {key: f'student.{key}' for key in alone.losses[0]}
        shared = {k: v for k, v in shared.items() if v in taught.losses[0]}
        assert sum('loss' in key for key in shared) >= 2
        for key, ours in shared.items():
            assert taught.losses[0][ours] == pytest.approx(alone.losses[0][key])

    model = runner.model
    trainable = {n for n, p in model.named_parameters() if p.requires_grad}
    # Several GPUs wait for each of them.
    assert trainable == taught.reached
    learning = {f'architecture.{name}' for name in alone.learned}
    learning |= {name for name in trainable if name.startswith('distiller.')}
    assert sorted(learning - taught.learned) == []


@pytest.mark.parametrize(
    ('file', 'widths', 'side', 'strides'),
    [
        ('fpn_p2_p6', (256, 256), 800, (4, 8, 16, 32, 64)),
        ('fpn_p3_p7', (256, 256), 800, (8, 16, 32, 64, 128)),
        ('pafpn_s_l', (128, 256), 640, (8, 16, 32)),
    ],
)
def test_filters_are_planned(file, widths, side, strides):
    """As `make_distill_config.py` plans them."""
    base = REPOSITORY / 'configs' / '_base_' / 'distillers' / f'{file}.py'
    cfg = Config.fromfile(base)
    plans = [plan_modes(*widths, side // stride) for stride in strides]
    filters = cfg.fakd_review.transform
    if isinstance(filters, dict):
        filters = [filters] * len(strides)
    filters = [{k: v for k, v in f.items() if k != 'type'} for f in filters]
    assert filters == plans
    one = {k: v for k, v in cfg.fakd_layer.connector.items() if k != 'type'}
    for stride in strides:
        planned = plan_modes(*widths, side // stride, mixed=True)
        assert one == dict(planned, high_pass=0)
    for method in (cfg.fakd_review, cfg.fakd_layer, cfg.reviewkd):
        assert (method.in_channels, method.out_channels) == tuple(
            [width] * len(strides) for width in widths
        )
        # The maps of a neck have negative values.
        assert method.get('act_cfg') is None


def test_teachers_have_published_weights():
    zoo = Path(find_spec('mmdet').origin).parent / '.mim' / 'configs'
    for pair in {pair_file(FOLDER / f'{name}.py') for name in PAIRS}:
        found = re.search(
            r"cfg_path='mmdet::(.+?)/(.+?)'.*teacher_ckpt='(.+?)'",
            pair.read_text(),
            re.DOTALL,
        )
        if found is None:
            # A leaf on top of another leaf has no pair of its own.
            assert 'inherit' in pair.stem
            continue
        folder, config, weights = found.groups()
        with open(zoo / folder / 'metafile.yml') as file:
            models = {m['Name']: m for m in yaml.safe_load(file)['Models']}
        assert models[weights]['Config'] == f'configs/{folder}/{config}'
        assert models[weights]['Weights'].startswith('https://')


@pytest.mark.parametrize(
    ('pair', 'weight'),
    [
        ('faster-rcnn_r101_r18', '1.2'),
        ('faster-rcnn_r101_r50', '1.0'),
        ('faster-rcnn_r50_mv2', '2.0'),
        ('mask-rcnn_r101_r18', '1.5'),
        ('mask-rcnn_r101_r50', '0.8'),
        ('mask-rcnn_r50_mv2', '1.0'),
        ('retinanet_r101_r50', '1.0'),
    ],
)
def test_weights_are_those_of_reviewkd(pair, weight):
    for method in ('reviewkd', 'fakd_review'):
        text = (FOLDER / f'{method}_{pair}_8xb2_coco.py').read_text()
        assert f'    loss_weight={weight},\n' in text


def test_layer_to_layer_measures_its_weights():
    names = [name for name in PAIRS if name.startswith('fakd_layer_')]
    assert len(names) == 12
    for name in names:
        assert leaf(name).model.distiller.loss_weight == 'balance', name


class Skipped(Hook):
    """Notes at each step what the data set leaves out of its pipeline."""

    def __init__(self):
        self.keys = []

    def before_train_iter(self, runner, batch_idx, data_batch=None):
        self.keys.append(runner.train_dataloader.dataset._skip_type_keys)


@needs_images
def test_yolox_switches_its_mode(tmp_path):
    """Its last epochs have an L1 loss and neither mosaic nor mixup."""
    cfg = tiny(leaf('fakd_review_yolox_l_s_8xb8_coco'), FEW[:2])
    cfg.model.teacher_ckpt = None
    cfg.train_cfg.max_epochs = 3
    switch = next(h for h in cfg.custom_hooks if h.type == 'YOLOXModeSwitchHook')
    # It counts from 1: the second epoch is the first of the last two.
    switch.num_last_epochs = 1
    skipped = Skipped()
    _, watch = watched_run(cfg, tmp_path, steps=3, hooks=[skipped])
    closed = ('Mosaic', 'RandomAffine', 'MixUp')
    assert skipped.keys == [None, closed, closed]
    with_l1 = ['student.loss_l1' in losses for losses in watch.losses]
    assert with_l1 == [False, True, True]
    for losses in watch.losses:
        assert all(map(math.isfinite, losses.values()))
        assert sum(key.startswith('distill.loss_level') for key in losses) == 3


@needs_images
@pytest.mark.parametrize(
    ('name', 'threshold', 'kinds'),
    [
        ('cwd_yolox_l_s_8xb8_coco', 'test_cfg.score_thr', ['bbox']),
        (
            'pkd_mask-rcnn_r50_mv2_8xb2_coco',
            'test_cfg.rcnn.score_thr',
            ['bbox', 'segm'],
        ),
    ],
)
def test_evaluation_runs(name, threshold, kinds, tmp_path):
    """The student is evaluated by pycocotools, without weights of its teacher."""
    cfg = tiny(leaf(name), FEW[:2])
    cfg.model.teacher_ckpt = str(tmp_path / 'nowhere.pth')
    cfg.update(work_dir=str(tmp_path), log_level='ERROR')
    if 'segm' in kinds:
        cfg.model.architecture.test_cfg.rpn.max_per_img = 50

    def evaluate(score):
        cfg.merge_from_dict({f'model.architecture.{threshold}': score})
        return Runner.from_cfg(cfg).val()

    scores = evaluate(0.0)
    for kind in kinds:
        for size in ('', '_50', '_75', '_s', '_m', '_l'):
            assert 0 <= scores[f'coco/{kind}_mAP{size}'] <= 1
    if kinds == ['bbox']:
        # Nothing is found.
        assert evaluate(1.1) == {}
