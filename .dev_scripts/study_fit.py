# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""Add to a comparison how well each connector fits, and draw gain over fit.

    python .dev_scripts/study_fit.py docs/en/results/logs/bccd_capacity.json \
        --plot docs/en/figures/bccd_capacity.png

The log is what `mmfakd compare --json` wrote, the work dirs that it names are there. To
each of its runs this adds, level by level,

    fit     mean squared error of the predicted teacher map on the validation images,
            over the variance of the teacher's map within its channels: 1 is no better
            than each channel's mean
    pull    norm of the level's gradient on the student over that of the student's own
            loss, at the first step

Runs that have them already, and runs without a teacher, are left as they are.
"""

from __future__ import annotations

import argparse
import json
import statistics
from pathlib import Path
from typing import Any

from comparison_table import SCORES, scores_by_seed
from matplotlib import colormaps
from matplotlib.figure import Figure
from mmengine.config import Config
from mmengine.runner import find_latest_checkpoint

from mmfakd.analysis.trained_levels import look_at_levels
from mmfakd.checkpoints.atomic import whole_file
from mmfakd.engine.hooks.first_step_hook import FILE
from mmfakd.pictures.level_maps import LevelMaps

# Validation batches that are looked at, at most.
_BATCHES = 8


def unexplained(level: LevelMaps) -> float:
    r"""Measure what a prediction leaves unexplained of the teacher's map.

    .. math::
        \frac{\overline{(\hat T - T)^2}}{\overline{\mathrm{var}_c(T)}}

    with the variance over images and pixels within a channel.

    Args:
        level (LevelMaps): Prediction and teacher (N, C, H, W).

    Returns:
        float: 0 for a perfect prediction, 1 for that of each channel's mean.
    """
    error = (level.prediction - level.teacher).square().mean()
    variance = level.teacher.transpose(0, 1).flatten(1).var(1, correction=0).mean()
    return float(error / variance)


def measure(run: dict[str, Any]) -> None:
    """Add to a run how well its levels fit and how they pull.

    Args:
        run (dict): One of the log.
    """
    folder = Path(run['work_dir'])
    report = folder / FILE
    if 'fit' in run or not report.exists():
        return
    levels = json.loads(report.read_text())['levels']
    run['pull'] = [level['ratio'] for level in levels]
    [config] = folder.glob('*.py')
    checkpoint = find_latest_checkpoint(str(folder))
    looked = look_at_levels(Config.fromfile(config), checkpoint, _BATCHES)
    run['fit'] = [unexplained(level) for level in looked.after if level.comparable]
    print(run['work_dir'], *(f'{fit:.3f}' for fit in run['fit']), flush=True)


def median_fit(method: dict[str, Any]) -> float | None:
    """Summarise what a method leaves unexplained: the median level, mean of the seeds.

    The deepest level of a pyramid, of a dozen pixels and a small weight, may be
    predicted worse than by its mean, and would outweigh all others in an average.

    Args:
        method (dict): One of the log.

    Returns:
        float | None: It; None where nothing was measured.
    """
    fits = [statistics.median(run['fit']) for run in method['runs'] if run.get('fit')]
    return statistics.fmean(fits) if fits else None


def draw(log: dict[str, Any]) -> Figure:
    """Draw the gain of each method over what it leaves unexplained.

    Args:
        log (dict): What :func:`measure` has added to.

    Returns:
        Figure: A point for each method, with the standard error of its gain.
    """
    score, _, _ = SCORES[log['metric']]
    alone, *methods = log['methods']
    before = scores_by_seed(log, alone)
    figure = Figure(figsize=(8.5, 4.5), layout='constrained')
    axis = figure.subplots()
    points = []
    for method in methods:
        fit, scores = median_fit(method), scores_by_seed(log, method)
        gains = [scores[seed] - before[seed] for seed in scores if seed in before]
        if fit is None or not gains:
            continue
        error = statistics.stdev(gains) / len(gains) ** 0.5 if len(gains) > 1 else 0
        points.append((statistics.fmean(gains), error, fit, method['method']))
    # "Form, transform": a marker for the one, a colour for the other.
    forms, transforms = (
        list(dict.fromkeys(name.split(', ', 1)[part] for *_, name in points))
        for part in (0, -1)
    )
    for gain, error, fit, name in sorted(points, reverse=True):
        marker = 'osD^v'[forms.index(name.split(', ')[0]) % 5]
        color = colormaps['tab20'](transforms.index(name.split(', ', 1)[-1]) % 20)
        axis.errorbar(
            fit,
            gain,
            error,
            label=name,
            fmt=marker,
            color=color,
            markersize=6,
            capsize=3,
            elinewidth=0.8,
        )
    figure.legend(loc='outside right upper', frameon=False, fontsize=8)
    axis.axhline(0, color='0.7', linewidth=0.8)
    # Most lie close together; an error that ignores the scale leaves more than all.
    axis.set_xscale('log')
    axis.xaxis.set_major_formatter('{x:g}')
    axis.xaxis.set_minor_formatter('{x:g}')
    axis.set_xlabel(
        "unexplained part of the teacher's maps (median level, validation images)"
    )
    axis.set_ylabel(f'{score}: gain over the student alone')
    axis.spines[['top', 'right']].set_visible(False)
    return figure


def main() -> None:
    """Measure what has not been measured, and draw."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('log', type=Path)
    parser.add_argument('--plot', type=Path, help='the figure')
    args = parser.parse_args()
    log = json.loads(args.log.read_text())
    for method in log['methods']:
        for run in method['runs']:
            measure(run)
            with whole_file(args.log) as part:
                Path(part).write_text(json.dumps(log, indent=1) + '\n')
    if args.plot:
        draw(log).savefig(args.plot, dpi=150)


if __name__ == '__main__':
    main()
