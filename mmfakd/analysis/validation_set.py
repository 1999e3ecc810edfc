# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""The images that a detector is evaluated on."""

from __future__ import annotations

import copy
import os.path as osp
from collections.abc import Sequence
from typing import Any

import mmcv
import mmengine
import numpy as np
from mmcv.transforms import Compose
from mmengine.config import Config
from mmengine.registry import DATASETS

from mmfakd.checkpoints.class_names import renamed_classes
from mmfakd.datasets.wrappers import (
    dataset_meta,
    pipeline_of,
    read_datasets,
    walk_wrappers,
)
from mmfakd.model_zoo.type_names import type_name


class ValidationSet:
    """The images that a config evaluates on, and what is in them.

    Args:
        cfg (Config): The config. Without a validation set, or if its annotations are
            not there, the set is empty and ``why_empty`` says so.
    """

    def __init__(self, cfg: Config) -> None:
        self.dataset: Any = ()
        self.why_empty = 'the config has no val_dataloader'
        loader = cfg.get('val_dataloader')
        self.pipeline = _pipeline(loader or cfg.get('test_dataloader') or {})
        if loader is not None:
            try:
                self.dataset = DATASETS.build(loader.dataset)
            except FileNotFoundError as error:
                self.why_empty = str(error)

    @property
    def metainfo(self) -> dict:
        """dict: what the data set says of its classes."""
        return dataset_meta(self.dataset)

    def warn(self, teacher_ckpt: str | None) -> None:
        """Warn of names that do not stand for what they say.

        Args:
            teacher_ckpt (str, optional): The teacher's checkpoint.
        """
        classes = self.metainfo.get('classes') or ()
        renamed = renamed_classes(teacher_ckpt, classes)
        if renamed:
            print(f'WARNING: the teacher has classes of its own: {renamed}.')
        for dataset in read_datasets(self.dataset):
            file = getattr(dataset, 'ann_file', '')
            if not hasattr(dataset, 'cat_ids') or not osp.isfile(file):
                continue
            # mmdet takes the classes that have these names, in the order of the file.
            named = [c['name'] for c in mmengine.load(file).get('categories', [])]
            named = [name for name in named if name in classes]
            if named != list(classes):
                print(
                    f'WARNING: `metainfo` has the classes {list(classes)}, their order '
                    f'in {file} is {named}. The order in the file counts, so they are '
                    'called by wrong names: correct `metainfo`.'
                )

    def take_evenly(self, count: int) -> list[dict]:
        """Choose images at equal distances.

        Args:
            count (int): How many.

        Returns:
            list[dict]: What the data set knows of each of them.

        Raises:
            ValueError: If there are none.
        """
        total = len(self.dataset)
        if total == 0 or count < 1:
            raise ValueError(
                f'no images: --num {count} of a validation set of {total} '
                f'({self.why_empty}). Give --images.'
            )
        places = np.linspace(0, total - 1, min(count, total)).round().astype(int)
        return [self.dataset.get_data_info(int(i)) for i in places]

    def find(self, paths: Sequence[str]) -> list[dict]:
        """Look images up, by their files.

        Args:
            paths (Sequence[str]): Their paths.

        Returns:
            list[dict]: What the data set knows of each, or the path alone.
        """
        infos = (self.dataset.get_data_info(i) for i in range(len(self.dataset)))
        known = {osp.realpath(info['img_path']): info for info in infos}
        return [
            known.get(osp.realpath(path), dict(img_path=path, img_id=i))
            for i, path in enumerate(paths)
        ]

    def ground_truth(self, info: dict) -> Any:
        """Load an image with its annotations, in its own size.

        Args:
            info (dict): What the data set knows of it.

        Returns:
            tuple: The image (H, W, 3) in RGB, and its ``DetDataSample``.

        Raises:
            ValueError: If the pipeline does not load images.
        """
        load = next((t for t in self.pipeline if 'LoadImage' in type_name(t)), None)
        if load is None:
            raise ValueError(
                f'its validation pipeline ({[type_name(t) for t in self.pipeline]}) '
                'reads no image files, so there are none to draw on: add dict(type='
                "'LoadImageFromFile')."
            )
        masks = any(t.get('with_mask') for t in self.pipeline)
        # The visualizer takes boxes as tensors.
        annotations = dict(type='LoadAnnotations', with_mask=masks, box_type=None)
        pack = dict(type='PackDetInputs', meta_keys=())
        data = Compose([load, annotations, pack])(copy.deepcopy(info))
        image = data['inputs'].permute(1, 2, 0).numpy()
        return mmcv.bgr2rgb(image), data['data_samples']


def _pipeline(loader: dict) -> list[dict]:
    """The pipeline of a loader's data set, or of the first in its wrapper."""
    for dataset in walk_wrappers(loader.get('dataset')):
        if pipeline_of(dataset):
            return pipeline_of(dataset)
    raise ValueError(
        'it has no pipeline of test images, neither in val_dataloader nor in '
        'test_dataloader; add one, as `mmfakd configs show gfl_r18_1xb8_bccd` has it.'
    )
