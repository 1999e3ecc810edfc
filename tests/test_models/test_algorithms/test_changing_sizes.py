# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""One FAM-KD model of detectors, images of changing sizes, no rebuild."""

from pathlib import Path

import pytest
import torch
from mmengine.hooks import Hook
from mmengine.runner import Runner

from tests.helpers.toy_detectors import (
    detection_run,
    pyramid_distiller,
    retinanet,
    write_images,
)

IMAGES = Path(__file__).resolve().parents[4] / 'shared/data/coco_tiny'
# Width and height. Maps have sides of 8 to 20, 4 to 10 and 2 to 5 pixels.
SCALES = [(160, 96), (96, 160), (64, 64), (128, 72)]
STEPS = 8


@pytest.fixture(autouse=True)
def needs_operators():
    pytest.importorskip('mmcv.ops', reason='detection needs the full mmcv')


def find_data(kind, tmp_path):
    """Annotations, folder of images, and number of classes."""
    if kind == 'noise':
        write_images(tmp_path)
        return tmp_path / 'boxes.json', tmp_path / 'images', 3
    if not IMAGES.exists():
        pytest.skip(f'{IMAGES} has the images, and is not here')
    annotations = IMAGES / 'annotations/instances_val2017.json'
    return annotations, IMAGES / 'val2017', 80


class Sizes(Hook):
    """Notes sizes, losses and what got a gradient, step by step."""

    def __init__(self):
        self.steps = []

    def before_train(self, runner):
        model = runner.model
        model.architecture.backbone.register_forward_pre_hook(self._look)
        self.learns = {n for n, p in model.named_parameters() if p.requires_grad}
        for name, parameter in model.named_parameters():
            if parameter.requires_grad:
                parameter.register_post_accumulate_grad_hook(self._note(name))

    def _note(self, name):
        def note(parameter):
            if parameter.grad.isfinite().all():
                self.reached.add(name)

        return note

    def _look(self, backbone, inputs):
        self.padded = tuple(inputs[0].shape[-2:])

    def before_train_iter(self, runner, batch_idx, data_batch=None):
        self.reached = set()
        self.images = [sample.img_shape for sample in data_batch['data_samples']]

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        losses = {k: torch.as_tensor(v).detach() for k, v in outputs.items()}
        self.steps.append((self.images, self.padded, losses, self.reached))


@pytest.mark.parametrize(
    ('kind', 'method'),
    [('noise', 'review'), ('photographs', 'review'), ('noise', 'layer')],
)
def test_trains_through_changing_sizes(kind, method, tmp_path):
    annotations, images, classes = find_data(kind, tmp_path)
    distiller = pyramid_distiller()
    # More modes than the deepest map has pixels, and than the others have now and then.
    if method == 'review':
        distiller['connector']['transform']['modes'] = 12
    else:
        distiller['connector'] = dict(
            type='mmfakd.LayerwiseConnector',
            in_channels=[16] * 3,
            out_channels=[16] * 3,
            connector=dict(type='mmfakd.FrequencyAttentionConnector', modes=12),
        )
    model = dict(
        type='mmfakd.FeatureDistill',
        architecture=retinanet(num_classes=classes),
        teacher=retinanet(width=16, num_classes=classes),
        distiller=distiller,
    )
    cfg = detection_run(tmp_path, model)
    for key in list(cfg):
        if key.startswith(('val_', 'test_')):
            cfg.pop(key)
    dataset = cfg.train_dataloader.dataset
    dataset.update(ann_file=str(annotations), data_prefix=dict(img=str(images)))
    if classes == 80:
        dataset.pop('metainfo')
        dataset.indices = 8
    dataset.pipeline[1] = dict(
        type='RandomChoiceResize', scales=SCALES, keep_ratio=False
    )
    cfg.train_dataloader.sampler = dict(type='InfiniteSampler')
    cfg.train_cfg = dict(by_epoch=False, max_iters=STEPS)
    runner = Runner.from_cfg(cfg)
    sizes = Sizes()
    runner.register_hook(sizes, priority='LOWEST')
    torch.manual_seed(0)
    runner.train()

    assert len(sizes.steps) == STEPS
    seen, mixed = set(), set()
    for shapes, padded, losses, reached in sizes.steps:
        assert all(loss.isfinite().all() for loss in losses.values())
        assert {f'distill.loss_level{i}' for i in range(3)} <= set(losses)
        assert sizes.learns - reached == set()
        seen.add(padded)
        mixed.add(len({tuple(shape[:2]) for shape in shapes}) > 1)
    # Several sizes, both orientations, batches with and without padding.
    assert (
        len(seen) >= 4 and any(h > w for h, w in seen) and any(h < w for h, w in seen)
    )
    assert mixed == {True, False}
