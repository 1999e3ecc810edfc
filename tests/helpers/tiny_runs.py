# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""Real training runs that take a second: few digits, narrow networks."""

import random
from itertools import count

import torch
from mmcv.transforms import BaseTransform
from mmengine.config import Config
from mmengine.evaluator import BaseMetric
from mmengine.hooks import Hook
from mmengine.logging import MessageHub
from mmengine.registry import DATASETS, METRICS, MODELS, TRANSFORMS
from mmengine.runner import Runner
from mmpretrain.structures import DataSample
from torch.utils.data import IterableDataset

from tests.helpers.toy import classifier, review_distiller


def student(**kwargs):
    """Config of the student: two channels wide, for 8 x 8 grey images."""
    return classifier(width=2, in_channels=1, **kwargs)


def teacher():
    """Config of the teacher, twice as wide."""
    return classifier(width=4, in_channels=1)


def distillation(teacher_ckpt, **model):
    """Config of FAM-KD with review."""
    return dict(
        dict(
            type='mmfakd.FeatureDistill',
            architecture=student(),
            teacher=teacher(),
            teacher_ckpt=teacher_ckpt,
            distiller=review_distiller(width=2, teacher_width=4),
        ),
        **model,
    )


def save_teacher(folder):
    """Write a teacher's weights.

    Returns:
        The path, as a string.
    """
    torch.manual_seed(0)
    path = str(folder / 'teacher.pth')
    torch.save(dict(state_dict=MODELS.build(teacher()).state_dict()), path)
    return path


def run_config(work_dir, model, epochs=2, iters=None, hooks=(), checkpoint=None, **cfg):
    """Config of a run of `epochs` epochs of two iterations each, or of `iters`.

    `hooks` are custom hooks, `checkpoint` are arguments of `CheckpointHook`; any
    other key of a config may follow.
    """
    by_epoch = iters is None
    pipeline = [
        dict(type='RandomCrop', crop_size=8, padding=2),
        dict(type='RandomFlip', prob=0.5),
        dict(type='PackInputs'),
    ]
    validation = dict(
        batch_size=100,
        num_workers=0,
        dataset=dict(
            type='mmfakd.Digits',
            split='test',
            indices=100,
            pipeline=[dict(type='PackInputs')],
        ),
        sampler=dict(type='DefaultSampler', shuffle=False),
        collate_fn=dict(type='default_collate'),
    )
    defaults = dict(
        default_scope='mmpretrain',
        work_dir=str(work_dir),
        data_preprocessor=dict(num_classes=10, mean=[77.8], std=[95.9], to_rgb=False),
        train_dataloader=dict(
            batch_size=10,
            num_workers=0,
            dataset=dict(type='mmfakd.Digits', labels_per_class=2, pipeline=pipeline),
            sampler=dict(
                type='DefaultSampler' if by_epoch else 'InfiniteSampler', shuffle=True
            ),
            collate_fn=dict(type='default_collate'),
        ),
        train_cfg=dict(
            dict(by_epoch=True, max_epochs=epochs)
            if by_epoch
            else dict(by_epoch=False, max_iters=iters),
            val_interval=1,
        ),
        optim_wrapper=dict(optimizer=dict(type='SGD', lr=0.05, momentum=0.9)),
        default_hooks=dict(
            logger=dict(type='LoggerHook', interval=1),
            checkpoint=dict(
                dict(type='CheckpointHook', interval=1, by_epoch=by_epoch),
                **(checkpoint or {}),
            ),
        ),
        custom_hooks=list(hooks),
        log_level='ERROR',
        log_processor=dict(by_epoch=by_epoch),
        randomness=dict(seed=0),
    )
    if cfg.pop('validate', False):
        defaults.update(
            val_dataloader=validation,
            val_evaluator=dict(type='Accuracy', topk=(1,)),
            val_cfg=dict(),
            test_dataloader=validation,
            test_evaluator=dict(type='Accuracy', topk=(1,)),
            test_cfg=dict(),
        )
    return Config(dict(defaults, model=model, **cfg))


@METRICS.register_module(force=True)
class ScriptedScore(BaseMetric):
    """Scores that are given beforehand: the best checkpoint is no accident."""

    def __init__(self, counter, **scores):
        super().__init__()
        self.counter, self.scores = counter, scores

    def process(self, data_batch, data_samples):
        self.results.append(None)

    def compute_metrics(self, results):
        index = MessageHub.get_current_instance().get_info(self.counter)
        return {name: values[index] for name, values in self.scores.items()}


@DATASETS.register_module(force=True)
class Stream(IterableDataset):
    """Images one after another, as from the network, of no known number."""

    def __init__(self, images=100):
        self.images = images

    def __iter__(self):
        for i in range(self.images):
            image = torch.full((1, 8, 8), 37 * i % 256, dtype=torch.uint8)
            yield dict(inputs=image, data_samples=DataSample().set_gt_label(i % 10))


@DATASETS.register_module(force=True)
class CountedStream(Stream):
    """One that knows its length."""

    def __len__(self):
        return self.images


@TRANSFORMS.register_module(force=True)
class Remembering(BaseTransform):
    """Adds an earlier image to each, as mmdet's CachedMixUp does."""

    def __init__(self):
        self.results_cache = []

    def transform(self, results):
        self.results_cache.append(results['img'].copy())
        del self.results_cache[:-6]
        earlier = random.choice(self.results_cache)
        return dict(results, img=results['img'] // 2 + earlier // 2)


class Recorder(Hook):
    """Keeps the batch and the losses of every iteration, and may stop a run."""

    priority = 'LOWEST'

    def __init__(self, stop_after=None):
        self.losses, self.batches = [], []
        self.stop_after = stop_after

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        self.losses.append({k: v.item() for k, v in outputs.items()})
        self.batches.append(torch.stack(list(data_batch['inputs'])))

    def after_train_epoch(self, runner):
        if runner.epoch + 1 == self.stop_after:
            runner.train_loop.stop_training = True


_numbers = count()


def train(cfg, *hooks):
    """Train, with `hooks` as further hooks.

    Returns:
        The runner.
    """
    # Runs of one name would share a message hub.
    cfg.experiment_name = f'tiny{next(_numbers)}'
    runner = Runner.from_cfg(cfg)
    for hook in hooks:
        runner.register_hook(hook)
    try:
        runner.train()
    finally:
        # Else persistent workers wait for the garbage collector, and it for them.
        runner.train_dataloader._iterator = None
    return runner
