# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""A last batch of one image, in real runs on 20 images."""

from pathlib import Path

import pytest
from torch import nn
from torch.utils.data import BatchSampler, DataLoader

from mmfakd.engine.check_last_batch import check_last_batch
from mmfakd.engine.hooks import CheckDataHook, check_data_hook
from tests.helpers.tiny_runs import distillation, run_config, save_teacher, train
from tests.helpers.toy import convolution


@pytest.fixture
def told(monkeypatch):
    texts = []
    monkeypatch.setattr(
        check_data_hook, 'print_log', lambda text, **kwargs: texts.append(text)
    )
    return texts


def run(work_dir, distiller=None, iters=None, **loader):
    model = distillation(save_teacher(Path(work_dir).parent))
    if distiller is not None:
        model['distiller'] = distiller
    cfg = run_config(work_dir, model, epochs=1, iters=iters)
    cfg.train_dataloader = {**cfg.train_dataloader, 'batch_size': 19, **loader}
    if loader.get('dataset', {}).get('type') == 'Stream':
        # MMEngine's asks a loader for its length.
        cfg.default_hooks.logger = None
    train(cfg, CheckDataHook())


def by_level(*layers, **kwargs):
    return dict(
        type='mmfakd.LevelDistiller',
        student_levels=list(layers),
        teacher_levels=list(layers),
        **kwargs,
    )


def test_batch_norm_of_one_pixel(work_dir, told):
    message = (
        r'has one image \(20 images, batch_size=19\), but the batch norm of connectors.'
        'review.levels.3, which predicts one pixel,.*drop_last=True, or another'
    )
    with pytest.raises(ValueError, match=message):
        run(work_dir)
    run(work_dir, drop_last=True)
    assert told == []


def test_distances_between_images(work_dir):
    loss = dict(type='mmrazor.DistanceWiseRKD', with_l2_norm=False)
    with pytest.raises(ValueError, match=r'level0 \(DistanceWiseRKD\) compares images'):
        run(work_dir, by_level('neck.gap', level_loss=loss))


def test_batch_norm_of_maps(work_dir, told):
    loss, conv = dict(type='mmrazor.L2Loss'), convolution(2, 4)
    distiller = by_level('backbone.layer1', level_loss=loss, student_connectors=conv)
    run(work_dir, distiller)
    (text,) = told
    assert 'connectors.student0' in text and 'fail if its map has one pixel' in text


def test_no_such_batch(work_dir, told):
    """Nothing with a norm, or a training that ends before."""
    loss = dict(type='mmrazor.ATLoss')
    run(work_dir, by_level('backbone.layer1', level_loss=loss))
    run(work_dir, iters=1)
    assert told == []


class FullBatches(BatchSampler):
    """It may fill up the last batch."""


@pytest.mark.parametrize(('kind', 'doubtful'), [(BatchSampler, 1), (FullBatches, 0)])
def test_batch_samplers_of_one_s_own(kind, doubtful):
    loader = DataLoader(range(20), batch_sampler=kind(range(20), 19, drop_last=False))
    distiller = nn.Sequential(nn.BatchNorm2d(1))
    assert bool(check_last_batch(loader, distiller, iterations=2)) == doubtful


@pytest.mark.parametrize('kind', ['Stream', 'CountedStream'])
def test_streams(work_dir, told, kind):
    """They have no last batch that could be foreseen; warm-ups count as elsewhere."""
    warmup = dict(by_epoch=False, begin=0, end=2)
    distiller = by_level('backbone.layer1', level_loss=dict(type='mmrazor.ATLoss'))
    run(
        work_dir,
        dict(distiller, warmup=warmup),
        iters=2,
        dataset=dict(type=kind, images=39),
        sampler=None,
    )
    assert told == []
