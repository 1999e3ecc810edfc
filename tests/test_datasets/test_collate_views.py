# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""Views of images in one batch, as the multi-level logits need them."""

from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.registry import FUNCTIONS, MODELS, init_default_scope
from mmengine.runner import Runner
from mmpretrain.structures import DataSample

REPOSITORY = Path(__file__).resolve().parents[2]
CONFIG = REPOSITORY / 'configs/fakd/cifar100/mlkd_r56_r20_1xb64_cifar100.py'


def sample(number, views=2):
    images = [torch.full((3, 2, 2), 10 * number + view) for view in range(views)]
    return dict(inputs=images, data_samples=DataSample().set_gt_label(number))


def collate(batch):
    return FUNCTIONS.get('mmfakd.collate_views')(batch)


def test_view_by_view_with_labels_of_their_own():
    batch = collate([sample(1), sample(2), sample(3)])
    assert batch['inputs'][:, 0, 0, 0].tolist() == [10, 20, 30, 11, 21, 31]
    labels = batch['data_samples']
    assert [int(label.gt_label) for label in labels] == [1, 2, 3] * 2
    assert len(set(map(id, labels))) == 6


def test_what_is_refused():
    for other in (dict(sample(2), inputs=torch.rand(3, 2, 2)), sample(2, views=3)):
        with pytest.raises(ValueError, match=r'same number of views(.|\n)*MultiView'):
            collate([sample(1), other])


def test_step_of_the_shipped_config(tmp_path):
    """A weak and a strong view of each image, seen by both networks."""
    init_default_scope('mmpretrain')
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (8, 32, 32, 3), dtype=np.uint8)
    np.savez(tmp_path / 'images.npz', images=images, labels=np.arange(8))
    cfg = Config.fromfile(CONFIG)
    loader = cfg.train_dataloader
    loader.update(batch_size=4, num_workers=0, persistent_workers=False)
    loader.dataset = dict(
        type='mmfakd.ImageArrays',
        data_files=str(tmp_path / 'images.npz'),
        pipeline=loader.dataset.pipeline,
    )
    batch = next(iter(Runner.build_dataloader(loader, seed=0)))
    labels = [int(sample.gt_label) for sample in batch['data_samples']]
    assert batch['inputs'].shape == (8, 3, 32, 32) and labels[:4] == labels[4:]
    # A square is cut out of every strong view, and of these alone.
    weak, strong = ((v == 128).all(1).sum((1, 2)) for v in batch['inputs'].chunk(2))
    assert strong.all() and not weak.any()

    cfg.model.update(teacher_ckpt=None)
    model = MODELS.build(cfg.model)
    model.train()
    losses = model(**model.data_preprocessor(batch, training=True), mode='loss')
    assert losses['distill.loss_mlkd'] > 0
    sum(value for name, value in losses.items() if 'loss' in name).backward()
    weight = model.architecture.head.fc.weight
    assert weight.grad.abs().sum() > 0
