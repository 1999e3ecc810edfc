# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""What teacher and student detect, side by side on the same image."""

from __future__ import annotations

import copy
import os
import os.path as osp
from collections.abc import Iterator, Sequence
from itertools import chain, count
from typing import Any

import cv2
import mmcv
import numpy as np
import torch
from mmcv.transforms import Compose
from mmengine.config import Config
from mmengine.logging import MMLogger
from mmengine.registry import MODELS, init_default_scope
from mmengine.utils import scandir
from torch import nn

from mmfakd.checkpoints.class_names import trained_classes
from mmfakd.checkpoints.load import load_weights
from mmfakd.engine.devices import find_device
from mmfakd.messages import progress
from mmfakd.model_zoo.outputs import check_outputs, check_writable, explain_unwritten
from mmfakd.model_zoo.resolve import resolve_model_cfg
from mmfakd.models.algorithms import TeacherEvaluation
from mmfakd.models.algorithms.count_classes import predicted_counts
from mmfakd.pairing.probe import is_detector

from .distillation import evaluation_config, open_distillation
from .validation_set import ValidationSet

_ENDINGS = ('.jpg', '.jpeg', '.png', '.bmp', '.webp', '.tif', '.tiff')
_GAP = 4
# The panel that no model has made.
_TRUTH = 'ground truth'


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
    cfg = evaluation_config(cfg)
    model = MODELS.build(resolve_model_cfg(cfg.model, cfg.get('data_preprocessor'))[0])
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
    counts = predicted_counts(model)
    for names in (trained_classes(checkpoint), dataset):
        if names and (not counts or len(names) in counts):
            return list(names)
    return [f'class {i}' for i in range(max(counts, default=0))]


def list_images(paths: Sequence[str]) -> list[str]:
    """List image files.

    Args:
        paths (Sequence[str]): Files, and folders that are searched.

    Returns:
        list[str]: The files; those of a folder in alphabetical order.

    Raises:
        FileNotFoundError: If a path does not exist, or a folder has no images.
    """
    files: list[str] = []
    for path in paths:
        found = [path]
        if osp.isdir(path):
            names = scandir(path, _ENDINGS, recursive=True, case_sensitive=False)
            found = [osp.join(path, name) for name in sorted(names)]
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

    Raises:
        ValueError: If one of them predicts no instances, as panoptic detectors do.
    """
    data = pipeline(copy.deepcopy(info))
    batch = {key: [value] for key, value in data.items()}
    samples = {
        role: part.val_step(copy.deepcopy(batch))[0].cpu()
        for role, part in (('teacher', model), ('student', model.architecture))
    }
    parts = dict(teacher=model.teacher, student=model.architecture)
    for role, sample in samples.items():
        if 'pred_instances' not in sample:
            raise ValueError(
                f'its {role}, a {type(parts[role]).__name__}, predicts no boxes: '
                'panoptic detectors predict maps. This command draws boxes and masks '
                'of instances; choose a distillation of detectors that predict them.'
            )
    return samples


def draw(
    image: np.ndarray,
    samples: dict[str, Any],
    names: dict[str, list[str]],
    score_thr: float,
) -> tuple[np.ndarray, dict[str, int]]:
    """Draw panels side by side.

    Args:
        image (np.ndarray): (H, W, 3) in RGB.
        samples (dict): Title of a panel -> its ``DetDataSample``. That of the title
            ``'ground truth'`` has annotations, others have predictions.
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
        predicted = title != _TRUTH
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
        stem = osp.splitext(osp.basename(info['img_path']))[0]
        names = (f'{stem}_{number}' for number in count(2))
        name = next(name for name in chain([stem], names) if name not in taken)
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
        FileExistsError: If a picture would take the place of an image.
        FileNotFoundError: If there is no such config; near names are listed.
        OSError: If the folder cannot be written.
        ValueError: If there is nothing to draw, no score is as high, or weights, images
            or the device are not there.
    """
    MMLogger.get_instance('detections', log_level='WARNING')
    if not score_thr <= 1:
        raise ValueError(
            f'--score-thr {score_thr:g}: nothing would be drawn, scores are from 0 to '
            '1; give 0.3 for 30 %.'
        )
    place = find_device(device)
    check_writable(osp.join(out, 'picture.png'))
    with open_distillation(config, teacher_ckpt, cfg_options) as cfg:
        files = None if images is None else list_images(images)
        init_default_scope(cfg.get('default_scope', 'mmdet'))
        progress('building teacher and student')
        model = load_models(cfg, student)
        model.to(place)
        progress('reading the validation set')
        validation = ValidationSet(cfg)
        infos = validation.take_evenly(num) if files is None else validation.find(files)
        classes = validation.metainfo.get('classes')
        own = None if classes else student
        names = dict(
            teacher=class_names(model.teacher, model.teacher_ckpt, classes),
            student=class_names(model.architecture, own, classes),
        )
        names[_TRUTH] = list(classes or names['student'])
        validation.warn(model.teacher_ckpt)
        pipeline = Compose(validation.pipeline)
        os.makedirs(out, exist_ok=True)
        paths = list(out_files(infos, out))
        check_outputs(True, paths, (info['img_path'] for info in infos))
        for info, path in zip(infos, paths):
            image, truth = validation.ground_truth(info)
            samples = detect(model, pipeline, info)
            if 'instances' in info:
                samples = {_TRUTH: truth, **samples}
            picture, counts = draw(image, samples, names, score_thr)
            with explain_unwritten(path):
                mmcv.imwrite(mmcv.rgb2bgr(picture), path)
            found = ', '.join(f'{title} {count}' for title, count in counts.items())
            print(f'{path}: {found}')
