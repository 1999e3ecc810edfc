# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""The teacher's own score, before days of training rely on it."""

from __future__ import annotations

import os.path as osp
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from mmengine.config import Config
from mmengine.runner import Runner

from mmfakd.checkpoints.class_names import renamed_classes
from mmfakd.datasets.wrappers import dataset_meta
from mmfakd.engine.check_config import check_parts
from mmfakd.engine.check_loaders import check_loaders
from mmfakd.engine.config_dump import TEACHER
from mmfakd.engine.launch import build_runner, merge_launch_options
from mmfakd.engine.work_dir import check_work_dir
from mmfakd.messages import documentation, progress
from mmfakd.model_zoo.published_scores import METRICS, Published, published_scores
from mmfakd.models.algorithms import TeacherEvaluation
from mmfakd.models.algorithms.count_classes import predicted_counts

from .distillation import evaluation_config, open_distillation
from .progress_hook import ProgressHook
from .written_files import refuse_written_files

DOES_NOT_FIT = 3


def check_teacher(
    config: str,
    teacher_ckpt: str | None = None,
    expected: float | None = None,
    tolerance: float = 1.0,
    work_dir: str | None = None,
    cfg_options: Sequence[str] | None = None,
) -> int:
    """Evaluate the teacher of a distillation and compare its score.

    Args:
        config (str): Path of a config, or its name.
        teacher_ckpt (str, optional): The teacher's weights.
        expected (float, optional): Score in percent that the teacher is known to have.
        tolerance (float): Percentage points that the score may be lower.
        work_dir (str, optional): Folder for the log.
        cfg_options (Sequence[str], optional): Overrides of the config.

    Returns:
        int: 0 if the score fits or there is none to compare with, else 3, also where
        scores are listed and the evaluator gives none of them, and where one is
        expected of a teacher of other classes.

    Raises:
        FileNotFoundError: If there is no such config; near names are listed.
        OSError: If the work dir cannot be written.
        ValueError: If the config describes no distillation, has no validation set or
            a number of its loader that cannot be, or the teacher no weights, and for a
            score that is no percentage. The message names the config.
    """
    _check_numbers(expected, tolerance)
    with open_distillation(config, teacher_ckpt, cfg_options) as cfg:
        _require_validation(cfg)
        check_loaders(cfg, 'val_dataloader')
        if osp.isdir(config):
            refuse_written_files(cfg.val_evaluator, cfg.get('default_scope'))
        # Not that of the training, whose logs it would mix with. The config of a work
        # dir has no name.
        own = osp.join('./work_dirs', f'{Path(cfg.filename or config).stem}_teacher')
        merge_launch_options(cfg, work_dir=work_dir or own)
        check_work_dir(cfg)
        published = None if expected is not None else published_scores(cfg)
        progress('building teacher and validation set')
        runner = build_runner(evaluation_config(cfg), TEACHER)
        return score_teacher(runner, expected, published, tolerance)


def _check_numbers(expected: float | None, tolerance: float) -> None:
    """Raise for a score that any teacher would reach, or none."""
    if expected is not None and not (expected == 0 or 1 < expected <= 100):
        raise ValueError(
            f'--expected {expected:g}: the score is in percent, above 1 and up to 100; '
            'give 41.2 for an average precision of 0.412.'
        )
    if not 0 <= tolerance <= 100:
        raise ValueError(
            f'--tolerance {tolerance:g}: expected percentage points, from 0 to 100.'
        )


def _require_validation(cfg: Config) -> None:
    advice = (
        'so there is nothing to score the teacher on; add a validation set, as `mmfakd '
        'configs show r18w4_1xb50_digits` has one.'
    )
    check_parts(cfg, ('val_dataloader', 'val_evaluator', 'val_cfg'), advice, 'it')


def score_teacher(
    runner: Runner,
    expected: float | None,
    published: Published | None,
    tolerance: float,
) -> int:
    """Evaluate the teacher and print what comes out.

    Args:
        runner (Runner): Of :func:`~mmfakd.analysis.distillation.evaluation_config`.
        expected (float, optional): Score in percent that the teacher is known to have.
        published (Published, optional): What a metafile lists.
        tolerance (float): Percentage points that a score may be lower.

    Returns:
        int: The exit status.

    Raises:
        ValueError: If the evaluator asks for what the teacher does not predict.
    """
    model = runner.model
    model.init_weights()
    dataset = runner.val_loop.dataloader.dataset
    classes = dataset_meta(dataset).get('classes')
    counts = predicted_counts(model.teacher)
    of_set = (len(classes),) if classes else predicted_counts(model.architecture)
    if counts and of_set and not set(counts) & set(of_set):
        print(_other_classes(counts[0], of_set[0]))
        if expected is None:
            return 0
        print(f'--expected {expected:g}: NOTHING WAS COMPARED.')
        return DOES_NOT_FIT
    _leave_out_masks(runner)
    runner.register_hook(ProgressHook())
    metrics = _evaluate(runner)
    if not metrics:
        # mmdet's evaluators give nothing where no box was predicted.
        print('\nThe teacher predicts nothing at all on the validation set.')
        print(_possible_causes(model, classes))
        return DOES_NOT_FIT
    if expected is not None:
        published = _expected_score(metrics, expected)
    lines, differences = _compare(metrics, published)
    print(
        f'\nTeacher {type(model.teacher).__name__} with {(*counts, "unknown")[0]} '
        f'classes, weights {model.teacher_ckpt or "of its config"}, on '
        f'{type(dataset).__name__} ({len(dataset):,} images):'
    )
    print('\n'.join(f'  {line}' for line in lines))
    renamed = renamed_classes(model.teacher_ckpt, classes)
    if renamed:
        print(
            f'WARNING: {renamed}. If its classes stand in another order, it teaches '
            'wrong predictions: give the data set the order of its checkpoint.'
        )
    if published is None:
        print('No metafile lists its score; --expected takes one.')
        return 0
    if not differences:
        print(_nothing_compared(metrics, published))
        return DOES_NOT_FIT
    about = f' on {published.dataset}' if published.dataset else ''
    print(
        f'Expected according to {published.source}{about}; up to {tolerance:g} points '
        'less are fine.'
    )
    if all(difference >= -tolerance for difference in differences):
        return 0
    print(_possible_causes(model, classes))
    return DOES_NOT_FIT


def _evaluate(runner: Runner) -> dict[str, float]:
    """Validate, and say so if the evaluator is one of other predictions."""
    try:
        return runner.val()
    except KeyError as error:
        wanted = str(error.args[0])
        if not wanted.startswith('pred_'):
            raise
        kinds = [type(metric).__name__ for metric in runner.val_loop.evaluator.metrics]
        raise ValueError(
            f'its evaluator ({", ".join(kinds)}) asks for {wanted!r}, which its '
            f'teacher, a {type(runner.model.teacher).__name__}, does not predict. '
            'Choose a `val_evaluator` of what it predicts, such as CocoPanopticMetric '
            'for panoptic maps.'
        ) from error


def _other_classes(of_teacher: int, count: int) -> str:
    """What to say of a teacher of other classes than those of the images."""
    return (
        f'\nThe teacher predicts {of_teacher} classes, the validation set has {count}: '
        'its score cannot be computed here. Feature distillation goes on all the same, '
        'as features have no classes; losses that compare predictions (KD, DKD) cannot '
        f'be used with this pair. See {documentation("own_data.md")}.'
    )


def _leave_out_masks(runner: Runner) -> None:
    """Score a detector without masks on its boxes alone, where both are asked for."""
    asked = [getattr(m, 'metrics', None) for m in runner.val_loop.evaluator.metrics]
    both = [a for a in asked if isinstance(a, list) and 'segm' in a and len(a) > 1]
    if not both or _predicts_masks(runner):
        return
    for kinds in both:
        kinds.remove('segm')
    print('\nThe teacher predicts no masks: its boxes are scored.')


@torch.no_grad()
def _predicts_masks(runner: Runner) -> bool:
    """Whether a detector's predictions have masks, as those of one batch tell."""
    # Heads that predict boxes and masks at once, as RTMDet-Ins', say False.
    if getattr(runner.model.teacher, 'with_mask', True):
        return True
    runner.model.eval()
    batch = next(iter(runner.val_loop.dataloader), None)
    samples = [] if batch is None else runner.model.val_step(batch)
    found = [s.pred_instances for s in samples if 'pred_instances' in s]
    return not found or any('masks' in instances for instances in found)


def _expected_score(metrics: Mapping[str, float], score: float) -> Published:
    """Take a score from the command line for that of the main metric."""
    measured = {name.rpartition('/')[2] for name in metrics}
    for name, (key, _) in METRICS.items():
        if key.rpartition('/')[2] in measured:
            return Published('--expected', '', {name: score})
    raise ValueError(
        f'--expected: the evaluator gives {", ".join(metrics)}; none of these is one '
        f'of {", ".join(key for key, _ in METRICS.values())}.'
    )


def _nothing_compared(metrics: Mapping[str, float], published: Published) -> str:
    """What to say where the scores that are listed are not those that are measured."""
    listed = ', '.join(published.scores)
    keys = ' or '.join(METRICS[name][0] for name in published.scores)
    return (
        f'The evaluator gives {", ".join(metrics)}; {published.source} lists {listed}: '
        'NOTHING WAS COMPARED. Give the score that the teacher should have here with '
        f'--expected, or let `val_evaluator` measure {keys}.'
    )


def _compare(
    metrics: Mapping[str, float], published: Published | None
) -> tuple[list[str], list[float]]:
    """A line for each metric, and the differences of those that are known."""
    known = {}
    for name, score in (published.scores if published else {}).items():
        key, factor = METRICS[name]
        known[key.rpartition('/')[2]] = (score, factor)
    lines, differences = [], []
    for name, value in metrics.items():
        line = f'{name}: {value:.4g}'
        if name.rpartition('/')[2] in known:
            score, factor = known[name.rpartition('/')[2]]
            difference = factor * value - score
            line = f'{name}: {factor * value:.2f} %, expected {score:.2f} %'
            line += f' ({difference:+.2f})'
            differences.append(difference)
        lines.append(line)
    return lines, differences


def _possible_causes(model: TeacherEvaluation, classes: Sequence[str] | None) -> str:
    """Where to look when a teacher is worse than it should be."""
    renamed = renamed_classes(model.teacher_ckpt, classes)
    data = f'{renamed}.' if renamed else 'is it what the expected score is of?'
    as_it_is = model.teacher_input.is_identity
    change = 'as it is' if as_it_is else f'through {model.teacher_input}'
    return (
        f'\n{"!" * 20} THE TEACHER IS WORSE THAN IT SHOULD BE {"!" * 20}\n'
        'A student learns what this teacher knows. Look for the cause before '
        'training:\n'
        '- the weights: are they those of this teacher, trained to the end?\n'
        f"- the input: the teacher gets the student's batch {change}; mean, std "
        'and order of channels must be as it was trained. `teacher_preprocessor` '
        'states them where its config does not.\n'
        '- the pipeline: size and crop of the images are those of this config, not of '
        "the teacher's own.\n"
        f'- the validation set: {data}'
    )
