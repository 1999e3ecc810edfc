# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""Every shipped config: parses, builds, learns, and is listed where users look."""

import re
import shutil
from collections import Counter
from functools import cache
from pathlib import Path

import cv2
import make_configs
import numpy as np
import pytest
import torch
import yaml
from mmengine.config import Config
from mmengine.hub import get_config
from mmengine.registry import MODELS, init_default_scope
from mmengine.runner import Runner

from mmfakd.checkpoints.mdistiller_zoo import mdistiller_model_cfg
from tests.helpers.toy import step, without_gradient

REPOSITORY = Path(__file__).parents[1]
LEAVES = sorted((REPOSITORY / 'configs' / 'fakd').rglob('*.py'))
NAMES = [path.stem for path in LEAVES]
SHARED = REPOSITORY.parent / 'shared' / 'data'
# The data on which the leaves of a folder take two steps: a fixture, or None for what
# every machine has.
DATA = {
    'digits': None,
    'cifar100': 'cifar_arrays',
    'imagenet': 'photographs',
    'bccd': 'cells',
}
# Folders whose leaves take their steps in a test file of their own.
ELSEWHERE = {'coco': 'test_coco_configs.py'}


@cache
def metafile_entries(folder):
    with open(folder / 'metafile.yml') as file:
        return {entry['Name']: entry for entry in yaml.safe_load(file)['Models']}


def pair_file(leaf):
    """What a leaf has its teacher and student from: a base of a pair, or itself."""
    base = re.search(r"'([^']*/pairs/[^']*\.py)'", leaf.read_text())
    return (leaf.parent / base[1]).resolve() if base else leaf


@cache
def pair_models(path):
    model = Config.fromfile(path).model
    return model.teacher, model.architecture


@cache
def find_config(config):
    """A config by its path in this repository or in another package."""
    if '::' in config:
        return get_config(config)
    return Config.fromfile(REPOSITORY / config)


@pytest.fixture(scope='session')
def cifar_arrays(tmp_path_factory):
    """Two CIFAR-100 images of each class; noise where there are no real ones."""
    path = tmp_path_factory.mktemp('cifar') / 'few.npz'
    real = SHARED / 'cifar100' / 'test.npz'
    if real.exists():
        arrays = np.load(real)
        labels = arrays['labels']
        rows = np.concatenate([np.flatnonzero(labels == i)[:2] for i in range(100)])
        np.savez(path, images=arrays['images'][rows], labels=labels[rows])
    else:
        images = np.random.default_rng(0).integers(0, 256, (200, 32, 32, 3), np.uint8)
        np.savez(path, images=images, labels=np.arange(200) % 100)
    return dict(type='mmfakd.ImageArrays', data_files=str(path))


@pytest.fixture(scope='session')
def photographs(tmp_path_factory):
    """A few photographs as an mmpretrain data set; noise where there are none."""
    folder = tmp_path_factory.mktemp('photographs')
    paths = sorted((SHARED / 'coco_tiny' / 'train2017').glob('*.jpg'))[:8]
    if not paths:
        random = np.random.default_rng(0)
        paths = [folder / f'{i}.jpg' for i in range(8)]
        for path in paths:
            cv2.imwrite(str(path), random.integers(0, 256, (240, 320, 3), np.uint8))
    names = folder / 'names.txt'
    names.write_text(''.join(f'{path} {i}\n' for i, path in enumerate(paths)))
    return dict(type='CustomDataset', ann_file=str(names))


@pytest.fixture(scope='session')
def cells():
    """Where the images of blood cells are; all else is as the config says."""
    folder = SHARED / 'bccd'
    if not folder.exists():
        pytest.skip(f'{folder} has the images, and is not here')
    return dict(data_root=f'{folder}/')


def test_there_are_configs():
    assert len(LEAVES) >= 6


def test_names_are_unique_and_lower_case():
    every = [p.stem for p in (REPOSITORY / 'configs' / 'fakd').rglob('*.py')]
    assert [name for name, count in Counter(every).items() if count > 1] == []
    assert [name for name in every if name != name.lower()] == []


def test_model_index_lists_every_metafile():
    with open(REPOSITORY / 'model-index.yml') as file:
        listed = yaml.safe_load(file)['Import']
    found = [
        path.relative_to(REPOSITORY).as_posix()
        for path in sorted((REPOSITORY / 'configs').rglob('metafile.yml'))
    ]
    assert sorted(listed) == found


def test_metafiles_list_nothing_else():
    listed = [
        name
        for path in (REPOSITORY / 'configs').rglob('metafile.yml')
        for name in metafile_entries(path.parent)
    ]
    assert sorted(listed) == sorted(NAMES)


@pytest.mark.parametrize('path', LEAVES, ids=NAMES)
def test_leaf_is_short_and_listed(path):
    assert len(path.read_text().splitlines()) <= 40
    entry = metafile_entries(path.parent)[path.stem]
    assert REPOSITORY / entry['Config'] == path
    readme = (path.parent / 'README.md').read_text()
    rows = [line for line in readme.splitlines() if line.startswith('|')]
    assert any(re.search(rf'\b{path.stem}\.py\b', row) for row in rows)
    if 'model.teacher' in path.read_text() or path.stem.count('_') > 3:
        models = pair_models(pair_file(path))
        for role, model in zip(('Teacher', 'Student'), models):
            config = entry['Metadata'][role]['Config']
            if model.get('cfg_path') != config:
                if 'cfg_path' in model:
                    model = find_config(model.cfg_path).model
                assert model.backbone == find_config(config).model.backbone


def test_predictions_can_be_shown():
    """`mmfakd test --show-dir` finds a hook, and what that draws with."""
    # The leaves of a folder share it.
    for path in {leaf.parent: leaf for leaf in LEAVES}.values():
        cfg = Config.fromfile(path)
        detects = cfg.default_scope == 'mmdet'
        hook = 'DetVisualizationHook' if detects else 'VisualizationHook'
        draws = 'DetLocalVisualizer' if detects else 'UniversalVisualizer'
        assert cfg.default_hooks.visualization.type.split('.')[-1] == hook, path
        assert cfg.visualizer.type.split('.')[-1] == draws, path


@pytest.mark.parametrize('path', LEAVES, ids=NAMES)
def test_bases_are_ours_or_stock(path):
    text = path.read_text()
    assert 'mmfakd::' not in text
    assert 'find_unused_parameters' not in text


@pytest.mark.parametrize(
    ('file', 'arch'),
    [
        ('r20', 'resnet20'),
        ('r32', 'resnet32'),
        ('r56', 'resnet56'),
        ('r110', 'resnet110'),
        ('r8x4', 'resnet8x4'),
        ('r32x4', 'resnet32x4'),
        ('r50', 'ResNet50'),
        ('wrn16-2', 'wrn_16_2'),
        ('wrn40-1', 'wrn_40_1'),
        ('wrn40-2', 'wrn_40_2'),
        ('vgg8', 'vgg8'),
        ('vgg13', 'vgg13'),
        ('mv2', 'MobileNetV2'),
        ('shuv1', 'ShuffleV1'),
        ('shuv2', 'ShuffleV2'),
    ],
)
def test_cifar_networks_are_the_zoo_s(file, arch):
    folder = REPOSITORY / 'configs' / 'fakd' / 'cifar100'
    model = Config.fromfile(folder / f'{file}_1xb64_cifar100.py').model
    zoo = mdistiller_model_cfg(arch)
    assert model.backbone == zoo['backbone']
    assert model.neck == zoo['neck']
    for key in ('type', 'num_classes', 'in_channels', 'loss'):
        assert model.head[key] == zoo['head'][key]


def test_files_are_as_the_table_has_them(capsys):
    make_configs.main(['--check'])
    assert capsys.readouterr().out == 'All files are as configs.yml has them.\n'
    written = {REPOSITORY / path for path in make_configs.make_files()}
    folders = {'cifar100', 'imagenet', 'coco'}
    assert {path for path in LEAVES if path.parent.name in folders} <= written


def test_what_differs_from_the_table_is_named_and_written(monkeypatch, tmp_path):
    shutil.copytree(REPOSITORY / 'configs', tmp_path / 'configs')
    monkeypatch.setattr(make_configs, 'REPOSITORY', tmp_path)
    changed = tmp_path / 'configs/fakd/imagenet/kd_r34_r18_8xb32_in1k.py'
    expected = changed.read_text()
    changed.write_text(expected.replace('0.5', '0.6'))
    (tmp_path / 'configs/fakd/coco/faster-rcnn_r18_8xb2_coco.py').unlink()
    with pytest.raises(SystemExit) as error:
        make_configs.main(['--check'])
    message = str(error.value)
    assert message.startswith('2 files are not as configs.yml has them: ')
    assert 'kd_r34_r18_8xb32_in1k.py, configs/fakd/coco/faster-rcnn_r18' in message
    make_configs.main([])
    make_configs.main(['--check'])
    assert changed.read_text() == expected


def test_checkpoints_with_a_connector_of_its_own_a_stage_load():
    """As `fakd_layer_r18w32_r18w4_1xb50_digits` had in mmrazor's distiller."""
    path = next(p for p in LEAVES if p.stem.startswith('fakd_layer_r18w32'))
    cfg = Config.fromfile(path)
    init_default_scope(cfg.default_scope)
    cfg.model.data_preprocessor = cfg.data_preprocessor
    trained, resumed = MODELS.build(cfg.model), MODELS.build(cfg.model)
    new = 'distiller.connectors.review.levels.'
    old = {
        re.sub(
            rf'^{new}(\d)',
            lambda match: f'distiller.connectors.stage{int(match[1]) + 1}',
            key,
        ): value
        for key, value in trained.state_dict().items()
    }
    assert 'distiller.connectors.stage3.level.transform.filter' in old
    resumed.load_state_dict(old, strict=True)
    for key, value in trained.state_dict().items():
        assert torch.equal(resumed.state_dict()[key], value)


def test_every_folder_has_data():
    assert sorted({*DATA, *ELSEWHERE}) == sorted({path.parent.name for path in LEAVES})
    for file in ELSEWHERE.values():
        assert (Path(__file__).parent / file).is_file()


WITH_DATA = [path for path in LEAVES if path.parent.name in DATA]
CIFAR = [path for path in WITH_DATA if path.parent.name == 'cifar100']


# Each method has twelve pairs: so every one is there, and every pair.
@pytest.mark.parametrize(
    'path',
    [path for path in WITH_DATA if path not in CIFAR or path in CIFAR[::5]],
    ids=lambda path: path.stem,
)
def test_config_takes_two_steps_on_its_own_data(path, request):
    take_two_steps(path, request)


@pytest.mark.matrix
@pytest.mark.parametrize('path', CIFAR, ids=lambda path: path.stem)
def test_each_config_takes_two_steps_on_its_own_data(path, request):
    take_two_steps(path, request)


def take_two_steps(path, request):
    cfg = Config.fromfile(path)
    assert cfg.get('find_unused_parameters') is None
    init_default_scope(cfg.default_scope)
    if DATA[path.parent.name] is not None:
        replace_data(
            cfg.train_dataloader, request.getfixturevalue(DATA[path.parent.name])
        )
    loader = Runner.build_dataloader(cfg.train_dataloader, seed=0)
    if 'crd' in path.stem:
        # CRD keeps an embedding of every training image.
        loss = cfg.model.distiller.distill_losses.loss_crd
        assert loss.sample_n == 50_000
        loss.sample_n = len(loader.dataset)
    model_cfg = cfg.model
    model_cfg.setdefault('data_preprocessor', cfg.data_preprocessor)
    model = MODELS.build(model_cfg)
    model.train()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    for _, data in zip(range(2), loader):
        optimizer.zero_grad()
        _, losses = model.parse_losses(step(model, data))
        assert all(torch.isfinite(value).all() for value in losses.values())
        # A map on which no object falls teaches a detector's scale of it nothing.
        idle = [n for n in without_gradient(model) if 'bbox_head.scales' not in n]
        assert idle == []
        optimizer.step()


def replace_data(loader, data):
    """Let a loader give small batches of other images, through its own pipeline.

    `data` is a whole data set, or what changes in the config's.
    """
    loader.update(batch_size=2, num_workers=0, persistent_workers=False)
    outer, dataset = loader, loader.dataset
    while 'dataset' in dataset:
        outer, dataset = dataset, dataset.dataset
    kept = {} if 'type' in data else dataset
    outer.dataset = {**kept, **data, 'pipeline': dataset.pipeline}
