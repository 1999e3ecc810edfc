# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""Images of a folder, without labels."""

import cv2
import numpy as np
import pytest

from mmfakd.datasets import UnlabelledImages


def test_images_below_a_folder(tmp_path):
    for name in ('b/2.PNG', 'a/1.jpg', 'notes.txt'):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    cv2.imwrite(str(tmp_path / 'c.png'), np.zeros((4, 5, 3), np.uint8))
    pipeline = [dict(type='mmcv.LoadImageFromFile')]
    dataset = UnlabelledImages(str(tmp_path), pipeline=pipeline)
    paths = [dataset.get_data_info(i)['img_path'] for i in range(len(dataset))]
    assert paths == [str(tmp_path / name) for name in ('a/1.jpg', 'b/2.PNG', 'c.png')]
    assert dataset[2]['img'].shape == (4, 5, 3) and dataset[2]['img_id'] == 2


def test_links(tmp_path):
    """They are followed, but not to where they come from."""
    (tmp_path / 'root/sub').mkdir(parents=True)
    (tmp_path / 'other').mkdir()
    for name in ('root/a.png', 'root/sub/b.png', 'other/c.png', 'root/.hidden.png'):
        (tmp_path / name).touch()
    for name, target in {
        'root/root': 'root',
        'root/again': 'root',
        'root/sub/up': '.',
        'root/other': 'other',
        'other/back': 'root',
        'root/gone.png': 'nothing',
    }.items():
        (tmp_path / name).symlink_to(tmp_path / target)
    root = tmp_path / 'root'
    found = [info['img_path'] for info in UnlabelledImages(str(root))]
    below = {path.removeprefix(f'{root}/') for path in found}
    assert {'a.png', 'sub/b.png', 'other/c.png'} <= below
    assert len(found) < 20 and not any('hidden' in path for path in found)


def test_one_ending_as_a_text(tmp_path):
    for name in ('a.PNG', 'b.jpg', 'c.svg', 'log'):
        (tmp_path / name).touch()
    dataset = UnlabelledImages(str(tmp_path), extensions='.png')
    assert [info['img_path'] for info in dataset] == [str(tmp_path / 'a.PNG')]
    with pytest.raises(FileNotFoundError, match=r"ends in \('.tif',\)"):
        UnlabelledImages(str(tmp_path), extensions='.tif')


@pytest.mark.parametrize(('name', 'why'), [('no', 'no folder'), ('', 'no file below')])
def test_no_images(tmp_path, name, why):
    with pytest.raises(FileNotFoundError, match=f'data_root=.*{why}'):
        UnlabelledImages(str(tmp_path / name))


@pytest.fixture
def folders(tmp_path):
    for name in ('train/a.png', 'val/b.png'):
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).touch()
    return tmp_path


@pytest.mark.parametrize(
    'prefix',
    ['train/', dict(img='train'), dict(img_path='train/'), dict(img='train', seg='')],
)
def test_one_folder_of_the_root(folders, prefix):
    dataset = UnlabelledImages(str(folders), data_prefix=prefix)
    assert [info['img_path'] for info in dataset] == [str(folders / 'train/a.png')]
    whole = UnlabelledImages('elsewhere', data_prefix=str(folders / 'train'))
    assert [info['img_path'] for info in whole] == [str(folders / 'train/a.png')]


@pytest.mark.parametrize('prefix', ['', None, {}, dict(img_path='')])
def test_no_folder_of_the_root(folders, prefix):
    empty = dict(ann_file='', filter_cfg=None, data_prefix=prefix)
    dataset = UnlabelledImages(str(folders), **empty)
    names = ('train/a.png', 'val/b.png')
    assert [info['img_path'] for info in dataset] == [str(folders / n) for n in names]


def test_folder_that_is_not_there(folders):
    with pytest.raises(FileNotFoundError, match="with data_prefix, '.*/test': no fol"):
        UnlabelledImages(str(folders), data_prefix=dict(img='test'))


@pytest.mark.parametrize('prefix', [dict(img='train', seg='val'), dict(img=1), ['a']])
def test_prefixes_of_no_form(folders, prefix):
    with pytest.raises(ValueError, match='data_prefix=.*: expected one folder below'):
        UnlabelledImages(str(folders), data_prefix=prefix)


@pytest.mark.parametrize(
    'given', [dict(ann_file='list.txt'), dict(filter_cfg=dict(min_size=32))]
)
def test_what_nothing_would_read(folders, given):
    (name,) = given
    with pytest.raises(ValueError, match=f'{name}=.*all images below.*Leave {name} '):
        UnlabelledImages(str(folders), **given)
