# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""Tokens without a grid of their own, where images are not those of the probe."""

from types import SimpleNamespace

import pytest
import torch
from mmengine.config import Config

from mmfakd.cli import main
from mmfakd.models.distillers.token_map import TokenMap
from mmfakd.pairing.features import Feature
from mmfakd.pairing.plan import Plan
from tests.helpers.token_models import vit_classifier
from tests.helpers.toy_detectors import retinanet

pytest.importorskip('mmcv.ops', reason='detectors need the full mmcv')
MANY = dict(type='Resize', scale=(96, 64), keep_ratio=True)


def resize(height, width):
    return dict(type='Resize', scale=(width, height), keep_ratio=False)


@pytest.fixture
def make(tmp_path, capsys):
    """Let a ViT with patches of 16 teach a detector; returns the level and the text."""
    teacher = dict(model=vit_classifier(size=64, patch=16), default_scope='mmpretrain')
    Config(teacher).dump(tmp_path / 'teacher.py')

    def run(*pipeline, options=(), teaches='backbone.layers.1', **preprocessor):
        model = retinanet()
        model['data_preprocessor'].update(preprocessor)
        dataset = dict(type='CocoDataset', pipeline=list(pipeline))
        cfg = dict(model=model, default_scope='mmdet')
        cfg['train_dataloader'] = dict(dataset=dataset)
        Config(cfg).dump(tmp_path / 'student.py')
        names = [str(tmp_path / f'{name}.py') for name in ('student', 'teacher')]
        levels = ['--levels', f'backbone.layer3={teaches}']
        out = tmp_path / 'pair.py'
        main(['pair', *names, '-o', str(out), '--force', *levels, *options])
        [level] = Config.fromfile(out).model.distiller.teacher_levels
        return level, capsys.readouterr().out

    return run


@pytest.mark.parametrize(
    ('size', 'grid'),
    [
        # Probed as they are, then by half: of 768 x 640 that is a square.
        ((96, 160), (6, 10)),
        ((768, 640), (48, 40)),
        ((640, 768), (40, 48)),
        ((672, 672), None),
    ],
)
def test_the_grid_is_that_of_training(make, size, grid):
    level, text = make(resize(*size))
    assert level['tokens'] == dict(prefix=1, **(dict(size=grid) if grid else {}))
    height, width = size[0] // 16, size[1] // 16
    tokens = torch.zeros(1, 1 + height * width, 16)
    assert TokenMap(level['tokens'])(tokens).shape[2:] == (height, width)
    assert f'{height}x{width}' in text and 'become maps' not in text


def test_batches_that_are_padded_to_one_size(make):
    """As of large scale jittering."""
    pad = dict(type='BatchFixedSizePad', size=(96, 160))
    level, _ = make(MANY, batch_augments=[pad])
    assert level['tokens'] == dict(prefix=1, size=(6, 10))


def test_a_segmentor_s_batches_have_the_size_of_its_preprocessor():
    model = dict(data_preprocessor=dict(size=(512, 1024)))
    loader = dict(dataset=dict(type='Images', pipeline=[MANY]))
    cfg = Config(dict(default_scope='mmseg', model=model, train_dataloader=loader))
    student = SimpleNamespace(kind='segmentor', cfg=cfg)
    assert Plan(student, None, 'pkd').one_size == (512, 1024)


@pytest.mark.parametrize(
    ('pipeline', 'augments', 'why'),
    [
        ([MANY], [], 'batches of .*student.py have several sizes'),
        (
            [resize(96, 160)],
            [dict(type='BatchSyncRandomResize', random_size_range=(64, 128))],
            'batches of .*student.py have several sizes',
        ),
        ([], [], 'the config of .*student.py does not say how large images are'),
    ],
)
def test_batches_of_many_sizes(make, tmp_path, pipeline, augments, why):
    message = (
        "--levels: 'backbone.layers.1' of the teacher .*teacher.py yields tokens "
        f'without their grid, and {why}.*mmfakd layers.*--input-size HxW'
    )
    with pytest.raises(SystemExit, match=message):
        make(*pipeline, batch_augments=augments)
    assert not (tmp_path / 'pair.py').exists()
    # Maps of any size need no grid, nor do vectors.
    level, _ = make(*pipeline, batch_augments=augments, teaches='backbone.patch_embed')
    assert level == 'backbone.patch_embed'


@pytest.mark.parametrize(
    ('pipeline', 'augments'),
    [
        (
            [resize(96, 96)],
            [dict(type='BatchSyncRandomResize', random_size_range=(64, 128))],
        ),
        ([MANY, dict(type='Pad', pad_to_square=True)], []),
    ],
)
def test_squares_of_many_sizes_need_no_grid(make, pipeline, augments):
    level, _ = make(*pipeline, batch_augments=augments)
    assert level['tokens'] == dict(prefix=1)
    options = '--input-size', '128x128'
    level, text = make(*pipeline, batch_augments=augments, options=options)
    assert level['tokens'] == dict(prefix=1) and 'become maps by' not in text


def test_a_size_that_the_user_gives(make):
    """It stands, with a word where the config says another."""
    options = '--input-size', '96x160'
    grid = dict(prefix=1, size=(6, 10))
    for pipeline, told in (([MANY], True), ([], False), ([resize(96, 160)], False)):
        level, text = make(*pipeline, options=options)
        assert level['tokens'] == grid
        warning = 'WARNING: tokens of backbone.layers.1 become maps by the grid of'
        assert (f'{warning} batches of 96x160' in text) == told


def test_what_needs_a_grid():
    for tokens, needs in (
        (None, False),
        (dict(channels_last=True), False),
        (dict(prefix=0), True),
    ):
        assert Feature(None, None, None, 8, (4, 4), 16, tokens).needs_grid == needs
