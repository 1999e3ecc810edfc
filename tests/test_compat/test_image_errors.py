# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""An image that cannot be read is named."""

import cv2
import mmcv.transforms  # noqa: F401
import numpy as np
import pytest
from mmengine.registry import TRANSFORMS

import mmfakd  # noqa: F401
from tests.helpers.weight_server import weight_server


def whole():
    return cv2.imencode('.png', np.zeros((8, 8, 3), np.uint8))[1].tobytes()


@pytest.mark.parametrize(
    ('content', 'options', 'why'),
    [
        (b'', {}, 'it is empty'),
        (b'', dict(imdecode_backend='pillow'), 'it is empty'),
        (b'no image', {}, 'it has 8 bytes'),
        (whole()[:50], {}, 'it has 50 bytes'),
        (whole()[:50], dict(imdecode_backend='pillow'), 'it has 50 bytes'),
    ],
)
def test_unreadable_image(content, options, why, tmp_path):
    path = tmp_path / 'image.png'
    path.write_bytes(content)
    load = TRANSFORMS.build(dict(type='LoadImageFromFile', **options))
    with pytest.raises((ValueError, OSError)) as caught:
        load(dict(img_path=str(path)))
    message = str(caught.value)
    assert message.startswith(f'The image {path} cannot be read: {why}')
    assert 'Write it anew, or take it out of the data set' in message


def test_missing_image():
    load = TRANSFORMS.build(dict(type='LoadImageFromFile'))
    with pytest.raises(FileNotFoundError, match='The image /none.png cannot be read'):
        load(dict(img_path='/none.png'))


def test_what_can_be_skipped_is_skipped(tmp_path):
    (tmp_path / 'image.png').write_bytes(b'')
    load = TRANSFORMS.build(dict(type='LoadImageFromFile', ignore_empty=True))
    assert load(dict(img_path=str(tmp_path / 'image.png'))) is None


def test_image_that_no_server_has(tmp_path, monkeypatch):
    """An HTTPError takes five arguments, and more than words."""
    monkeypatch.setenv('no_proxy', '127.0.0.1')
    load = TRANSFORMS.build(
        dict(type='LoadImageFromFile', backend_args=dict(backend='http'))
    )
    with weight_server(tmp_path) as server:
        url = f'{server.url}/image.png'
        with pytest.raises(
            OSError, match=f'The image {url} cannot be read: HTTP.* 404'
        ):
            load(dict(img_path=url))
