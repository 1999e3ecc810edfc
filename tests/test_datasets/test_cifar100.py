# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""CIFAR-100 reads alike from either container, and its base config feeds it right."""

import hashlib
import pickle
import re
from collections import Counter
from pathlib import Path

import mmpretrain.datasets
import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.dataset import Compose
from mmengine.registry import DATASETS, MODELS, init_default_scope
from mmengine.runner import Runner
from mmpretrain.registry import TRANSFORMS

from mmfakd.datasets import CIFAR100
from mmfakd.model_zoo.registered_types import registered_types_only

REPOSITORY = Path(__file__).resolve().parents[2]
ARRAYS = REPOSITORY.parent / 'shared/data/cifar100'

needs_arrays = pytest.mark.skipif(
    not (ARRAYS / 'test.npz').is_file(),
    reason=f'needs the images of CIFAR-100 as arrays in {ARRAYS}',
)


@pytest.fixture(scope='module')
def images():
    """As many images as the test split has."""
    return np.random.RandomState(0).randint(0, 256, (10_000, 32, 32, 3), dtype=np.uint8)


@pytest.fixture(scope='module')
def labels():
    """A hundred of each class."""
    return np.random.RandomState(0).permutation(10_000) % 100


@pytest.fixture(scope='module')
def arrays(images, labels, tmp_path_factory):
    """A folder with the split as one file of arrays."""
    folder = tmp_path_factory.mktemp('arrays')
    np.savez(folder / 'test.npz', images=images, labels=labels)
    return str(folder)


@pytest.fixture(scope='module')
def official_folder(images, labels, tmp_path_factory):
    """A folder with the split in the form of the official archive, and its MD5."""
    folder = tmp_path_factory.mktemp('official')
    entries = dict(
        data=images.transpose(0, 3, 1, 2).reshape(10_000, 3072),
        fine_labels=labels.tolist(),
        coarse_labels=[0] * 10_000,
    )
    content = pickle.dumps(entries, protocol=2)
    (folder / 'cifar-100-python').mkdir()
    (folder / 'cifar-100-python/test').write_bytes(content)
    return str(folder), hashlib.md5(content).hexdigest()


@pytest.fixture
def official(official_folder, monkeypatch):
    """The same folder, whose file passes for the official one."""
    folder, md5 = official_folder
    stock = mmpretrain.datasets.CIFAR100
    monkeypatch.setattr(stock, 'train_list', [])
    monkeypatch.setattr(stock, 'test_list', [['test', md5]])
    return folder


@pytest.fixture
def config():
    """The base config."""
    init_default_scope('mmpretrain')
    return Config.fromfile(str(REPOSITORY / 'configs/_base_/datasets/cifar100.py'))


def raises(error, *parts):
    """Expect an error whose text has every part, in this order."""
    return pytest.raises(error, match='(?s)' + '.*'.join(map(re.escape, parts)))


# --------------------------------------------------------------- containers


def test_official_files_read_as_mmpretrain_reads_them(official):
    ours = CIFAR100(official, 'test')
    stock = mmpretrain.datasets.CIFAR100(official, split='test', download=False)
    assert ours.metainfo == stock.metainfo
    np.testing.assert_array_equal(ours.get_gt_labels(), stock.get_gt_labels())
    for i in range(0, 10_000, 97):
        got, expected = ours[i], stock[i]
        assert got.keys() == expected.keys()
        np.testing.assert_array_equal(got['img'], expected['img'])
        assert got['img'].dtype == expected['img'].dtype
        assert got['gt_label'] == expected['gt_label']


def test_official_files_are_read_for_what_a_stranger_has_written(official):
    """Their content is known, so they are no pickle that could run something."""
    with registered_types_only():
        assert len(CIFAR100(official, 'test')) == 10_000


def test_both_containers_give_the_same(official, arrays):
    first, second = CIFAR100(official, 'test'), CIFAR100(arrays, 'test')
    np.testing.assert_array_equal(first.images, second.images)
    np.testing.assert_array_equal(first.labels, second.labels)
    assert first.images.flags.c_contiguous
    assert first.metainfo == second.metainfo


def test_official_files_come_first(official, tmp_path):
    (tmp_path / 'cifar-100-python').symlink_to(Path(official) / 'cifar-100-python')
    (tmp_path / 'test.npz').touch()
    assert 'Files: \tcifar-100-python/test' in repr(CIFAR100(tmp_path, 'test'))


def test_parts_are_in_the_order_of_their_numbers(images, labels, tmp_path):
    bounds = np.linspace(0, 10_000, 12).astype(int)
    for part in range(11):
        rows = slice(bounds[part], bounds[part + 1])
        np.savez(
            tmp_path / f'test_{part}.npz', images=images[rows], labels=labels[rows]
        )
    (tmp_path / 'test_labels.npz').touch()
    dataset = CIFAR100(tmp_path, 'test')
    np.testing.assert_array_equal(dataset.labels, labels)
    np.testing.assert_array_equal(dataset.images, images)
    (tmp_path / 'test_3.npz').unlink()
    with raises(
        ValueError,
        'test_2.npz, test_4.npz',
        str(tmp_path),
        'images of shape (9091, 32, 32, 3); the test images of CIFAR-100 are '
        '(10000, 32, 32, 3). Is a part missing?',
        'mmfakd.ImageArrays',
    ):
        CIFAR100(tmp_path, 'test')


def test_subset(arrays, labels):
    dataset = CIFAR100(arrays, 'test', images_per_class=3)
    assert np.bincount(dataset.get_gt_labels()).tolist() == [3] * 100
    assert dataset.data_list.tolist() == sorted(
        row for label in range(100) for row in np.flatnonzero(labels == label)[:3]
    )


def test_channels_as_opencv_has_them(arrays, images):
    dataset = CIFAR100(arrays, 'test', channel_order='bgr')
    image = dataset[7]['img']
    np.testing.assert_array_equal(image, images[7][..., ::-1])
    assert image.flags.c_contiguous
    with raises(ValueError, "channel_order='BGR'; expected 'rgb' or 'bgr'"):
        CIFAR100(arrays, 'test', channel_order='BGR')


@needs_arrays
@pytest.mark.parametrize(('split', 'per_class'), [('train', 500), ('test', 100)])
def test_real_images(split, per_class, config):
    dataset = CIFAR100(ARRAYS, split)
    assert np.bincount(dataset.get_gt_labels()).tolist() == [per_class] * 100
    # The published mean and deviation, which the config normalises with, and the
    # order of the channels with them.
    pixels = dataset.images[:10_000].reshape(-1, 3)
    wanted = config.data_preprocessor
    np.testing.assert_allclose(pixels.mean(0), wanted['mean'], rtol=0.02)
    np.testing.assert_allclose(pixels.std(0), wanted['std'], rtol=0.02)


# ------------------------------------------------------------------- errors


def test_neither_container(tmp_path):
    (tmp_path / 'test.npz').touch()
    for folder in (tmp_path, tmp_path / 'nowhere'):
        with raises(
            FileNotFoundError,
            f'{folder} has neither cifar-100-python/train nor train.npz nor '
            'train_0.npz, train_1.npz',
            'https://www.cs.toronto.edu/~kriz/cifar-100-python.tar.gz',
            '`data_root`',
        ):
            CIFAR100(folder)
    # Nothing was downloaded, no folder made.
    assert [path.name for path in tmp_path.iterdir()] == ['test.npz']


def test_official_file_of_another_content(tmp_path):
    """It is reported before it is unpickled, and left as it is."""
    (tmp_path / 'cifar-100-python').mkdir()
    file = tmp_path / 'cifar-100-python/train'
    harmful = b'cpytest\nfail\n(Vexecuted\ntR.'
    file.write_bytes(harmful)
    with raises(
        ValueError,
        f'{file} is not the official file, as its MD5 is not '
        '16019d7e3df5f24257cddd939b257f8d',
        'cifar-100-python.tar.gz again',
    ):
        CIFAR100(tmp_path)
    assert file.read_bytes() == harmful


def test_unknown_split():
    with raises(ValueError, "split='val'; expected 'train' or 'test'"):
        CIFAR100('anywhere', 'val')


def test_error_reaches_the_user_through_the_registry(tmp_path):
    with raises(FileNotFoundError, 'has neither cifar-100-python/test'):
        DATASETS.build(
            dict(type='mmfakd.CIFAR100', data_root=str(tmp_path), split='test')
        )


# -------------------------------------------------------------- base config


def test_loaders_of_the_config(config, arrays, images, labels):
    loader_cfg = config.test_dataloader
    loader_cfg.dataset.data_root = arrays
    loader = Runner.build_dataloader(loader_cfg)
    assert len(loader) == 40
    batch = next(iter(loader))
    np.testing.assert_array_equal(
        batch['inputs'].numpy(), images[:250].transpose(0, 3, 1, 2)
    )
    assert [s.gt_label.item() for s in batch['data_samples']] == labels[:250].tolist()
    assert batch['data_samples'][5].sample_idx == 5

    preprocessor = MODELS.build(
        dict(type='ClsDataPreprocessor', **config.data_preprocessor)
    )
    normalized = preprocessor(batch)['inputs']
    mean = torch.tensor([0.5071, 0.4867, 0.4408]).view(3, 1, 1)
    std = torch.tensor([0.2675, 0.2565, 0.2761]).view(3, 1, 1)
    expected = (batch['inputs'] / 255 - mean) / std
    torch.testing.assert_close(normalized, expected, rtol=0, atol=1e-5)

    loader_cfg = config.train_dataloader
    assert loader_cfg.dataset.split == 'train'
    # The arrays of this module are of the other split.
    loader_cfg.dataset.update(data_root=arrays, split='test', indices=1000)
    loader = Runner.build_dataloader(loader_cfg, seed=0)
    seen = []
    for batch in loader:
        assert batch['inputs'].shape[1:] == (3, 32, 32)
        assert batch['inputs'].dtype == torch.uint8
        seen += [sample.sample_idx for sample in batch['data_samples']]
    # 15 batches of 64 and the rest of 40.
    assert len(loader) == 16 and seen != sorted(seen)
    assert sorted(seen) == list(range(1000))


def test_crops_and_flips_of_the_config(config):
    """Each of 81 crops, flipped or not, is as likely as any other."""
    # Pixels that tell where they came from; the padding is zero.
    rows, columns = np.mgrid[1:33, 1:33]
    image = np.stack([rows, columns, np.full((32, 32), 255)], axis=-1).astype(np.uint8)
    padded = np.pad(image, ((4, 4), (4, 4), (0, 0)))
    pipeline = Compose([TRANSFORMS.build(t) for t in config.train_pipeline])
    expected = {}
    for top in range(9):
        for left in range(9):
            crop = padded[top : top + 32, left : left + 32]
            for flip, view in enumerate((crop, crop[:, ::-1])):
                expected[view.transpose(2, 0, 1).tobytes()] = (top, left, flip)
    assert len(expected) == 162
    draws = 162 * 40
    counts = Counter(
        expected[pipeline(dict(img=image, gt_label=0))['inputs'].numpy().tobytes()]
        for _ in range(draws)
    )
    chi2 = sum((counts[case] - 40) ** 2 / 40 for case in expected.values())
    # 161 degrees of freedom: mean 161, deviation 17.9.
    assert 161 - 4 * 17.9 < chi2 < 161 + 4 * 17.9
