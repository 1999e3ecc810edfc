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
