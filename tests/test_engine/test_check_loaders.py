# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""Numbers of data loaders that cannot be."""

import re

import pytest
from mmengine.config import Config
from torch.utils.data import DataLoader

from mmfakd import cli
from mmfakd.engine.check_loaders import check_loaders

PAIR = 'fakd_review_r18w32_r18w4_1xb50_digits'
WRONG = [
    (dict(batch_size=0), 'has batch_size=0; expected a whole number above 0'),
    (dict(batch_size=-3), 'has batch_size=-3; '),
    (dict(batch_size=8.0), 'has batch_size=8.0; '),
    (dict(batch_size=True), 'has batch_size=True; '),
    (dict(batch_size='abc'), "has batch_size='abc'; "),
    (dict(num_workers=-1), 'has num_workers=-1; expected a whole number, 0 to load'),
    (dict(num_workers=2.0), 'has num_workers=2.0; '),
    (
        dict(num_workers=0, persistent_workers=True),
        'has num_workers=0 and persistent_workers=True, which only workers have: give '
        'persistent_workers=False, too (--cfg-options '
        'train_dataloader.persistent_workers=False)',
    ),
    (dict(prefetch_factor=2), 'has num_workers=0 and prefetch_factor=2, which only '),
]
RIGHT = [
    dict(),
    dict(batch_size=1, num_workers=0),
    dict(batch_size=None),
    dict(
        batch_size=[2, 4], batch_sampler=dict(type='MultiDataAspectRatioBatchSampler')
    ),
    dict(type='a loader of its own', batch_size='auto'),
    dict(num_workers=2, persistent_workers=True, prefetch_factor=2),
    dict(num_workers=0, persistent_workers=False, prefetch_factor=None),
]


@pytest.mark.parametrize(('loader', 'message'), WRONG)
def test_wrong(loader, message):
    cfg = Config(dict(train_dataloader=loader))
    with pytest.raises(ValueError, match=re.escape(f'train_dataloader {message}')):
        check_loaders(cfg, 'train_dataloader')
    check_loaders(cfg, 'val_dataloader')


@pytest.mark.parametrize('loader', [loader for loader, _ in WRONG])
def test_torch_refuses_it_too(loader):
    given = dict(dict(batch_size=2, num_workers=0), **loader)
    with pytest.raises((TypeError, ValueError)):
        list(DataLoader([0, 1], **given))


@pytest.mark.parametrize('loader', RIGHT)
def test_right(loader):
    check_loaders(Config(dict(train_dataloader=loader)), 'train_dataloader')


@pytest.mark.parametrize('loader', [None, [], 'train'])
def test_what_is_no_dict(loader):
    check_loaders(Config(dict(train_dataloader=loader)), 'train_dataloader', 'none')


@pytest.mark.parametrize(
    ('command', 'loader'),
    [
        (['train', PAIR], 'train_dataloader'),
        (['train', PAIR], 'val_dataloader'),
        (['test', PAIR, 'none.pth'], 'test_dataloader'),
        (['check-teacher', PAIR], 'val_dataloader'),
    ],
)
def test_commands(command, loader, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit, match=f'{loader} has batch_size=0; expected'):
        cli.main([*command, '--cfg-options', f'{loader}.batch_size=0'])
    assert not any(tmp_path.iterdir())
