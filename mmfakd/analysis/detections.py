# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""What teacher and student detect, side by side on the same image."""

from __future__ import annotations

import copy
import os
import os.path as osp
from collections.abc import Iterator, Sequence
from typing import Any

import cv2
import mmcv
import mmengine
import numpy as np
import torch
from mmcv.transforms import Compose
from mmengine.config import Config
from mmengine.dataset import BaseDataset
from mmengine.logging import MMLogger
from mmengine.registry import DATASETS, MODELS, init_default_scope
from mmengine.utils import scandir
from torch import nn

from mmfakd.checkpoints.fetch import fetch_checkpoint
from mmfakd.checkpoints.load import load_weights
from mmfakd.engine.launch import parse_cfg_options
from mmfakd.model_zoo.find import config_file
from mmfakd.models.algorithms import TeacherEvaluation
from mmfakd.models.algorithms.count_classes import count_classes
from mmfakd.pairing.probe import is_detector

from .teacher_score import evaluation_config, renamed_classes

_ENDINGS = ('.jpg', '.jpeg', '.png', '.bmp', '.webp', '.tif', '.tiff')
_GAP = 4


def load_models(cfg: Config, student: str) -> TeacherEvaluation:
    """Build both models with their weights.

    Args:
        cfg (Config): The config of the distillation.
        student (str): Checkpoint of the distillation or of the student.

    Returns:
        TeacherEvaluation: It predicts as the teacher, its ``architecture`` as the
        student.

    Raises:
        FileNotFoundError: If there are no such weights.
        ValueError: If these are no detectors, or weights do not fit.
    """
    if 'teacher' not in cfg.get('model', {}):
        raise ValueError(
            f'its model, {cfg.get("model", {}).get("type")}, has no teacher; choose a '
            'distillation config.'
        )
    model_cfg = evaluation_config(cfg).model
    if cfg.get('data_preprocessor') is not None:
        # As the runner does.
        model_cfg.setdefault('data_preprocessor', cfg.data_preprocessor)
    model = MODELS.build(model_cfg)
    for role, part in (('student', model.architecture), ('teacher', model.teacher)):
        if not is_detector(part):
            raise ValueError(
                f'its {role} is a {type(part).__name__}, which detects nothing; choose '
                "a distillation of mmdet's detectors."
            )
    model.init_weights()
    load_weights(model.architecture, student, 'student')
    return model.eval()


def class_names(
    model: nn.Module, checkpoint: str | None, dataset: Sequence[str] | None
) -> list[str]:
    """Find out what the classes of a model are called.

    Args:
        model (nn.Module): The detector.
        checkpoint (str, optional): Where its weights come from.
        dataset (Sequence[str], optional): The classes of the validation set.

    Returns:
        list[str]: The names in its checkpoint, else those of the data set, else
        numbers, as many as it has classes.
    """
    meta = fetch_checkpoint(checkpoint).get('meta', {}) if checkpoint else {}
    info = {**meta, **(meta.get('dataset_meta') or {})}
    count = count_classes(model)
    for names in (info.get('classes') or info.get('CLASSES'), dataset):
        if names and count in (None, len(names)):
            return list(names)
    return [f'class {i}' for i in range(count or 0)]


class ValidationSet:
    """The images that a config evaluates on, and what is in them.

    Args:
        cfg (Config): The config. Without a validation set, or if its annotations are
            not there, the set is empty and ``why_empty`` says so.
    """

    def __init__(self, cfg: Config) -> None:
        self.dataset: BaseDataset | None = None
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
        return self.dataset.metainfo if self.dataset is not None else {}

    def warn(self, teacher_ckpt: str | None) -> None:
        """Warn of names that do not stand for what they say.

        Args:
            teacher_ckpt (str, optional): The teacher's checkpoint.
        """
        classes = self.metainfo.get('classes') or ()
        renamed = renamed_classes(teacher_ckpt, classes)
        if renamed:
            print(f'WARNING: the teacher has classes of its own: {renamed}.')
        file = getattr(self.dataset, 'ann_file', '')
        if not hasattr(self.dataset, 'cat_ids') or not osp.isfile(file):
            return
        # mmdet takes the classes that have these names, in the order of the file.
        named = [c['name'] for c in mmengine.load(file).get('categories', [])]
        named = [name for name in named if name in classes]
        if named != list(classes):
            print(
                f'WARNING: `metainfo` has the classes {list(classes)}, their order in '
                f'{file} is {named}. The order in the file counts, so they are called '
                'by wrong names: correct `metainfo`.'
            )

    def spread(self, count: int) -> list[dict]:
        """Choose images at equal distances.

        Args:
            count (int): How many.

        Returns:
            list[dict]: What the data set knows of each of them.

        Raises:
            ValueError: If there are none.
        """
        total = len(self.dataset) if self.dataset is not None else 0
        if total == 0 or count < 1:
            raise ValueError(
                f'no images: --num {count} of a validation set of {total} '
                f'({self.why_empty if self.dataset is None else "empty"}). Give '
                '--images.'
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
        known = {}
        for i in range(len(self.dataset) if self.dataset is not None else 0):
            info = self.dataset.get_data_info(i)
            known[osp.realpath(info['img_path'])] = info
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
        """
        load = next(t for t in self.pipeline if 'LoadImage' in t['type'])
        masks = any(t.get('with_mask') for t in self.pipeline)
        # The visualizer takes boxes as tensors.
        annotations = dict(type='LoadAnnotations', with_mask=masks, box_type=None)
        pack = dict(type='PackDetInputs', meta_keys=())
        data = Compose([load, annotations, pack])(copy.deepcopy(info))
        image = data['inputs'].permute(1, 2, 0).numpy()
        return mmcv.bgr2rgb(image), data['data_samples']


def _pipeline(loader: dict) -> list[dict]:
    """The pipeline of a loader's data set, or of the first in its wrapper."""
    dataset = loader.get('dataset', {})
    while 'pipeline' not in dataset:
        if 'dataset' not in dataset and 'datasets' not in dataset:
            raise ValueError(
                'it has no pipeline of test images, neither in val_dataloader nor in '
                'test_dataloader; add one as in configs/_base_/datasets.'
            )
        dataset = dataset.get('dataset') or dataset['datasets'][0]
    return dataset['pipeline']


def list_images(paths: Sequence[str]) -> list[str]:
    """List image files.

    Args:
        paths (Sequence[str]): Files, and folders that are searched.

    Returns:
        list[str]: The files; those of a folder in alphabetical order.

    Raises:
        FileNotFoundError: If a path does not exist, or a folder has no images.
    """
    files = []
    for path in paths:
        found = [path]
        if osp.isdir(path):
            names = sorted(
                scandir(path, _ENDINGS, recursive=True, case_sensitive=False)
            )
            found = [osp.join(path, name) for name in names]
        elif not osp.isfile(path):
            raise FileNotFoundError(
                f'--images: {path!r} is neither a file nor a folder.'
            )
        if not found:
            raise FileNotFoundError(
                f'--images: {path!r} has no images ({", ".join(_ENDINGS)}).'
            )
        files += found
    return files


@torch.no_grad()
def detect(model: TeacherEvaluation, pipeline: Compose, info: dict) -> dict[str, Any]:
    """Let both models predict.

    Args:
        model (TeacherEvaluation): Of :func:`load_models`.
        pipeline (Compose): The transforms of test images.
        info (dict): What is known of the image, at least ``img_path``.

    Returns:
        dict: ``teacher`` and ``student`` -> ``DetDataSample`` with ``pred_instances``
        in pixels of the image file.
    """
    data = pipeline(copy.deepcopy(info))
    batch = {key: [value] for key, value in data.items()}
    return {
        role: part.val_step(copy.deepcopy(batch))[0].cpu()
        for role, part in (('teacher', model), ('student', model.architecture))
    }


def draw(
    image: np.ndarray,
    samples: dict[str, Any],
    names: dict[str, list[str]],
    score_thr: float,
) -> tuple[np.ndarray, dict[str, int]]:
    """Draw panels side by side.

    Args:
        image (np.ndarray): (H, W, 3) in RGB.
        samples (dict): Title of a panel -> its ``DetDataSample``.
        names (dict): Title -> names of the classes.
        score_thr (float): Score above which predictions are drawn.

    Returns:
        tuple[np.ndarray, dict[str, int]]: The picture in RGB, panels of the image's
        size below a title each, and how many objects each panel has.
    """
    from mmdet.visualization import DetLocalVisualizer

    visualizer = DetLocalVisualizer()
    panels, counts = [], {}
    for title, sample in samples.items():
        predicted = 'pred_instances' in sample
        visualizer.dataset_meta = dict(classes=names[title])
        visualizer.add_datasample(
            title,
            image,
            sample,
            draw_gt=not predicted,
            draw_pred=predicted,
            pred_score_thr=score_thr,
        )
        counts[title] = (
            len(sample.gt_instances)
            if not predicted
            else int((sample.pred_instances.scores > score_thr).sum())
        )
        above = f', score > {score_thr:g}' * predicted
        bar = _title(f'{title}: {counts[title]}{above}', image.shape[1])
        panels.append(np.concatenate([bar, visualizer.get_image()]))
        panels.append(np.full((len(panels[-1]), _GAP, 3), 255, np.uint8))
    return np.concatenate(panels[:-1], 1), counts


def _title(text: str, width: int) -> np.ndarray:
    """A white bar with a line of text in it."""
    height = 24
    font, scale = cv2.FONT_HERSHEY_SIMPLEX, 0.5
    (needed, _), _ = cv2.getTextSize(text, font, scale, 1)
    scale *= min(1.0, (width - 8) / needed)
    bar = np.full((height, width, 3), 255, np.uint8)
    cv2.putText(bar, text, (4, 17), font, scale, (0, 0, 0), 1, cv2.LINE_AA)
    return bar


def out_files(infos: Sequence[dict], folder: str) -> Iterator[str]:
    """Name the pictures after the images.

    Args:
        infos (Sequence[dict]): What is known of the images.
        folder (str): Where the pictures go.

    Yields:
        str: A path, which no other image has.
    """
    taken: set[str] = set()
    for info in infos:
        stem = name = osp.splitext(osp.basename(info['img_path']))[0]
        number = 1
        while name in taken:
            number += 1
            name = f'{stem}_{number}'
        taken.add(name)
        yield osp.join(folder, f'{name}.png')


def draw_detections(
    config: str,
    student: str,
    out: str = 'work_dirs/detections',
    teacher_ckpt: str | None = None,
    images: Sequence[str] | None = None,
    num: int = 8,
    score_thr: float = 0.3,
    device: str | None = None,
    cfg_options: Sequence[str] | None = None,
) -> None:
    """Draw what teacher and student detect, side by side.

    Args:
        config (str): Path of a distillation's config, or its name.
        student (str): Checkpoint of the distillation or of the student.
        out (str): Folder for the pictures.
        teacher_ckpt (str, optional): The teacher's weights.
        images (Sequence[str], optional): Images, or folders of images. Defaults to
            None, those of the validation set.
        num (int): How many of the validation set.
        score_thr (float): Score above which detections are drawn.
        device (str, optional): Defaults to None: a GPU where there is one.
        cfg_options (Sequence[str], optional): Overrides of the config.

    Raises:
        ValueError: If there is nothing to draw, or weights or images are not there.
            The message names the config.
    """
    cfg = Config.fromfile(config_file(config))
    cfg.merge_from_dict(parse_cfg_options(cfg_options))
    MMLogger.get_instance('detections', log_level='WARNING')
    try:
        _draw_all(cfg, student, out, teacher_ckpt, images, num, score_thr, device)
    except (ValueError, FileNotFoundError, ModuleNotFoundError) as error:
        raise ValueError(f'{config}: {error}') from error


def _draw_all(
    cfg: Config,
    student: str,
    out: str,
    teacher_ckpt: str | None,
    images: Sequence[str] | None,
    num: int,
    score_thr: float,
    device: str | None,
) -> None:
    if teacher_ckpt is not None:
        cfg.model.teacher_ckpt = teacher_ckpt
    files = None if images is None else list_images(images)
    init_default_scope(cfg.get('default_scope', 'mmdet'))
    model = load_models(cfg, student)
    device = device or ('cuda:0' if torch.cuda.is_available() else 'cpu')
    model.to(device)
    validation = ValidationSet(cfg)
    classes = validation.metainfo.get('classes')
    infos = validation.spread(num) if files is None else validation.find(files)
    names = dict(
        teacher=class_names(model.teacher, model.teacher_ckpt, classes),
        student=class_names(model.architecture, None if classes else student, classes),
    )
    names['ground truth'] = list(classes or names['student'])
    validation.warn(model.teacher_ckpt)
    pipeline = Compose(validation.pipeline)
    os.makedirs(out, exist_ok=True)
    for info, path in zip(infos, out_files(infos, out)):
        image, truth = validation.ground_truth(info)
        samples = detect(model, pipeline, info)
        if 'instances' in info:
            samples = {'ground truth': truth, **samples}
        picture, counts = draw(image, samples, names, score_thr)
        mmcv.imwrite(mmcv.rgb2bgr(picture), path)
        found = ', '.join(f'{title} {count}' for title, count in counts.items())
        print(f'{path}: {found}')
