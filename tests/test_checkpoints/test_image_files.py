# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""A model of a data set of arrays takes image files, and is tested as before."""

import copy

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.dataset import Compose
from mmengine.registry import DATASETS, DefaultScope
from mmpretrain.registry import TRANSFORMS

from mmfakd.checkpoints.image_files import take_image_files
from mmfakd.checkpoints.student import stock_config
from mmfakd.datasets import CIFAR100, Digits
from mmfakd.engine.tta import add_tta
from mmfakd.model_zoo.find import config_file

NAMES = ['fakd_review_r56_r20_1xb64_cifar100', 'r18w4_1xb50_digits']
FLIPS = [dict(type='RandomFlip', prob=prob) for prob in (0.0, 1.0)]
TTA = [dict(type='TestTimeAug', transforms=[FLIPS, [dict(type='PackInputs')]])]


def shipped(name):
    return Config.fromfile(config_file(name))


def tested(**dataset):
    dataset.setdefault('pipeline', [dict(type='PackInputs')])
    return Config(dict(test_dataloader=dict(dataset=dataset)))


@pytest.fixture(scope='module')
def arrays(tmp_path_factory):
    """As many images as the test split of CIFAR-100 has."""
    folder = tmp_path_factory.mktemp('arrays')
    images = np.random.RandomState(0).randint(0, 256, (10_000, 32, 32, 3), np.uint8)
    np.savez(folder / 'test.npz', images=images, labels=np.arange(10_000) % 100)
    return str(folder)


def inputs(cfg, arrays, scope='mmpretrain'):
    """What the model gets of three test images."""
    dataset = copy.deepcopy(cfg.test_dataloader.dataset)
    if 'data_root' in dataset:
        dataset.data_root = arrays
    with DefaultScope.overwrite_default_scope(scope):
        images = DATASETS.build(dataset)
        found = [images[i]['inputs'] for i in (0, 70, 499)]
    # Of augmented images it is a list.
    return torch.stack([torch.as_tensor(np.stack(one)) for one in found])


@pytest.mark.parametrize('name', NAMES)
def test_a_test_sees_what_it_saw(name, arrays):
    """And so it scores the same; files become that, too."""
    before = shipped(name)
    after = stock_config(before)
    expected = inputs(before, arrays)
    assert torch.equal(inputs(after, arrays), expected)

    pipeline = after.test_dataloader.dataset.pipeline
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        prepare = Compose([TRANSFORMS.build(t) for t in pipeline])
    image = expected[1].permute(1, 2, 0).numpy()
    # As OpenCV reads a file, whose grey has three equal channels.
    read = np.broadcast_to(image[..., ::-1], (*image.shape[:2], 3)).copy()
    assert torch.equal(prepare(dict(img=read))['inputs'], expected[1])
    # A photograph of any size.
    large = np.zeros((50, 70, 3), np.uint8)
    assert prepare(dict(img=large))['inputs'].shape == expected[1].shape


@pytest.mark.parametrize('name', NAMES)
def test_a_test_with_tta_sees_what_it_saw(name, arrays):
    """A `tta_pipeline` stands in for that of the data set, and so it gets the same."""
    before = shipped(name)
    before.tta_pipeline = TTA
    after = stock_config(before)
    assert stock_config(after).tta_pipeline == after.tta_pipeline
    assert before.tta_pipeline == TTA
    for cfg in (before, after):
        add_tta(cfg)
    expected = inputs(before, arrays)
    assert expected.shape[1] == 2
    assert torch.equal(inputs(after, arrays), expected)


@pytest.mark.parametrize('scope', ['mmengine', 'mmfakd', 'mmdet'])
@pytest.mark.parametrize('kind', ['mmfakd.CIFAR100', 'mmfakd.Digits'])
def test_the_scope_is_that_of_a_model_of_ones_own(kind, scope, arrays):
    if scope == 'mmdet':
        pytest.importorskip('mmdet')
    where = dict(data_root='', split='test') if kind == 'mmfakd.CIFAR100' else {}
    cfg = tested(type=kind, pipeline=[dict(type='mmpretrain.PackInputs')], **where)
    expected = inputs(cfg, arrays, scope)
    take_image_files(cfg)
    assert len(cfg.test_dataloader.dataset.pipeline) > 1
    assert torch.equal(inputs(cfg, arrays, scope), expected)


def test_colour_becomes_grey_by_luminance():
    cfg = tested(type='mmfakd.Digits')
    take_image_files(cfg)
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        prepare = Compose(
            [TRANSFORMS.build(t) for t in cfg.test_dataloader.dataset.pipeline]
        )
    for pixel, grey in (((255, 0, 0), 28), ((0, 255, 0), 149), ((0, 0, 255), 76)):
        image = np.tile(np.uint8(pixel), (8, 8, 1))
        assert (prepare(dict(img=image))['inputs'] == grey).all()


@pytest.mark.parametrize('name', NAMES)
def test_once_is_enough_and_other_loaders_stay(name):
    cfg = stock_config(shipped(name))
    again = stock_config(Config.fromstring(cfg.pretty_text, '.py'))
    assert again.pretty_text == cfg.pretty_text
    for key in ('train_dataloader', 'val_dataloader'):
        assert cfg[key] == shipped(name)[key]
    # One object for both, as `test_dataloader = val_dataloader` may make it.
    shared = tested(type='mmfakd.Digits')
    shared._cfg_dict['val_dataloader'] = shared._cfg_dict['test_dataloader']
    take_image_files(shared)
    assert shared.val_dataloader.dataset.pipeline == [dict(type='PackInputs')]
    assert len(shared.test_dataloader.dataset.pipeline) == 3


@pytest.mark.parametrize(
    'kind', [CIFAR100, 'mmfakd.CIFAR100', 'mmfakd.datasets.cifar100.CIFAR100']
)
def test_own_transforms_come_after(kind):
    own = [dict(type='Resize', scale=(224, 224)), dict(type='PackInputs')]
    cfg = tested(type=kind, channel_order='rgb', pipeline=own)
    take_image_files(cfg)
    dataset = cfg.test_dataloader.dataset
    assert dataset.channel_order == 'bgr'
    assert dataset.pipeline[0] == dict(type='mmpretrain.NumpyToPIL', to_rgb=True)
    assert dataset.pipeline[2:] == [dict(type='Resize', scale=(32, 32)), *own]


@pytest.mark.parametrize(
    'cfg',
    [
        Config(dict(model=dict(type='M'))),
        Config(dict(test_dataloader=None)),
        Config(dict(test_dataloader=[dict(dataset=dict(type=Digits))])),
        # What these hold is not known, and mmpretrain's gives RGB alone.
        tested(type='mmfakd.ImageArrays', data_files='a.npz'),
        tested(type='CIFAR100'),
        tested(type='my_package.CIFAR100'),
        tested(type='ImageNet'),
        # Files for inferencers.
        tested(),
        tested(type='RepeatDataset', dataset=dict(type='mmfakd.Digits')),
        # It takes files as it is.
        tested(type='mmfakd.CIFAR100', channel_order='bgr'),
    ],
)
def test_others_stay_as_they_are(cfg):
    before = copy.deepcopy(cfg.to_dict())
    take_image_files(cfg)
    assert cfg.to_dict() == before
