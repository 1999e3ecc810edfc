# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""Two training steps of any stock model, alone or under a teacher, on random images."""

import contextlib
import copy
import io
import random
import re
from collections.abc import Iterable

import numpy as np
import torch
from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.registry import DATA_SAMPLERS, DATASETS, MODELS, TRANSFORMS
from torch.utils.data import Dataset, Sampler

from mmfakd.cli import main
from mmfakd.model_zoo.resolve import resolve_model_cfg
from mmfakd.models.algorithms.built_models import drop_pretrained
from tests.helpers.tiny_runs import train

BATCH = 2
STEPS = 2


@DATASETS.register_module(force=True)
class RandomImages(Dataset):
    """Images of noise with labels, boxes or maps, packed as a pipeline packs them.

    `pack` is the transform that ends the student's own pipeline, `load` the arguments
    of those that load its annotations.
    """

    def __init__(self, size, classes, pack, load):
        self.size, self.classes, self.load = size, classes, load
        self.pack = TRANSFORMS.build(pack)
        kinds = dict(PackDetInputs=self._boxes, PackSegInputs=self._map)
        self.annotate = kinds.get(pack['type'].rpartition('.')[2], self._label)
        self.metainfo = dict(classes=[str(i) for i in range(classes)])

    def __len__(self):
        return 100_000

    def __getitem__(self, index):
        rng = np.random.default_rng(index)
        image = rng.integers(0, 256, (*self.size, 3), np.uint8)
        shapes = dict(ori_shape=self.size, img_shape=self.size)
        results = dict(img=image, img_id=index, scale_factor=(1.0, 1.0), **shapes)
        results.update(flip=False, flip_direction=None, **self.annotate(rng))
        return self.pack(results)

    def _label(self, rng):
        return dict(gt_label=int(rng.integers(self.classes)))

    def _map(self, rng):
        """Blocks of 8 x 8 pixels of one class, and their edges."""
        rows, columns = (-(-side // 8) for side in self.size)
        blocks = rng.integers(0, self.classes, (rows, columns), np.uint8)
        found = blocks.repeat(8, 0).repeat(8, 1)[: self.size[0], : self.size[1]]
        edges = (found != np.roll(found, 1, 0)).astype(np.uint8)
        return dict(gt_seg_map=found, gt_edge_map=edges, seg_fields=['gt_seg_map'])

    def _boxes(self, rng):
        """Three boxes: an eighth, a third and most of the image wide and high."""
        from mmdet.structures.bbox import HorizontalBoxes
        from mmdet.structures.mask import BitmapMasks

        height, width = self.size
        extent = np.array([1 / 8, 1 / 3, 0.9])[:, None] * (width, height)
        corner = rng.random((3, 2)) * ((width, height) - extent)
        boxes = np.concatenate([corner, corner + extent], 1).astype(np.float32)
        found = dict(
            gt_bboxes=HorizontalBoxes(boxes),
            gt_bboxes_labels=rng.integers(0, self.classes, 3),
            gt_ignore_flags=np.zeros(3, bool),
        )
        if self.load.get('with_mask'):
            masks = np.zeros((3, height, width), np.uint8)
            for mask, (left, top, right, bottom) in zip(masks, boxes.astype(int)):
                mask[top:bottom, left:right] = 1
            found['gt_masks'] = BitmapMasks(masks, height, width)
        if self.load.get('with_seg'):
            stuff = rng.integers(0, self.classes, self.size, np.uint8)
            found['gt_seg_map'] = stuff
        return found


@DATA_SAMPLERS.register_module(force=True)
class FirstImages(Sampler):
    """The images of two steps, of an epoch as long as schedules of rates expect."""

    def __init__(self, dataset, seed=None):
        self.length = len(dataset)

    def __len__(self):
        return self.length

    def __iter__(self):
        return iter(range(BATCH * STEPS))


class Watch(Hook):
    """Ends a run after a few steps; keeps the losses and what got a gradient.

    `reached` are the parameters with a gradient, `learned` those where it is not zero,
    `learned_first` those where it is not in the first step.

    Random numbers are the same in each step of each run, so that a student drops the
    same paths with and without a teacher, and before the first batch is loaded.
    `start` is a file for the weights that a model without a teacher starts from.
    """

    priority = 'LOWEST'

    def __init__(self, start=None, steps=STEPS):
        self.start, self.steps = start, steps
        self.losses, self.reached, self.learned = [], set(), set()
        self.learned_first = set()

    def before_run(self, runner):
        if self.start is not None:
            # They would be downloaded.
            drop_pretrained(runner.model)

    def before_train(self, runner):
        if self.start is not None:
            torch.save(runner.model.state_dict(), self.start)
        for name, parameter in runner.model.named_parameters():
            if parameter.requires_grad:
                parameter.register_post_accumulate_grad_hook(self._note(name))
        self._seed(0)

    def _note(self, name):
        def note(parameter):
            self.reached.add(name)
            if parameter.grad.any():
                self.learned.add(name)
                if not self.losses:
                    self.learned_first.add(name)

        return note

    def before_train_iter(self, runner, batch_idx, data_batch=None):
        self._seed(len(self.losses))

    @staticmethod
    def _seed(number):
        for seed in (random.seed, np.random.seed, torch.manual_seed):
            seed(number)

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        self.losses.append(
            {k: float(torch.as_tensor(v).detach()) for k, v in outputs.items()}
        )
        if len(self.losses) == self.steps:
            runner.train_loop.stop_training = True


def two_steps(cfg, size, work_dir, start=None):
    """Train for two steps on random images; all else is as the config says.

    Args:
        cfg (Config): A whole config, as `mmfakd train` takes it.
        size (tuple[int, int]): Height and width of the images.
        work_dir (Path): Where the runner writes.
        start (Path, optional): Of a model without a teacher: where its weights go.

    Returns:
        The runner, and the hook that has watched it.
    """
    cfg = Config(copy.deepcopy(cfg._cfg_dict))
    loader = cfg.train_dataloader
    pipeline = next(p for p in values(loader, 'pipeline') if packs(p))
    load = {}
    for transform in pipeline:
        if transform['type'].endswith('LoadAnnotations'):
            load.update(transform)
    student, _ = resolve_model_cfg(cfg.model.get('architecture', cfg.model))
    classes = next(values(student, 'num_classes'), 80)
    data = dict(size=size, classes=classes, pack=pipeline[-1], load=load)
    cfg.train_dataloader = dict(
        batch_size=BATCH,
        num_workers=0,
        dataset=dict(type='RandomImages', **data),
        sampler=dict(type='FirstImages'),
        collate_fn=loader.get('collate_fn', dict(type='pseudo_collate')),
    )
    for augments in values(cfg.model, 'batch_augments'):
        for augment in augments or ():
            if augment['type'] == 'BatchFixedSizePad':
                augment['size'] = size
    for preprocessor in values(cfg._cfg_dict, 'data_preprocessor'):
        if preprocessor.get('size'):
            # What mmseg's pads to.
            preprocessor['size'] = size
    return watched_run(cfg, work_dir, start)


def watched_run(cfg, work_dir, start=None, steps=STEPS, hooks=()):
    """Train for a few steps, without evaluation and checkpoints.

    Args:
        cfg (Config): A whole config with its data; it is changed.
        work_dir (Path): Where the runner writes.
        start (Path, optional): Of a model without a teacher: where its weights go.
        steps (int): Number of steps.
        hooks (Sequence[Hook]): Further hooks.

    Returns:
        The runner, and the hook that has watched it.
    """
    for key in list(cfg):
        if key.startswith(('val_', 'test_')):
            cfg.pop(key)
    # Mixed precision asks for a GPU.
    kept = ('optimizer', 'paramwise_cfg', 'constructor')
    cfg.optim_wrapper = {k: v for k, v in cfg.optim_wrapper.items() if k in kept}
    cfg.default_hooks.pop('checkpoint')
    cfg.default_hooks.checkpoint = None
    cfg.update(
        work_dir=str(work_dir),
        load_from=None,
        log_level='ERROR',
        randomness=dict(seed=0),
    )
    watch = Watch(start, steps)
    return train(cfg, watch, *hooks), watch


def save_weights(config, path):
    """Save a stock model's weights as they are before any training."""
    cfg, _ = resolve_model_cfg(dict(cfg_path=config))
    model = MODELS.build(cfg)
    drop_pretrained(model)
    model.init_weights()
    torch.save(model.state_dict(), path)


def make_config(pair, path, **weights):
    """Write the distillation config of a pair, by the command that users have.

    Args:
        pair (Pair): The pair.
        path (Path): Where the config goes.
        **weights (Path): The command's `teacher_ckpt` and `student_ckpt`.

    Returns:
        list[str]: What is matched with what, as the command prints it.
    """
    size = 'x'.join(map(str, pair.size))
    options = ['-o', path, '--method', pair.method, '--input-size', size]
    for name, file in weights.items():
        options += [f'--{name.replace("_", "-")}', file]
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        main(['pair', pair.student, pair.teacher, *map(str, options)])
    rows = [re.split(r' {2,}', line) for line in printed.getvalue().splitlines()]
    return [f'{row[0]} → {row[3]}' for row in rows if len(row) == 6][1:]


def values(cfg, key):
    """What stands under a key, anywhere in a config, in its order."""
    if isinstance(cfg, dict):
        if key in cfg:
            yield cfg[key]
        cfg = cfg.values()
    if not isinstance(cfg, str):
        for part in cfg if isinstance(cfg, Iterable) else ():
            yield from values(part, key)


def packs(pipeline):
    return str(pipeline[-1].get('type')).startswith('Pack')
