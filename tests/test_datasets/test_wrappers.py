# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""Data sets within data sets, as configs and built."""

from types import SimpleNamespace

import pytest
from mmcv.transforms import Compose
from mmengine.config import Config, ConfigDict
from mmengine.registry import DATASETS, init_default_scope
from torch import nn
from torch.utils.data import ConcatDataset, DataLoader, Subset

from mmfakd.datasets.wrappers import (
    dataset_meta,
    image_caches,
    inner_datasets,
    length_of,
    pipeline_of,
    read_datasets,
    walk_loaders,
    walk_transforms,
    walk_wrappers,
)
from mmfakd.model_zoo.find import config_file
from mmfakd.pairing.input_size import read_input_size
from tests.helpers.tiny_runs import Stream

INNER = dict(type='Digits', split='train')


REPEAT = dict(type='Repeat', times=3, dataset=INNER)


@pytest.mark.parametrize(
    ('dataset', 'types'),
    [
        (None, []),
        (INNER, ['Digits']),
        (REPEAT, ['Repeat', 'Digits']),
        (dict(type='Concat', datasets=[INNER, REPEAT]), ['Concat', 'Digits']),
        (dict(type='Concat', datasets=(REPEAT,)), ['Concat', 'Repeat', 'Digits']),
        (dict(type='Concat', datasets=[]), ['Concat']),
        (dict(type='Balanced', dataset=REPEAT), ['Balanced', 'Repeat', 'Digits']),
        (dict(type='Built', dataset=object()), ['Built']),
        (dict(pipeline=[dict(type='PackInputs')]), [None]),
    ],
)
def test_from_the_outermost_in(dataset, types):
    assert [config.get('type') for config in walk_wrappers(dataset)] == types
    if dataset is not None:
        walked = walk_wrappers(ConfigDict(dataset))
        assert [config.get('type') for config in walked] == types


def test_pipeline_of_a_config_is_found_and_can_be_changed():
    cfg = Config.fromfile(config_file('r18w4_1xb50_digits'))
    *wrappers, dataset = walk_wrappers(cfg.train_dataloader.dataset)
    assert [wrapper.type for wrapper in wrappers] == ['RepeatDataset']
    assert dataset.type == 'mmfakd.Digits'
    dataset.pipeline = []
    assert cfg.train_dataloader.dataset.dataset.pipeline == []


@pytest.mark.parametrize('pipeline', [len, nn.Identity(), 'text', None, {}])
def test_what_else_stands_under_the_name_of_a_pipeline(pipeline):
    """A class of one's own may have anything there."""
    dataset = SimpleNamespace(pipeline=pipeline)
    assert pipeline_of(dataset) == []
    assert image_caches(SimpleNamespace(dataset=dataset)) == []


def test_transforms_within_transforms():
    load, flip, pad, pack = (
        dict(type=t) for t in ('Load', 'RandomFlip', 'Pad', 'Pack')
    )
    choice = dict(type='RandomChoice', transforms=[[flip], [flip, pad]])
    albu = dict(type='Albu', transforms=[pad])
    found = list(walk_transforms([load, choice, albu, pack]))
    assert found == [load, choice, flip, flip, pad, albu, pad, pack]
    init_default_scope('mmdet')
    choice['transforms'] = [
        [dict(type='RandomFlip', prob=0.5)],
        [dict(type='Pad', size=(8, 8))],
    ]
    built = [type(t).__name__ for t in walk_transforms(Compose([choice]))]
    assert [name for name in built if name != 'Compose'] == [
        'RandomChoice',
        'RandomFlip',
        'Pad',
    ]
    own = SimpleNamespace(transforms='all')
    assert list(walk_transforms([own])) == [own] and not list(walk_transforms(None))


def digits(**kwargs):
    pipeline = [dict(type='Resize', scale=16), dict(type='PackInputs')]
    return dict(type='mmfakd.Digits', labels_per_class=2, pipeline=pipeline, **kwargs)


def wrapped(dataset):
    """One in all wrappers that mmpretrain and MMEngine have."""
    balanced = dict(type='ClassBalancedDataset', oversample_thr=0.1, dataset=dataset)
    repeated = dict(type='RepeatDataset', times=2, dataset=balanced)
    fold = dict(type='KFoldDataset', num_splits=2, fold=0, dataset=dataset)
    return dict(type='ConcatDataset', datasets=[repeated, fold])


def test_built_wrappers():
    init_default_scope('mmpretrain')
    dataset = DATASETS.build(wrapped(digits()))
    dataset = Subset(ConcatDataset([dataset, dataset]), range(4))
    names = [type(one).__name__ for one in walk_wrappers(dataset)]
    assert names == [
        *('Subset', 'ConcatDataset', 'ConcatDataset'),
        *('RepeatDataset', 'ClassBalancedDataset', 'Digits'),
    ]
    leaves = read_datasets(dataset)
    assert [type(one).__name__ for one in leaves] == ['Digits'] * 4
    assert dataset_meta(dataset)['classes'] == leaves[0].metainfo['classes']
    assert [type(t).__name__ for t in pipeline_of(leaves[0])] == [
        'Resize',
        'PackInputs',
    ]
    assert pipeline_of(dataset) == [] and inner_datasets(leaves[0]) == []


def test_joined_data_sets_that_differ():
    """mmdet's have a list of the metainfo of all."""
    init_default_scope('mmdet')
    digits = dict(type='mmfakd.Digits', labels_per_class=2)
    sets = [dict(digits, metainfo=dict(palette=[(i, 0, 0)])) for i in range(2)]
    joined = dict(type='ConcatDataset', datasets=sets)
    built = DATASETS.build(dict(type='RepeatDataset', times=2, dataset=joined))
    assert isinstance(built.metainfo, list)
    assert dataset_meta(built)['classes'] == tuple('0123456789')
    assert dataset_meta(Subset(built, range(4))) == dataset_meta(built)


def test_mixtures_of_images():
    init_default_scope('mmdet')
    mixed = dict(
        type='mmdet.MultiImageMixDataset',
        pipeline=[dict(type='mmdet.Mosaic', img_scale=(64, 64))],
        dataset=dict(type='mmfakd.Digits', labels_per_class=2),
    )
    built = DATASETS.build(mixed)
    assert [type(one).__name__ for one in walk_wrappers(built)][1:] == ['Digits']
    assert [config['type'] for config in walk_wrappers(mixed)][1:] == ['mmfakd.Digits']


def test_named_data_sets():
    cfg = dict(type='Joined', datasets=dict(a=INNER, b=REPEAT))
    assert [one['type'] for one in read_datasets(cfg)] == ['Digits', 'Digits']
    named = dict(type='Digits', dataset='digits', datasets=['a'])
    assert list(walk_wrappers(named)) == [named]


def test_loaders():
    built = DataLoader([1, 2], batch_size=2)
    first, second = dict(dataset=INNER, batch_size=2), dict(dataset=REPEAT)
    loaders = dict(labelled=[first, built], unlabelled=second)
    assert list(walk_loaders(loaders)) == [first, built, second]
    assert list(walk_loaders(built)) == [built]
    assert list(walk_loaders(None)) == []


@pytest.mark.parametrize('built', [False, True])
def test_the_size_of_images_is_found(built):
    init_default_scope('mmpretrain')
    dataset = wrapped(digits())
    loader = dict(dataset=DATASETS.build(dataset) if built else dataset)
    size = read_input_size(Config(dict(train_dataloader=[loader])))
    assert (size.height, size.width) == (16, 16)


def test_lengths():
    """A loader has a `__len__` whatever it loads."""
    assert length_of(DataLoader([1, 2, 3], batch_size=2)) == 2
    assert length_of(DataLoader(Stream())) is None and length_of(None) is None
