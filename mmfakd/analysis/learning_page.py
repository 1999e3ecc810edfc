# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""What a training has taught, as one page with captions."""

from __future__ import annotations

import math
import os.path as osp
import shlex
from collections.abc import Iterator, Sequence

from mmfakd.checkpoints.atomic import whole_file
from mmfakd.checkpoints.latest import find_checkpoint
from mmfakd.model_zoo.outputs import check_outputs
from mmfakd.models.algorithms.judge_balance import STRONGEST, WEAKEST
from mmfakd.pictures import figures
from mmfakd.pictures.html_page import Section, html_page
from mmfakd.pictures.level_maps import LevelMaps
from mmfakd.pictures.picture_file import check_picture_name
from mmfakd.pictures.spectra import BANDS

from .distillation import open_distillation
from .learning_courses import Courses, read_courses, read_first_step
from .read_run import read_run
from .spectra import plot_spectra
from .trained_levels import TrainedLevels, beginning, look_at_levels

_DRAWN = ('.html', '.htm', '.png', '.pdf', '.svg', '.jpg')
NO_HOOK = (
    'Only the first step was recorded. With LearningPicturesHook in the config the '
    'whole training is: default_hooks = dict(pictures=dict('
    "type='mmfakd.LearningPicturesHook', interval=500))."
)
CAPTIONS = dict(
    lead=(
        'A small student learns to predict what a large teacher computes within. The '
        'two are compared at several levels, from shallow (fine, much of the image) to '
        'deep (coarse, much of the meaning). This page shows, level by level, what is '
        'compared and how close they have come.'
    ),
    gradients=(
        'How strongly the teacher pulls: the gradient of each level on the student '
        "over that of the student's own loss, at full weight. At 1 both move the "
        f'student equally. Below {WEAKEST:g} the teacher is hardly heard; above '
        f'{STRONGEST:g} the own task may drown. The weights of the losses change it '
        '(loss_weight).'
    ),
    filters=(
        'What each level has learned to let pass. Above: the magnitude of the filter '
        'of each frequency, with the mean of the map in the middle, coarse structures '
        'around it and fine ones outside. Below: the same along the radius. Bright or '
        'high means that this frequency of the student is used to predict the teacher. '
        'Blank are frequencies that the map is too small to have. '
        'A filter that is flat everywhere, or zero, has learned nothing about '
        'frequencies.'
    ),
    spectra=(
        'How much of each frequency the features hold, the mean on the left, fine '
        'structures on the right. The prediction (dashed) should lie on the teacher '
        '(black); where it lies below, the student misses that detail. The student '
        '(dotted) has channels and a scale of its own, so its shape counts, not its '
        'height.'
    ),
    gaps=(
        'The distance between prediction and teacher, in three bands: low (structures '
        'of 6 pixels of the map and more), middle, and high (finer than 3). 0 is '
        'perfect; 1 is what predicting nothing would score. It should have fallen in '
        'training; where it has not, this level, or this band of it, was not learned.'
    ),
    gap_courses=(
        'The same gap in the course of the training. A line that is still falling at '
        'the end asks for a longer schedule; one that never falls for a larger weight '
        'of its level, a faster learning rate of the connectors, or another layer.'
    ),
    filter_courses=(
        'The magnitude of the filters in the course of the training, by band. A filter '
        'that does not move from its beginning is not trained.'
    ),
    attention=(
        'Where on the image a feature is large: bright is much. The prediction should '
        'look like the teacher below it. The student may look elsewhere, as long as '
        'what is predicted of it does not.'
    ),
)


def plot(
    config: str,
    checkpoint: str | None = None,
    out: str | None = None,
    teacher_ckpt: str | None = None,
    batches: int = 1,
    trust: bool = False,
) -> str:
    """Draw what a distillation has learned: a picture, or of a work dir a page.

    Args:
        config (str): Path of a distillation's config, or its name; or a work dir.
        checkpoint (str, optional): Checkpoint of that run. Defaults to the newest of
            the work dir.
        out (str, optional): Picture or page to write. Defaults to ``learning.html`` in
            the work dir.
        teacher_ckpt (str, optional): The teacher's weights.
        batches (int): Validation batches.
        trust (bool): Whether the work dir is one's own, so that its config may import
            modules and name any class. Defaults to False.

    Returns:
        str: What was drawn.

    Raises:
        FileNotFoundError: If there is no such config, or no checkpoint in the work dir.
        OSError: If it cannot be written.
        ValueError: If checkpoint or picture of a config are not given, one stands for
            the other, or there is nothing to draw.
    """
    if out is None and str(checkpoint).lower().endswith(_DRAWN):
        raise ValueError(
            f'{checkpoint} stands where a checkpoint is expected; the file to write is '
            f'given as -o {checkpoint}.'
        )
    if osp.isdir(config):
        out = out or osp.join(config, 'learning.html')
        return plot_work_dir(config, out, checkpoint, teacher_ckpt, batches, trust)
    if checkpoint is None or out is None:
        raise ValueError(
            f'{config} is no work dir, so that a checkpoint and -o PICTURE are needed: '
            '`mmfakd plot CONFIG CHECKPOINT -o picture.png`, or `mmfakd plot WORK_DIR`.'
        )
    check_picture_name(out)
    return plot_spectra(config, checkpoint, out, teacher_ckpt, batches)


def plot_work_dir(
    work_dir: str,
    out: str,
    checkpoint: str | None = None,
    teacher_ckpt: str | None = None,
    batches: int = 1,
    trust: bool = False,
) -> str:
    """Write what a training has taught as one HTML page.

    Args:
        work_dir (str): Its work dir.
        out (str): The page, ``.html``.
        checkpoint (str, optional): Defaults to the newest of the work dir.
        teacher_ckpt (str, optional): The teacher's weights. Defaults to those of its
            config.
        batches (int): Validation batches.
        trust (bool): Whether the work dir is one's own.

    Returns:
        str: What was written.

    Raises:
        FileNotFoundError: If there is no checkpoint.
        OSError: If the page cannot be written.
        ValueError: If the page has another ending, or the training was no distillation.
    """
    if osp.splitext(out)[1].lower() not in ('.html', '.htm'):
        raise ValueError(f'-o {out}: a work dir is drawn as one page; name it *.html.')
    checkpoint = checkpoint or _newest(work_dir)
    check_outputs(True, [out], [checkpoint])
    with open_distillation(work_dir, teacher_ckpt, trust=trust) as cfg:
        run = read_run(work_dir)
        seen = look_at_levels(cfg, checkpoint, batches, beginning(run))
    sections = list(learning_sections(work_dir, seen))
    names = [type(m).__name__ for m in (seen.model.architecture, seen.model.teacher)]
    scores = [f'{key} {run.last(key):.4g}' for key in sorted(run.scores)]
    facts = (
        f'Student: {names[0]}. Teacher: {names[1]}. Levels: {len(seen.after)}. '
        f'Checkpoint: {checkpoint}. Images: {len(seen.after[0].teacher)} of the '
        'validation set.' + f' Last validation: {", ".join(scores)}.' * bool(scores)
        if seen.after
        else f'Student: {names[0]}. Teacher: {names[1]}. No level compares features.'
    )
    lead = '\n\n'.join(filter(None, (facts, seen.note, CAPTIONS['lead'])))
    with whole_file(out) as part, open(part, 'w', encoding='utf-8') as file:
        file.write(html_page(f'What {run.name} has learned', lead, sections))
    drawn = sum(section.figure is not None for section in sections)
    return f'{out}: {drawn} figures of {len(seen.after)} levels.\n{seen.note}'.strip()


def learning_sections(work_dir: str, seen: TrainedLevels) -> Iterator[Section]:
    """Draw the parts of the page.

    Args:
        work_dir (str): The work dir of a training.
        seen (TrainedLevels): What is seen of it now.

    Yields:
        Section: One after the other; what was not recorded, or is not there, is told.
    """
    courses = read_courses(work_dir)
    yield _gradients(courses, read_first_step(work_dir))
    levels, before = seen.maps()
    filters = [level for level in levels if level.filter is not None]
    if filters:
        figure = figures.draw_filters(filters)
        yield Section('Filters', CAPTIONS['filters'], figure)
    else:
        yield Section('Filters', 'No level has a FrequencyAttention on maps.')
    if levels:
        figure = figures.draw_spectra(levels, before)
        yield Section('Spectra', CAPTIONS['spectra'], figure)
    comparable = [level for level in levels if level.comparable]
    if comparable:
        figure = figures.draw_gaps(comparable, before)
        rows = list(_gap_rows(comparable, before))
        yield Section('Gap by band', CAPTIONS['gaps'], figure, rows)
    for title, what, scale in (
        ('Gap in the course of training', 'gap', 'linear'),
        ('Filters in the course of training', 'filter', 'log'),
    ):
        drawn = _by_band(courses, what)
        if drawn:
            figure = figures.draw_courses(drawn, scale)
            yield Section(title, CAPTIONS[f'{what}_courses'], figure)
    if levels:
        figure = figures.draw_attention(seen.inputs, levels)
        yield Section('Attention', CAPTIONS['attention'], figure)


def _gradients(courses: Courses, first_step: dict) -> Section:
    title = 'Ratio of gradients'
    ratios = {
        name.replace('loss_', ''): measured['ratio']
        for name, measured in courses.items()
        if measured.get('ratio')
    }
    if ratios:
        figure = figures.draw_courses({title: ratios})
        return Section(title, CAPTIONS['gradients'], figure)
    rows = [
        [row['name'], f'{row["ratio"]:.3g}']
        for row in first_step.get('levels', ())
        if row['ratio'] is not None
    ]
    if rows:
        caption = f'{CAPTIONS["gradients"]}\n\n{NO_HOOK}'
        return Section(title, caption, rows=[['loss', 'at the first step'], *rows])
    return Section(title, NO_HOOK.replace('Only the first step was', 'Nothing was'))


def _by_band(courses: Courses, what: str) -> dict[str, dict[str, dict[int, float]]]:
    """Title of a panel -> band -> its course, of levels that were measured."""
    found = {
        name.replace('loss_', ''): {
            band: measured[f'{what}_{band}']
            for band in BANDS
            if f'{what}_{band}' in measured
        }
        for name, measured in courses.items()
    }
    return {name: bands for name, bands in found.items() if bands}


def _gap_rows(
    levels: Sequence[LevelMaps], before: Sequence[LevelMaps]
) -> Iterator[list[str]]:
    times = ('before', 'after') if before else ('after',)
    yield ['gap', *(f'{band}, {time}' for band in BANDS for time in times)]
    earlier = {level.name: level.gaps() for level in before}
    for level in levels:
        gaps = dict(before=earlier.get(level.name, {}), after=level.gaps())
        numbers = [gaps[time].get(band, math.nan) for band in BANDS for time in times]
        yield [level.title, *('-' if math.isnan(x) else f'{x:.3f}' for x in numbers)]


def _newest(work_dir: str) -> str:
    found = find_checkpoint(work_dir)
    if found.path is None:
        skipped = ''.join(f' Passed over: {why}' for why in found.skipped)
        raise FileNotFoundError(
            f'{work_dir}: no checkpoint of a training in it; give one, `mmfakd plot '
            f'{shlex.quote(work_dir)} CHECKPOINT`.{skipped}'
        )
    return found.path
