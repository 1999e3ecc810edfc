# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""The teacher's own score, before days of training rely on it."""

from __future__ import annotations

import copy
import os.path as osp
from collections.abc import Mapping, Sequence
from inspect import signature
from typing import Any

from mmengine.config import Config, ConfigDict
from mmengine.runner import Runner

from mmfakd.checkpoints.fetch import fetch_checkpoint
from mmfakd.engine.launch import build_runner, merge_launch_options
from mmfakd.model_zoo.find import config_file
from mmfakd.model_zoo.published_scores import METRICS, Published, published_scores
from mmfakd.models.algorithms import FeatureDistill, TeacherEvaluation
from mmfakd.models.algorithms.count_classes import count_classes
from mmfakd.models.algorithms.teacher_input import TeacherInput
from mmfakd.registry import MODELS

DOES_NOT_FIT = 3


def check_teacher(
    config: str,
    teacher_ckpt: str | None = None,
    expected: float | None = None,
    tolerance: float = 1.0,
    **options: Any,
) -> int:
    """Evaluate the teacher of a distillation and compare its score.

    Args:
        config (str): Path of a config, or its name.
        teacher_ckpt (str, optional): The teacher's weights.
        expected (float, optional): Score in percent that the teacher is known to have.
        tolerance (float): Percentage points that the score may be lower.
        **options: ``work_dir`` and ``cfg_options``, see
            :func:`~mmfakd.engine.launch.merge_launch_options`.

    Returns:
        int: 0 if the score fits or there is none to compare with, else 3.

    Raises:
        ValueError: If the config describes no distillation, has no validation set, or
            the teacher no weights. The message names the config.
    """
    try:
        cfg = Config.fromfile(config_file(config))
        prepare(cfg, config, teacher_ckpt, **options)
        published = None if expected is not None else published_scores(cfg)
        runner = build_runner(evaluation_config(cfg))
        return check(runner, expected, published, tolerance)
    except (ValueError, FileNotFoundError, ModuleNotFoundError) as error:
        raise ValueError(f'{config}: {error}') from error


def prepare(
    cfg: Config,
    config: str,
    teacher_ckpt: str | None,
    work_dir: str | None = None,
    cfg_options: Sequence[str] | None = None,
) -> None:
    """Put the options into the config, and refuse one without a teacher to score.

    Args:
        cfg (Config): The config as read, changed in place.
        config (str): What it was called.
        teacher_ckpt (str, optional): The teacher's weights.
        work_dir (str, optional): Folder for the log.
        cfg_options (Sequence[str], optional): Overrides of the config.

    Raises:
        ValueError: If it describes no distillation or has no validation set.
    """
    if work_dir is None:
        # Not that of the training, whose dumped config and logs it would mix with.
        name = osp.splitext(osp.basename(config))[0]
        work_dir = osp.join('./work_dirs', f'{name}_teacher')
    merge_launch_options(cfg, config, work_dir, cfg_options)
    if 'teacher' not in cfg.get('model', {}):
        raise ValueError(
            f'its model, {cfg.get("model", {}).get("type")}, has no teacher; choose a '
            'distillation config (`mmfakd test` evaluates a plain model).'
        )
    missing = [
        key
        for key in ('val_dataloader', 'val_evaluator', 'val_cfg')
        if cfg.get(key) is None
    ]
    if missing:
        raise ValueError(
            f'it has no {" and no ".join(missing)}, so there is nothing to score the '
            'teacher on; add a validation set as in configs/_base_/datasets.'
        )
    if teacher_ckpt is not None:
        cfg.model.teacher_ckpt = teacher_ckpt


def evaluation_config(cfg: Config) -> Config:
    """Turn a distillation config into one that evaluates its teacher.

    Args:
        cfg (Config): The distillation config.

    Returns:
        Config: A config for ``Runner.val``.
    """
    cfg = copy.deepcopy(cfg)
    kind = cfg.model.type
    kind = MODELS.get(kind) if isinstance(kind, str) else kind
    if kind is None or not issubclass(kind, FeatureDistill):
        # mmrazor's own algorithms hand the student's batch over as it is.
        cfg.model.teacher_preprocessor = {}
    keys = signature(TeacherEvaluation).parameters
    cfg.model = ConfigDict(
        type='mmfakd.TeacherEvaluation',
        **{key: cfg.model[key] for key in keys if key in cfg.model},
    )
    # The student's: averaging, recipes, weights to go on from, web loggers.
    cfg.custom_hooks = []
    cfg.load_from = cfg.visualizer = None
    cfg.resume = False
    return cfg


def other_classes(teacher: int | None, dataset: int | None) -> str | None:
    """Say so where teacher and validation set differ in classes.

    Args:
        teacher (int, optional): Number of classes that the teacher predicts.
        dataset (int, optional): That of the validation set.

    Returns:
        str | None: The explanation; None where they agree or one is unknown.
    """
    if teacher is None or dataset is None or teacher == dataset:
        return None
    return (
        f'The teacher predicts {teacher} classes, the validation set has {dataset}: '
        'its score cannot be computed here. Feature distillation goes on all the '
        'same, as features have no classes; losses that compare predictions (KD, DKD) '
        'cannot be used with this pair. See docs/en/own_data.md.'
    )


def compare(
    metrics: Mapping[str, float],
    published: Published | None,
    tolerance: float,
) -> tuple[list[str], bool]:
    """Compare what was measured with what was published.

    Args:
        metrics (Mapping[str, float]): What the evaluator returned.
        published (Published, optional): What is known of the teacher.
        tolerance (float): Percentage points that a score may be lower.

    Returns:
        tuple[list[str], bool]: A line for each metric, and whether all that are known
        fit.
    """
    known = {}
    for name, score in (published.scores if published else {}).items():
        key, factor = METRICS[name]
        known[key.rpartition('/')[2]] = (score, factor)
    lines, fits = [], True
    for name, value in metrics.items():
        line = f'{name}: {value:.4g}'
        if name.rpartition('/')[2] in known:
            score, factor = known[name.rpartition('/')[2]]
            difference = factor * value - score
            line = f'{name}: {factor * value:.2f} %, expected {score:.2f} %'
            line += f' ({difference:+.2f})'
            fits &= difference >= -tolerance
        lines.append(line)
    return lines, fits


def expected_score(metrics: Mapping[str, float], score: float) -> Published:
    """Take a score from the command line for that of the main metric.

    Args:
        metrics (Mapping[str, float]): What the evaluator returned.
        score (float): Percent.

    Returns:
        Published: In the form of a metafile's.

    Raises:
        ValueError: If the evaluator has no metric that the score can stand for.
    """
    measured = {name.rpartition('/')[2] for name in metrics}
    for name, (key, _) in METRICS.items():
        if key.rpartition('/')[2] in measured:
            return Published('--expected', '', {name: score})
    raise ValueError(
        f'--expected: the evaluator gives {", ".join(metrics) or "nothing"}; none of '
        f'these is one of {", ".join(key for key, _ in METRICS.values())}.'
    )


def renamed_classes(source: str | None, classes: Sequence[str] | None) -> str | None:
    """Compare the classes' names of a checkpoint with those of a data set.

    Args:
        source (str, optional): The teacher's checkpoint.
        classes (Sequence[str], optional): The classes of the validation set.

    Returns:
        str | None: The first difference, in words; None where there is none or names
        are not known.
    """
    meta = fetch_checkpoint(source).get('meta', {}) if source else {}
    info = {**meta, **meta.get('dataset_meta', {})}
    trained = info.get('classes') or info.get('CLASSES') or ()
    for index, (theirs, ours) in enumerate(zip(trained, classes or ())):
        if str(theirs).lower() != str(ours).lower():
            return (
                f'its checkpoint names class {index} {theirs!r}, the validation set '
                f'{ours!r}'
            )
    return None


def check(
    runner: Runner,
    expected: float | None,
    published: Published | None,
    tolerance: float,
) -> int:
    """Evaluate the teacher and print what comes out.

    Args:
        runner (Runner): Of :func:`evaluation_config`.
        expected (float, optional): Score in percent that the teacher is known to have.
        published (Published, optional): What a metafile lists.
        tolerance (float): Percentage points that a score may be lower.

    Returns:
        int: The exit status.
    """
    model = runner.model
    model.init_weights()
    dataset = runner.val_loop.dataloader.dataset
    classes = dataset.metainfo.get('classes')
    count = len(classes) if classes else count_classes(model.architecture)
    teacher_count = count_classes(model.teacher)
    conflict = other_classes(teacher_count, count)
    if conflict:
        print(f'\n{conflict}')
        return 0
    leave_out_masks(runner)
    metrics = runner.val()
    if not metrics:
        # mmdet's evaluators give nothing where no box was predicted.
        print('\nThe teacher predicts nothing at all on the validation set.')
        print(possible_causes(model, classes))
        return DOES_NOT_FIT
    if expected is not None:
        published = expected_score(metrics, expected)
    lines, fits = compare(metrics, published, tolerance)
    name = type(dataset).__name__
    print(
        f'\nTeacher {type(model.teacher).__name__} with {teacher_count or "unknown"} '
        f'classes, weights {model.teacher_ckpt or "of its config"}, on {name} '
        f'({len(dataset):,} images):'
    )
    print('\n'.join(f'  {line}' for line in lines))
    if published is None:
        print('No metafile lists its score; --expected takes one.')
        return 0
    about = f' on {published.dataset}' if published.dataset else ''
    print(
        f'Expected according to {published.source}{about}; up to {tolerance:g} points '
        'less are fine.'
    )
    if fits:
        return 0
    print(possible_causes(model, classes))
    return DOES_NOT_FIT


def leave_out_masks(runner: Runner) -> None:
    """Score a detector without masks on its boxes alone, where both are asked for.

    Args:
        runner (Runner): Its evaluator is changed in place.
    """
    if getattr(runner.model.teacher, 'with_mask', True):
        return
    for metric in runner.val_loop.evaluator.metrics:
        kinds = getattr(metric, 'metrics', None)
        if isinstance(kinds, list) and 'segm' in kinds and len(kinds) > 1:
            kinds.remove('segm')
            print('\nThe teacher predicts no masks: its boxes are scored.')


def possible_causes(model: TeacherEvaluation, classes: Sequence[str] | None) -> str:
    """Say where to look when a teacher is worse than it should be.

    Args:
        model (TeacherEvaluation): The teacher as evaluated.
        classes (Sequence[str], optional): The classes of the validation set.

    Returns:
        str: Several lines.
    """
    renamed = renamed_classes(model.teacher_ckpt, classes)
    data = f'{renamed}.' if renamed else 'is it what the expected score is of?'
    return (
        f'\n{"!" * 20} THE TEACHER IS WORSE THAN IT SHOULD BE {"!" * 20}\n'
        'A student learns what this teacher knows. Look for the cause before '
        'training:\n'
        '- the weights: are they those of this teacher, trained to the end?\n'
        f'- the input: the teacher gets {describe(model.teacher_input)}; mean, std '
        'and order of channels must be as it was trained. `teacher_preprocessor` '
        'states them where its config does not.\n'
        '- the pipeline: size and crop of the images are those of this config, not of '
        "the teacher's own.\n"
        f'- the validation set: {data}'
    )


def describe(teacher_input: TeacherInput) -> str:
    """Say what the teacher gets.

    Args:
        teacher_input (TeacherInput): Of the model.

    Returns:
        str: Half a sentence.
    """
    if teacher_input.is_identity:
        return "the student's batch as it is"
    return f"the student's batch through {teacher_input}"
