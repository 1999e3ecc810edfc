# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""Trainings side by side: runs of one method differ in their seed."""

from __future__ import annotations

import glob
import math
import os.path as osp
import re
import statistics
from collections.abc import Iterable, Sequence
from pathlib import Path

import mmengine
from mmengine.config import Config
from mmengine.logging import MMLogger

from mmfakd.messages import markdown

from .curves import save_curves
from .read_run import Run, count_parameters, read_run

METRICS = ('accuracy/top1', 'coco/bbox_mAP')
# What runs of one method may differ in.
FREE_KEYS = (
    'experiment_name',
    'launcher',
    'load_from',
    'randomness',
    'resume',
    'work_dir',
)


class Notes:
    """What a reader of a comparison has to know, each thing said once.

    Equal remarks on several runs become one line that names them all.
    """

    def __init__(self) -> None:
        self._subjects: dict[str, list[str]] = {}

    def add(self, subject: str, remark: str) -> None:
        """Add a remark.

        Args:
            subject (str): The run or method.
            remark (str): What is to be said about it.
        """
        subjects = self._subjects.setdefault(remark, [])
        if subject not in subjects:
            subjects.append(subject)

    def lines(self) -> list[str]:
        """Give the notes as lines of text.

        Returns:
            list[str]: One sentence each.
        """
        return [f'{", ".join(who)}: {what}.' for what, who in self._subjects.items()]


def compare(
    methods: dict[str, list[Run]],
    metric: str | None = None,
    baseline: str | None = None,
    teacher: Run | None = None,
    notes: Sequence[str] = (),
) -> dict:
    """Compare methods.

    A method's figures are those of its runs that got as far as its longest. Whatever
    is left out, unfinished, of unequal length or unpaired is said in the notes.

    Args:
        methods (dict[str, list[Run]]): Method -> its runs.
        metric (str, optional): The score, higher is better. Defaults to the one of
            ``METRICS`` that the logs hold.
        baseline (str, optional): The method that the others are compared with.
            Defaults to the first.
        teacher (Run, optional): The teacher's run, listed but not compared.
        notes (Sequence[str]): Notes that go before those of the comparison.

    Returns:
        dict: What ``--json`` writes: ``metric``, ``baseline``, ``teacher`` and
        ``methods`` (each with its means and all its runs with their curves), ``notes``.

    Raises:
        ValueError: If there is no such method, no such score, a choice of scores, or
            a method whose runs count epochs and iterations.
    """
    baseline = next(iter(methods)) if baseline is None else baseline
    if baseline not in methods:
        raise ValueError(f'baseline {baseline!r}: expected one of {list(methods)}.')
    everything = [run for runs in methods.values() for run in runs]
    everything += [teacher] if teacher is not None else []
    metric = _choose_metric(everything, metric)
    remarks = Notes()
    summaries = {
        name: _summarize(name, runs, metric, remarks) for name, runs in methods.items()
    }
    for name in methods:
        if name != baseline:
            summaries[name]['difference'] = _difference(
                summaries[name], summaries[baseline], remarks
            )
    counted = [summary for summary in summaries.values() if summary['runs']]
    _note_inequality(counted, remarks)
    return dict(
        metric=metric,
        baseline=baseline,
        methods=list(summaries.values()),
        teacher=_summarize('teacher', [teacher], metric, remarks) if teacher else None,
        notes=[*notes, *remarks.lines()],
    )


def format_table(comparison: dict) -> str:
    """Format a comparison as a Markdown table with its notes below.

    Args:
        comparison (dict): What :func:`compare` returns.

    Returns:
        str: The table.
    """
    metric, baseline = comparison['metric'], comparison['baseline']
    rows = [comparison['teacher']] if comparison['teacher'] else []
    rows += comparison['methods']
    scores = [run['best'] for row in rows for run in row['runs']]
    # Percent, or a fraction of one.
    digits = 2 if max(scores) > 1 else 4
    header = ['method', 'seeds', f'last {metric}', 'best', f'minus {baseline}']
    header += ['train time', 'per step', 'loading data', 'parameters']
    header += ['added in training']
    table = [header]
    for row in rows:
        cells = [row['method'], _seeds(row['runs'])]
        cells += [_spread(row[key], digits) for key in ('last', 'best')]
        difference = row['difference']
        if difference is None:
            cells.append('')
        else:
            cells.append(f'{difference["mean"]:+.{digits}f}')
            if difference['standard_error'] is not None:
                cells[-1] += f' ± {difference["standard_error"]:.{digits}f}'
        cells += [_duration(row['seconds']), _duration(row['step_seconds'])]
        share = row['data_share']
        cells.append('' if share is None else f'{share:.0%}')
        for key in ('parameters', 'added'):
            cells.append('' if row[key] is None else f'{row[key]:,}')
        table.append(cells)
    lines = [
        *markdown(table),
        '',
        'Scores: mean over the seeds (sample standard deviation). Differences: of the '
        'last scores, mean of the pairs ± its standard error. Times: of training '
        'iterations alone, from the logs.',
    ]
    if comparison['notes']:
        lines += ['', 'Notes:', '', *(f'- {note}' for note in comparison['notes'])]
    return '\n'.join(lines)


def _choose_metric(runs: Iterable[Run], metric: str | None) -> str:
    logged = sorted({name for run in runs for name in run.scores})
    if metric is None:
        found = [name for name in METRICS if name in logged]
        if len(found) != 1:
            raise ValueError(
                f'{" and ".join(found) if found else "none of " + ", ".join(METRICS)} '
                f'in the logs, which hold {logged or "no validation"}; choose with '
                '--metric.'
            )
        return found[0]
    if metric not in logged:
        raise ValueError(
            f'metric {metric!r}: the logs hold {logged or "no validation"}.'
        )
    return metric


def _summarize(method: str, runs: list[Run], metric: str, notes: Notes) -> dict:
    """Average the runs of a method that are of the same length, and note the rest."""
    label = {id(run): _label(method, run) for run in runs}
    for run in runs:
        for remark in run.remarks:
            notes.add(label[id(run)], remark)
        if metric not in run.scores:
            has = ', '.join(sorted(run.scores)) or 'no validation'
            notes.add(label[id(run)], f'no {metric} in its logs ({has}), left out')
    scored = [run for run in runs if metric in run.scores]
    if len({run.unit for run in scored}) > 1:
        raise ValueError(
            f'{method}: some of its runs count epochs and others iterations; give them '
            'names of their own.'
        )
    ends = {id(run): max(run.scores[metric]) for run in scored}
    longest = max(ends.values(), default=0)
    counted = [run for run in scored if ends[id(run)] == longest]
    for run in scored:
        end = ends[id(run)]
        remark = f'its last {metric} is that of {run.unit} {end}'
        if run.length is not None and end < run.length:
            remark += f', {run.length} were asked for'
        elif end == longest:
            continue
        if end < longest:
            remark += f'; left out, as the longest run of this method has {longest}'
        notes.add(label[id(run)], remark)
    for run in counted[1:]:
        differing = _differing(counted[0].config, run.config)
        if differing:
            notes.add(
                label[id(run)],
                f'its config differs from that of {label[id(counted[0])]} in '
                f'{", ".join(differing)}',
            )
    parameters = added = None
    if counted:
        try:
            parameters, added = count_parameters(counted[0].config)
        # Whatever a model that cannot be built here raises; the rest is still true.
        except Exception as error:
            reason = ' '.join(str(error).split())[:200]
            notes.add(
                method,
                'parameters unknown, building the model failed with '
                f'{type(error).__name__}: {reason}',
            )
    details = [_details(run, metric) for run in counted]
    return dict(
        method=method,
        unit=counted[0].unit if counted else None,
        last=_statistics([run['last'] for run in details]),
        best=_statistics([run['best'] for run in details]),
        difference=None,
        seconds=_mean([run.seconds for run in counted]),
        step_seconds=_mean([run.step_seconds for run in counted]),
        data_share=_mean([run.data_share for run in counted]),
        parameters=parameters,
        added=added,
        runs=details,
    )


def _details(run: Run, metric: str) -> dict:
    curve = run.scores[metric]
    return dict(
        work_dir=run.work_dir,
        seed=run.seed,
        last=run.last(metric),
        best=max(curve.values()),
        seconds=run.seconds,
        step_seconds=run.step_seconds,
        data_share=run.data_share,
        curve=sorted(curve.items()),
        losses=sorted(run.losses.items()),
    )


def _difference(method: dict, baseline: dict, notes: Notes) -> dict | None:
    """Differences of the last scores: by seed, or in the order given."""
    mine, base = method['runs'], baseline['runs']
    if not mine or not base:
        return None
    name, other = method['method'], baseline['method']
    seeds = [[run['seed'] for run in runs] for runs in (mine, base)]
    reason = None
    if any(None in known for known in seeds):
        reason = 'not all seeds are known'
    elif any(len(set(known)) < len(known) for known in seeds):
        reason = 'a seed is there twice'
    elif not set(seeds[0]) & set(seeds[1]):
        reason = 'they have no seed in common'
    if reason is not None:
        pairs = list(zip(mine, base))
        notes.add(f'{name} and {other}', f'paired in the order given, as {reason}')
    else:
        by_seed = {run['seed']: run for run in base}
        pairs = [(run, by_seed[run['seed']]) for run in mine if run['seed'] in by_seed]
    if len(pairs) < max(len(mine), len(base)):
        notes.add(
            f'{name} and {other}',
            f'{len(mine)} and {len(base)} runs, the difference is that of '
            f'{len(pairs)} pair{"s" if len(pairs) > 1 else ""}',
        )
    values = [run['last'] - partner['last'] for run, partner in pairs]
    error = statistics.stdev(values) / math.sqrt(len(values)) if values[1:] else None
    return dict(
        mean=statistics.fmean(values),
        standard_error=error,
        pairs=[(run['work_dir'], partner['work_dir']) for run, partner in pairs],
    )


def _note_inequality(methods: list[dict], notes: Notes) -> None:
    ends: dict[str, list[str]] = {}
    counts: dict[str, list[str]] = {}
    for method in methods:
        curve = method['runs'][0]['curve']
        ends.setdefault(f'{method["unit"]} {curve[-1][0]}', []).append(method['method'])
        counts.setdefault(str(len(curve)), []).append(method['method'])
    if len(ends) > 1:
        parts = [f'{", ".join(names)} at {end}' for end, names in ends.items()]
        notes.add('Runs of unequal length', f'they end, {"; ".join(parts)}')
    if len(counts) > 1:
        parts = [f'{", ".join(names)} {count}' for count, names in counts.items()]
        notes.add(
            'Unequal numbers of validations',
            f'{"; ".join(parts)}; `best` is a maximum over them',
        )


def _differing(one: Config, other: Config) -> list[str]:
    """Keys in which two configs differ, apart from those that runs may differ in."""
    flat = [dict(_flatten(cfg.to_dict())) for cfg in (one, other)]
    keys = [key for key in {**flat[0], **flat[1]} if key.split('.')[0] not in FREE_KEYS]
    missing = object()
    differing = [k for k in keys if flat[0].get(k, missing) != flat[1].get(k, missing)]
    return differing[:5] + ['...'] * (len(differing) > 5)


def _flatten(tree: dict, prefix: str = '') -> Iterable[tuple[str, object]]:
    for key, value in tree.items():
        if isinstance(value, dict) and value:
            yield from _flatten(value, f'{prefix}{key}.')
        else:
            yield f'{prefix}{key}', value


def _label(method: str, run: Run) -> str:
    seed = '' if run.seed is None else f' seed {run.seed}'
    return f'{method}{seed} ({run.work_dir})'


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return statistics.fmean(known) if known and len(known) == len(values) else None


def _statistics(values: list[float]) -> dict:
    spread = statistics.stdev(values) if len(values) > 1 else None
    return dict(mean=_mean(values), spread=spread)


def _seeds(runs: list[dict]) -> str:
    """Seeds, runs of three and more of them as a range."""
    known = sorted(run['seed'] for run in runs if run['seed'] is not None)
    ranges: list[list[int]] = []
    for seed in known:
        if ranges and seed == ranges[-1][-1] + 1:
            ranges[-1].append(seed)
        else:
            ranges.append([seed])
    parts: list[str] = []
    for found in ranges:
        if len(found) > 2:
            parts.append(f'{found[0]}-{found[-1]}')
        else:
            parts += map(str, found)
    if len(known) < len(runs):
        parts.append(f'{len(runs) - len(known)} unknown')
    return ', '.join(parts) or 'none'


def _spread(value: dict, digits: int) -> str:
    if value['mean'] is None:
        return ''
    text = f'{value["mean"]:.{digits}f}'
    return text if value['spread'] is None else f'{text} ({value["spread"]:.{digits}f})'


def _duration(seconds: float | None) -> str:
    if seconds is None:
        return ''
    for size, name in ((3600, 'h'), (60, 'min')):
        if seconds >= 2 * size:
            return f'{seconds / size:.1f} {name}'
    return f'{seconds:.1f} s' if seconds >= 1 else f'{1000 * seconds:.3g} ms'


def _work_dirs(item: str) -> tuple[str | None, list[str]]:
    """Split ``NAME=DIR[,DIR...]``, with globs, into the name and the folders."""
    name: str | None = None
    if '=' in item and not glob.glob(item):
        name, _, item = item.partition('=')
    folders: list[str] = []
    for pattern in item.split(','):
        # An existing folder may have brackets in its name.
        found = [pattern] if osp.isdir(pattern) else glob.glob(pattern)
        found = sorted(filter(osp.isdir, found), key=_natural)
        if not found:
            raise ValueError(
                f'{pattern!r}: no such folder; expected NAME=DIR[,DIR...] or DIR, the '
                'work dirs of trainings.'
            )
        folders += found
    return name, folders


def _natural(path: str) -> list:
    """Order seed10 behind seed9."""
    return [int(p) if p.isdigit() else p for p in re.split(r'(\d+)', path)]


def compare_work_dirs(
    runs: Sequence[str],
    metric: str | None = None,
    baseline: str | None = None,
    teacher: str | None = None,
    out: Sequence[str] = (),
) -> str:
    """Compare work dirs, as the command line names them.

    Args:
        runs (Sequence[str]): ``'NAME=DIR[,DIR...]'``, or without a name, which groups
            runs by their config's.
        metric (str, optional): The score to compare.
        baseline (str, optional): The method that the others are compared with.
        teacher (str, optional): The teacher's work dir.
        out (Sequence[str]): Files to write: curves, figures (.json), the table (.md).

    Returns:
        str: The table.

    Raises:
        FileNotFoundError: If there is no log of the teacher.
        ValueError: If there is nothing to compare.
    """
    # Models are built only to be counted.
    MMLogger.get_instance('compare', log_level='WARNING')
    methods: dict[str, list[Run]] = {}
    seen: set[str] = set()
    notes: list[str] = []
    for item in runs:
        name, folders = _work_dirs(item)
        if name:
            methods.setdefault(name, [])
        for folder in folders:
            if osp.realpath(folder) in seen:
                raise ValueError(f'{folder}: given twice.')
            seen.add(osp.realpath(folder))
            try:
                run = read_run(folder)
            except FileNotFoundError as error:
                notes.append(f'Left out: {error}')
            else:
                methods.setdefault(name or run.name, []).append(run)
    if not any(methods.values()):
        raise ValueError('\n'.join(notes))
    of_teacher = read_run(teacher) if teacher else None
    comparison = compare(methods, metric, baseline, of_teacher, notes)
    table = format_table(comparison)
    for path in out:
        if path.endswith('.json'):
            mmengine.dump(comparison, path, indent=2)
        elif path.endswith('.md'):
            Path(path).write_text(f'{table}\n')
        else:
            save_curves(comparison, path)
    return table
