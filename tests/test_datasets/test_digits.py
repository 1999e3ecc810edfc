# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""The digits' split is fixed for good: results in the README depend on it."""

import hashlib

import numpy as np
import pytest
from sklearn.datasets import load_digits

from mmfakd.datasets import Digits
from mmfakd.datasets import digits as digits_module


@pytest.fixture(scope='module')
def source():
    """Image bytes -> index and class in scikit-learn's data."""
    digits = load_digits()
    images = np.round(digits.images * (255 / 16)).astype(np.uint8)
    assert len({image.tobytes() for image in images}) == len(images) == 1797
    return {
        image.tobytes(): (index, int(label))
        for index, (image, label) in enumerate(zip(images, digits.target))
    }


def indices(dataset, source):
    found = []
    for i in range(len(dataset)):
        info = dataset.get_data_info(i)
        index, label = source[info['img'].tobytes()]
        assert info['gt_label'] == label
        found.append(index)
    return found


def labels(dataset):
    return dataset.get_gt_labels()


def test_scikit_learn_is_read_without_its_import(run_python):
    run_python(
        'import sys; from mmfakd.datasets import Digits; len(Digits());'
        "assert 'sklearn' not in sys.modules"
    )


def test_file_elsewhere_is_left_to_scikit_learn(monkeypatch):
    expected = digits_module._read_digits()
    monkeypatch.setattr(digits_module, 'find_spec', lambda name: None)
    for actual, wanted in zip(digits_module._read_digits(), expected):
        assert (actual == wanted).all() and actual.shape == wanted.shape


def test_split_is_disjoint_and_whole(source):
    train = indices(Digits('train'), source)
    test = indices(Digits('test'), source)
    assert (len(train), len(test)) == (1297, 500)
    assert sorted(train + test) == list(range(1797))


def test_split_is_stratified():
    assert np.bincount(labels(Digits('test'))).tolist() == [50] * 10
    assert np.bincount(labels(Digits('train')), minlength=10).min() == 124


@pytest.mark.parametrize(
    ('kwargs', 'first', 'checksum'),
    [
        (dict(split='test'), [3, 7, 13, 16, 19], '66cfec24f72cda21'),
        (dict(split='train'), [0, 1, 2, 4, 5], '6aa37bdeb790cd84'),
        (dict(labels_per_class=10), [5, 33, 80, 91, 94], '54a670d7344ee3f8'),
    ],
)
def test_split_never_changes(kwargs, first, checksum, source):
    found = indices(Digits(**kwargs), source)
    assert found == sorted(found)
    assert found[:5] == first
    text = ' '.join(map(str, found))
    assert hashlib.sha256(text.encode()).hexdigest()[:16] == checksum


def test_smaller_label_sets_are_part_of_larger_ones(source):
    sets = [
        set(indices(Digits(labels_per_class=count), source)) for count in (1, 2, 10, 50)
    ]
    sets.append(set(indices(Digits(), source)))
    for small, large in zip(sets, sets[1:]):
        assert small < large


@pytest.mark.parametrize('count', [1, 10, 124])
def test_labels_per_class(count):
    dataset = Digits(labels_per_class=count)
    assert np.bincount(labels(dataset)).tolist() == [count] * 10


def test_images():
    dataset = Digits('test')
    first = dataset[0]['img']
    assert first.shape == (8, 8, 1) and first.dtype == np.uint8
    images = np.stack([dataset[i]['img'] for i in range(len(dataset))])
    # 16 levels and white, spread over all of uint8.
    assert np.unique(images).tolist() == [
        round(level * 255 / 16) for level in range(17)
    ]
    # A transform that writes into an image does not change the data.
    first[:] = 0
    assert dataset[0]['img'].any()


def test_statistics_of_the_configs():
    """configs/_base_/datasets/digits.py normalises with 77.8 and 95.9."""
    dataset = Digits()
    images = np.stack([dataset[i]['img'] for i in range(len(dataset))])
    assert images.mean() == pytest.approx(77.8, abs=0.5)
    assert images.std() == pytest.approx(95.9, abs=0.5)


def test_meta_information_and_representation():
    dataset = Digits(labels_per_class=2, metainfo=dict(source='UCI'))
    assert dataset.metainfo['classes'] == tuple('0123456789')
    assert dataset.metainfo['source'] == 'UCI'
    assert 'Split: \ttrain' in repr(dataset)
    assert 'Labels per class: \t2' in repr(dataset)


def test_pipeline_runs():
    dataset = Digits('test', pipeline=[dict(type='PackInputs')])
    packed = dataset[3]
    assert packed['inputs'].shape == (1, 8, 8)
    assert packed['data_samples'].gt_label.item() == labels(dataset)[3]


def test_lazy_start():
    dataset = Digits(lazy_init=True)
    assert dataset.metainfo['classes'][0] == '0'
    dataset.full_init()
    assert len(dataset) == 1297


@pytest.mark.parametrize(
    ('kwargs', 'message'),
    [
        (dict(split='val'), "split='val'; expected 'train' or 'test'"),
        (
            dict(split='test', labels_per_class=5),
            'labels_per_class=5 with the test split',
        ),
        (
            dict(labels_per_class=125),
            'labels_per_class=125: class 8 has 124 training images',
        ),
        (dict(labels_per_class=0), 'labels_per_class=0: class 0 has 128'),
        (dict(labels_per_class=-1), 'labels_per_class=-1: class 0'),
    ],
)
def test_errors(kwargs, message):
    with pytest.raises(ValueError, match=message):
        Digits(**kwargs)


@pytest.mark.parametrize('scope', ['mmdet', None])
def test_builds_from_the_root_registry_in_a_fresh_process(scope, run_python):
    run_python(f"""
from mmengine.registry import DATASETS, init_default_scope
if {scope!r}:
    init_default_scope({scope!r})
dataset = DATASETS.build(dict(
    type='mmfakd.Digits', labels_per_class=3,
    pipeline=[dict(type='mmpretrain.PackInputs')],
))
assert len(dataset) == 30
assert dataset[0]['inputs'].shape == (1, 8, 8)
""")
