# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""Arrays enter the pipeline as mmpretrain's own data sets do, or say what is wrong."""

import copy
import json
import pickle
import re

import numpy as np
import pytest
from mmengine.dataset import ClassBalancedDataset, ConcatDataset, RepeatDataset
from mmpretrain.registry import DATASETS
from torch.utils.data import DataLoader

from mmfakd.datasets import ImageArrays

LABELS = np.array([2, 0, 1, 0, 2, 2, 1, 0])


def make_images(count, *shape, seed=0):
    return np.random.RandomState(seed).randint(0, 256, (count, *shape), dtype=np.uint8)


@pytest.fixture
def write(tmp_path):
    """A function that writes an .npz file in the folder of the test."""

    def write(name='a.npz', labels=LABELS, images=None, save=np.savez_compressed):
        if images is None:
            images = make_images(len(labels), 6, 5, 3)
        save(tmp_path / name, images=images, labels=labels)
        return images

    return write


@pytest.fixture
def build(tmp_path):
    """A function that builds the data set of the test's folder."""

    def build(data_files='a.npz', **kwargs):
        return ImageArrays(data_files, data_root=str(tmp_path), **kwargs)

    return build


def overwrite(results):
    results['img'][:] = 0
    return results


def test_items(write, build):
    images = write()
    dataset = build(classes=('x', 'y', 'z'))
    assert len(dataset) == 8
    assert dataset.metainfo['classes'] == ('x', 'y', 'z')
    for i in range(8):
        item = dataset[i]
        assert item['img'].dtype == np.uint8
        np.testing.assert_array_equal(item['img'], images[i])
        assert item['gt_label'] == LABELS[i] and type(item['gt_label']) is int
        assert item['sample_idx'] == i
    assert dataset.get_data_info(-2)['sample_idx'] == 6
    np.testing.assert_array_equal(dataset.get_data_info(-2)['img'], images[6])
    np.testing.assert_array_equal(dataset.get_gt_labels(), LABELS)
    assert dataset.get_cat_ids(4) == [2]


def test_the_pipeline_gets_no_grip_on_the_arrays(write, build):
    images = write()
    dataset = build(pipeline=[overwrite])
    assert not dataset[3]['img'].any()
    np.testing.assert_array_equal(dataset.get_data_info(3)['img'], images[3])


@pytest.mark.parametrize('shape', [(6, 5), (6, 5, 1)])
def test_grey_images(shape, write, build):
    images = write(images=make_images(8, *shape))
    dataset = build(pipeline=[dict(type='PackInputs')])
    np.testing.assert_array_equal(
        dataset.get_data_info(1)['img'], images[1].reshape(6, 5, 1)
    )
    assert dataset[1]['inputs'].shape == (1, 6, 5)


@pytest.mark.parametrize('dtype', [np.uint8, np.int32, np.uint64])
def test_label_types(dtype, write, build):
    write(labels=LABELS.astype(dtype))
    dataset = build()
    np.testing.assert_array_equal(dataset.get_gt_labels(), LABELS)
    assert type(dataset[0]['gt_label']) is int


def test_parts_keep_their_order(write, build):
    images = make_images(8, 6, 5, 3)
    write('b.npz', LABELS[:3], images[:3], save=np.savez)
    write('a.npz', LABELS[3:], images[3:])
    dataset = build(['b.npz', 'a.npz'])
    np.testing.assert_array_equal(dataset.get_gt_labels(), LABELS)
    np.testing.assert_array_equal(
        np.stack([dataset[i]['img'] for i in range(8)]), images
    )


def test_paths(write, tmp_path, monkeypatch):
    write()
    monkeypatch.setenv('HOME', str(tmp_path))
    for kwargs in (
        dict(data_files=str(tmp_path / 'a.npz'), data_root='elsewhere'),
        dict(data_files=tmp_path / 'a.npz'),
        dict(data_files='~/a.npz'),
        dict(data_files='a.npz', data_root='~'),
        dict(data_files='a.npz', data_root=tmp_path),
    ):
        assert len(ImageArrays(**kwargs)) == 8


def test_keys(tmp_path):
    images = make_images(8, 6, 5, 3)
    np.savez(tmp_path / 'a.npz', x=images, y=LABELS, other=np.array([None]))
    dataset = ImageArrays(str(tmp_path / 'a.npz'), image_key='x', label_key='y')
    np.testing.assert_array_equal(dataset[7]['img'], images[7])


def test_class_names_from_files(write, build, tmp_path):
    write()
    lines, names = tmp_path / 'names.txt', tmp_path / 'names.json'
    lines.write_text('x\ny\nz\n')
    names.write_text(json.dumps(['x', 'y', 'z']))
    for path in (lines, names):
        assert build(classes=str(path)).CLASSES == ('x', 'y', 'z')


# ------------------------------------------------------------------ subsets


def test_images_per_class(write, build):
    write()
    dataset = build(images_per_class=2)
    # Rows 0 and 4 of class 2, 1 and 3 of class 0, 2 and 6 of class 1.
    assert dataset.data_list.tolist() == [0, 1, 2, 3, 4, 6]
    assert dataset.get_gt_labels().tolist() == [2, 0, 1, 0, 2, 1]
    assert dataset[5]['sample_idx'] == 5
    assert build(images_per_class=1).data_list.tolist() == [0, 1, 2]


@pytest.mark.parametrize(
    ('indices', 'rows'),
    [(3, [0, 1, 2]), (-3, [5, 6, 7]), ([6, 0, -1], [6, 0, 7])],
)
def test_indices_and_subsets(indices, rows, write, build):
    images = write()
    whole = build()
    subset = whole.get_subset(indices)
    assert len(whole) == 8
    # No second copy of the arrays.
    assert subset.images is whole.images and subset.labels is whole.labels
    in_place = build()
    in_place.get_subset_(indices)
    for dataset in (build(indices=indices), subset, in_place):
        assert len(dataset) == len(rows)
        for i, row in enumerate(rows):
            np.testing.assert_array_equal(dataset[i]['img'], images[row])
            assert dataset[i]['gt_label'] == LABELS[row]
    # A second subset, of another data set, has arrays of its own.
    assert in_place.get_subset(1).images is in_place.images


def test_indices_count_among_the_images_per_class(write, build):
    write()
    assert build(images_per_class=1, indices=[2]).get_gt_labels().tolist() == [1]


# ----------------------------------------------------------- host's features


def test_lazy_start(build, write):
    dataset = build(lazy_init=True, classes=list('xyz'))
    assert not dataset._fully_initialized
    write()
    assert len(dataset) == 8
    assert dataset._fully_initialized


def test_wrappers(write, build):
    images = write(labels=np.array([0, 0, 0, 0, 0, 0, 0, 1]))
    assert len(RepeatDataset(build(), times=3)) == 24
    both = ConcatDataset([build(), build(indices=[5])])
    np.testing.assert_array_equal(both[8]['img'], images[5])
    # Class 1 has 1 of 8 images: repeated ceil(sqrt(0.5 / 0.125)) = 2 times.
    balanced = ClassBalancedDataset(build(), oversample_thr=0.5)
    assert [balanced[i]['gt_label'] for i in range(len(balanced))] == [0] * 7 + [1] * 2


def test_arguments_of_the_host(write, build):
    write()
    dataset = build(
        serialize_data=True,
        filter_cfg=dict(min_size=3),
        test_mode=True,
        metainfo=dict(source='here'),
        pipeline=[lambda results: None],
    )
    assert len(dataset) == 8
    assert dataset.metainfo == dict(source='here')
    with pytest.raises(Exception, match='should not get `None`'):
        dataset[0]


def test_representation(write, build):
    write()
    text = repr(build(images_per_class=2))
    assert 'Files: \ta.npz' in text
    assert 'Images per class: \t2' in text
    assert 'Images per class: \tall' in repr(build())


def test_copies(write, build):
    """Workers that are spawned get the data set as a pickle."""
    images = write()
    dataset = build(pipeline=[dict(type='PackInputs')])
    for other in (pickle.loads(pickle.dumps(dataset)), copy.deepcopy(dataset)):
        expected = images[2].transpose(2, 0, 1)
        np.testing.assert_array_equal(other[2]['inputs'].numpy(), expected)


def test_workers(write, build):
    images = write()
    loader = DataLoader(build(), batch_size=3, num_workers=2)
    batches = list(loader)
    np.testing.assert_array_equal(np.concatenate([b['img'] for b in batches]), images)
    np.testing.assert_array_equal(
        np.concatenate([b['gt_label'] for b in batches]), LABELS
    )


def test_builds_from_the_scope_of_mmpretrain(write, tmp_path):
    write()
    dataset = DATASETS.build(
        dict(
            type='mmfakd.ImageArrays',
            data_files=['a.npz'],
            data_root=str(tmp_path),
            pipeline=[dict(type='PackInputs')],
        )
    )
    assert dataset[3]['data_samples'].gt_label.item() == LABELS[3]


# ------------------------------------------------------------------- errors


def raises(error, *parts):
    """Expect an error whose text has every part, in this order."""
    return pytest.raises(error, match='(?s)' + '.*'.join(map(re.escape, parts)))


def test_missing_file(write, build, tmp_path):
    write('train_0.npz')
    write('test.npz')
    (tmp_path / 'notes.txt').touch()
    with raises(
        FileNotFoundError,
        str(tmp_path / 'train.npz'),
        "does not exist. .npz files in that folder: ['test.npz', 'train_0.npz']",
        '`data_root` and `data_files`',
    ):
        build('train.npz')
    with raises(FileNotFoundError, 'nowhere/a.npz', 'in that folder: []'):
        build('nowhere/a.npz')


def test_no_file(build):
    with raises(ValueError, 'data_files is empty'):
        build([])


def test_missing_array(tmp_path, build):
    np.savez(tmp_path / 'a.npz', images=make_images(8, 6, 5, 3), fine=LABELS)
    with raises(
        ValueError,
        'a.npz holds the arrays',
        "['fine', 'images']; expected ['images', 'labels']",
        '`image_key` and `label_key`',
    ):
        build()


@pytest.mark.parametrize(
    ('images', 'got'),
    [
        (np.zeros((8, 6, 5, 3), np.float32), 'float32 of shape (8, 6, 5, 3)'),
        (np.zeros((8, 90), np.uint8), 'uint8 of shape (8, 90)'),
        (np.zeros((8, 3, 6, 5), np.uint8), 'uint8 of shape (8, 3, 6, 5)'),
    ],
)
def test_arrays_that_are_no_images(images, got, write, build):
    write(images=images)
    with raises(
        ValueError, "a.npz: 'images' is", got, 'expected uint8', '(N, H, W, 3)'
    ):
        build()


@pytest.mark.parametrize(
    ('labels', 'got'),
    [
        (LABELS[:7], 'int64 of shape (7,)'),
        (LABELS[:, None], 'int64 of shape (8, 1)'),
        (LABELS.astype(np.float32), 'float32 of shape (8,)'),
        (LABELS > 0, 'bool of shape (8,)'),
    ],
)
def test_arrays_that_are_no_labels(labels, got, write, build):
    write(labels=labels, images=make_images(8, 6, 5, 3))
    with raises(ValueError, "a.npz: 'labels' is", got, 'integers of shape (8,)'):
        build()


def test_labels_out_of_range(write, build):
    write()
    with raises(
        ValueError, 'a.npz: labels from 0 to 2; expected 0 to 1', 'there are 2 classes'
    ):
        build(classes=['x', 'y'])
    write(labels=LABELS - 1)
    with raises(ValueError, 'a.npz: labels from -1 to 1; expected 0 or more.'):
        build()


def test_empty_arrays(write, build):
    write(labels=LABELS[:0])
    with raises(ValueError, 'a.npz holds no images'):
        build()


def test_parts_of_different_sizes(write, build):
    write('a.npz')
    write('b.npz', images=make_images(8, 7, 5, 3))
    with raises(ValueError, 'b.npz: images of (7, 5, 3), but', 'a.npz', '(6, 5, 3)'):
        build(['a.npz', 'b.npz'])


@pytest.mark.parametrize('count', [0, -1, 2.0, '5'])
def test_images_per_class_that_is_no_count(count, write, build):
    with raises(ValueError, f'images_per_class={count!r}; expected a positive'):
        build(images_per_class=count)


def test_images_per_class_larger_than_a_class(write, build):
    write()
    with raises(ValueError, 'images_per_class=3: class 1 has 2 images'):
        build(images_per_class=3)
    with raises(ValueError, 'images_per_class=1: class 3 has 0 images'):
        build(images_per_class=1, classes=['w', 'x', 'y', 'z'])


class Explosive:
    """Raises when unpickled."""

    def __reduce__(self):
        return (pytest.fail, ('A pickle was executed.',))


def test_pickles_are_not_executed(tmp_path, build, write):
    write(images=np.array([Explosive()] * 8))
    with raises(ValueError, 'a.npz cannot be read', 'without Python objects'):
        build()
    (tmp_path / 'a.npz').write_bytes(pickle.dumps(Explosive()))
    with raises(ValueError, 'a.npz cannot be read: it is no zip archive'):
        build()


def test_other_files(tmp_path, build):
    np.save(tmp_path / 'a.npy', LABELS)
    (tmp_path / 'empty.npz').touch()
    for name in ('a.npy', 'empty.npz'):
        with raises(ValueError, f'{name} cannot be read: it is no zip archive'):
            build(name)


@pytest.mark.parametrize('save', [np.savez, np.savez_compressed])
def test_damaged_files(save, tmp_path, build, write):
    """Whatever is cut off or overwritten, the error names the file."""
    write(save=save)
    path = tmp_path / 'a.npz'
    whole = path.read_bytes()
    data, directory = whole.index(b'images.npy') + 150, whole.index(b'PK\1\2')
    for damaged in (
        b'',
        whole[: len(whole) // 2],
        whole[:data] + bytes(8) + whole[data + 8 :],
        # A compression that no reader knows.
        whole[: directory + 10] + b'\x63' + whole[directory + 11 :],
    ):
        path.write_bytes(damaged)
        with raises(ValueError, 'a.npz cannot be read', '`numpy.savez`'):
            build()
