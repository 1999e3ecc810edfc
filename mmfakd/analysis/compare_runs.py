# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""Trainings side by side: runs of one method differ in their seed."""

from __future__ import annotations

import math
import statistics
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence

from mmfakd.messages import progress

from .config_digests import config_digests, differing_keys
from .count_parameters import count_parameters
from .notes import Notes
from .run import Run

METRICS = ('accuracy/top1', 'coco/bbox_mAP', 'mIoU')
# What runs of one method may differ in.
FREE_KEYS = {
    *('experiment_name', 'launcher', 'load_from', 'randomness', 'resume', 'work_dir')
}
TIMES = ('seconds', 'step_seconds', 'data_share')


def compare(
    methods: dict[str, list[Run]],
    metric: str | None = None,
    baseline: str | None = None,
    teacher: Run | None = None,
    notes: Sequence[str] = (),
) -> dict:
    """Compare methods.

    A method's figures are those of its runs that got as far as its longest. Whatever
    is left out, unfinished, of unequal length or unpaired is said in the notes, and so
    is a teacher that is no better than the baseline.

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
        ``methods`` (each with its means and all its runs with their curves, and with
        digests of their configs, by which runs that are added are compared),
        ``remarks`` on single runs and methods, and ``notes``, which are all of them.

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
    of_teacher = _summarize('teacher', [teacher], metric, remarks) if teacher else None
    of_runs = remarks.remarks()
    _note_differences(summaries, baseline, of_teacher, remarks)
    return dict(
        metric=metric,
        baseline=baseline,
        methods=list(summaries.values()),
        teacher=of_teacher,
        remarks=of_runs,
        notes=[*notes, *remarks.lines()],
    )


def extend(
    older: dict, newer: dict, baseline: str | None = None, notes: Sequence[str] = ()
) -> dict:
    """Add runs to a comparison whose work dirs need not be there any more.

    Args:
        older (dict): What :func:`compare` returned, or read from its file.
        newer (dict): The same of further runs. One that has method and seed of an older
            run takes its place, unless it has not got as far.
        baseline (str, optional): The method that all are compared with. Defaults to
            that of the older one.
        notes (Sequence[str]): Notes that go before those of the comparison.

    Returns:
        dict: The comparison of all.

    Raises:
        ValueError: If they compare different scores, a method counted epochs and counts
            iterations now, or there is no such baseline.
    """
    if older['metric'] != newer['metric']:
        raise ValueError(
            f'{older["metric"]} was compared before, {newer["metric"]} now: take '
            'another file, or choose with --metric.'
        )
    remarks, told = Notes(older.get('remarks')), newer['remarks']
    for subject in _subjects(newer):
        remarks.forget(subject)
    summaries = {method['method']: method for method in older['methods']}
    for method in newer['methods']:
        name = method['method']
        summaries[name] = _joined(summaries.get(name), method, remarks)
    for remark, subjects in told.items():
        for subject in subjects:
            remarks.add(subject, remark)
    baseline = baseline or older['baseline']
    if baseline not in summaries:
        raise ValueError(f'baseline {baseline!r}: expected one of {list(summaries)}.')
    of_runs = remarks.remarks()
    # Files of older versions name none.
    teacher = newer['teacher'] or older.get('teacher')
    _note_differences(summaries, baseline, teacher, remarks)
    return dict(
        older,
        baseline=baseline,
        methods=list(summaries.values()),
        teacher=teacher,
        remarks=of_runs,
        notes=[*notes, *remarks.lines()],
    )


def _subjects(comparison: dict) -> set[str]:
    """What remarks of a comparison are about, whether there are any or not."""
    teacher = comparison['teacher']
    found: set[str] = set().union(*comparison['remarks'].values())
    for method in [*comparison['methods'], *([teacher] if teacher else [])]:
        if method['runs']:
            found.add(method['method'])
            found |= {_label(method['method'], run) for run in method['runs']}
    return found


def _joined(older: dict | None, newer: dict, notes: Notes) -> dict:
    """A method with the runs of both comparisons; notes say what is left out."""
    if older is None or not newer['runs']:
        return older or newer
    name, before = newer['method'], older['runs']
    if before and older['unit'] != newer['unit']:
        raise ValueError(
            f'{name}: its runs counted by {older["unit"]} before, these count by '
            f'{newer["unit"]}; give them a name of their own.'
        )
    runs: list[dict] = []
    for run in newer['runs']:
        same = [old for old in before if _identity(old) == _identity(run)]
        longer = max(same, key=_end, default=run)
        if _end(longer) <= _end(run):
            before = [old for old in before if old not in same]
            for old in same:
                notes.forget(_label(name, old))
                if old['curve'] == [list(point) for point in run['curve']]:
                    # The same training once more: what others have noted of it stays.
                    run = {**old, **run}
            runs.append(run)
        else:
            remark = (
                f'ends at {_end(run)}; left out, as the one of its seed that was '
                f'compared before has {_end(longer)}'
            )
            notes.add(_label(name, run), remark)
    runs = _longest(name, before + runs, notes)
    # Files of older versions do not say by what config a run was made.
    known = [run for run in runs if 'config' in run]
    for run in known:
        if known[0] in before and run not in before:
            differing = differing_keys(known[0]['config'], run['config'])
            _note_config(name, known[0], run, differing, notes)
    runs.sort(key=lambda run: -1 if run['seed'] is None else run['seed'])
    return {**newer, **_totals(runs), 'runs': runs}


def _identity(run: dict) -> int | str:
    """What tells a run from others of its method."""
    return run['work_dir'] if run['seed'] is None else run['seed']


def _end(run: dict) -> int:
    """How far a run got."""
    return run['curve'][-1][0]


def _longest(method: str, runs: list[dict], notes: Notes) -> list[dict]:
    """Those runs that got as far as a method's longest; notes name the others."""
    longest = max(map(_end, runs))
    for run in runs:
        if _end(run) < longest:
            remark = f'ends at {_end(run)}; left out, as the longest has {longest}'
            notes.add(_label(method, run), remark)
    return [run for run in runs if _end(run) == longest]


def _note_differences(
    summaries: Mapping[str, dict], baseline: str, teacher: dict | None, notes: Notes
) -> None:
    """Compare methods with the baseline, and note what is unequal."""
    _note_teacher(teacher, summaries[baseline], notes)
    for name, summary in summaries.items():
        other = name != baseline
        summary['difference'] = (
            _difference(summary, summaries[baseline], notes) if other else None
        )
    _note_inequality(
        [summary for summary in summaries.values() if summary['runs']], notes
    )


def _note_teacher(teacher: dict | None, alone: dict, notes: Notes) -> None:
    """Note a teacher that is no better than what its students are compared with."""
    if not (teacher and teacher['runs'] and alone['runs']):
        return
    score, other = teacher['last']['mean'], alone['last']['mean']
    if score <= other:
        notes.add(
            'teacher',
            f'its last score, {score:.4g}, is not above that of {alone["method"]}, '
            f'{other:.4g}: it may have nothing to teach; see what it was trained on, '
            'and for how long',
        )


def _choose_metric(runs: Iterable[Run], metric: str | None) -> str:
    logged = sorted({name for run in runs for name in run.scores})
    found = [name for name in METRICS if name in logged]
    if metric is None and len(found) != 1:
        which = ' and '.join(found) or f'none of {", ".join(METRICS)}'
        raise ValueError(
            f'{which} in the logs, which hold {logged or "no validation"}; choose with '
            '--metric.'
        )
    if metric not in (None, *logged):
        raise ValueError(
            f'metric {metric!r}: the logs hold {logged or "no validation"}.'
        )
    return metric or found[0]


def _summarize(method: str, runs: list[Run], metric: str, notes: Notes) -> dict:
    """Average the runs of a method that are of the same length, and note the rest."""
    counted = _longest_runs(method, runs, metric, notes)
    parameters = added = None
    if counted:
        progress(f'{method}: counting parameters')
        try:
            if counted[0].risk:
                raise ValueError(f'{counted[0].risk}. --trust builds it')
            parameters, added = count_parameters(counted[0].config, counted[0].trusted)
        # Whatever a model that cannot be built here raises; the rest is still true.
        except Exception as error:
            reason = ' '.join(str(error).split())[:200]
            notes.add(
                method,
                'parameters unknown, building the model failed with '
                f'{type(error).__name__}: {reason}',
            )
    details = [
        dict(
            work_dir=run.work_dir,
            seed=run.seed,
            last=run.last(metric),
            best=max(run.scores[metric].values()),
            curve=sorted(run.scores[metric].items()),
            losses=sorted(run.losses.items()),
            config=config_digests(dict(run.config), FREE_KEYS),
            **{key: getattr(run, key) for key in TIMES},
        )
        for run in counted
    ]
    return dict(
        method=method,
        unit=counted[0].unit if counted else None,
        difference=None,
        **_totals(details),
        parameters=parameters,
        added=added,
        runs=details,
    )


def _totals(runs: Sequence[dict]) -> dict:
    """Scores and times of a method, over its runs."""
    return dict(
        last=_statistics([run['last'] for run in runs]),
        best=_statistics([run['best'] for run in runs]),
        **{key: _mean([run[key] for run in runs]) for key in TIMES},
    )


def _longest_runs(method: str, runs: list[Run], metric: str, notes: Notes) -> list[Run]:
    """Runs of a method that got as far as its longest; notes say what is not so."""
    for run in runs:
        for remark in run.remarks:
            notes.add(_label(method, run), remark)
        if metric not in run.scores:
            has = ', '.join(sorted(run.scores)) or 'no validation'
            remark = f'no {metric} in its logs ({has}), left out'
            notes.add(_label(method, run), remark)
    scored = [run for run in runs if metric in run.scores]
    if len({run.unit for run in scored}) > 1:
        raise ValueError(
            f'{method}: some of its runs count epochs and others iterations; give them '
            'names of their own.'
        )
    longest = max((max(run.scores[metric]) for run in scored), default=0)
    counted: list[Run] = []
    for run in scored:
        end = max(run.scores[metric])
        remark = ''
        if run.length is not None and end < run.length:
            remark += f', {run.length} were asked for'
        if end < longest:
            remark += f'; left out, as the longest run of this method has {longest}'
        else:
            counted.append(run)
        if remark:
            remark = f'its last {metric} is that of {run.unit} {end}{remark}'
            notes.add(_label(method, run), remark)
    for first, run in zip(counted[:1] * len(counted), counted[1:]):
        differing = [
            key
            for key in _differing(dict(first.config), dict(run.config))
            if key.partition('.')[0] not in FREE_KEYS
        ]
        _note_config(method, first, run, differing, notes)
    return counted


def _note_config(
    method: str,
    first: Run | dict,
    run: Run | dict,
    differing: Sequence[str],
    notes: Notes,
) -> None:
    """Say in which keys of its config a run differs from the first of its method."""
    if differing:
        keys = ', '.join([*differing[:5], *['...'] * (len(differing) > 5)])
        remark = f'its config differs from that of {_label(method, first)} in {keys}'
        notes.add(_label(method, run), remark)


def _difference(method: dict, baseline: dict, notes: Notes) -> dict | None:
    """Differences of the last scores: by seed, or in the order given."""
    mine, base = method['runs'], baseline['runs']
    if not mine or not base:
        return None
    subject = f'{method["method"]} and {baseline["method"]}'
    by_seed = [{run['seed']: run for run in runs} for runs in (mine, base)]
    common = [seed for seed in by_seed[0] if seed in by_seed[1]]
    reason = None
    if any(None in runs for runs in by_seed):
        reason = 'not all seeds are known'
    elif len(by_seed[0]) < len(mine) or len(by_seed[1]) < len(base):
        reason = 'a seed is there twice'
    elif not common:
        reason = 'they have no seed in common'
    pairs = [(by_seed[0][seed], by_seed[1][seed]) for seed in common]
    if reason is not None:
        pairs = list(zip(mine, base))
        notes.add(subject, f'paired in the order given, as {reason}')
    if len(pairs) < max(len(mine), len(base)):
        notes.add(
            subject,
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
    ends, counts = defaultdict(list), defaultdict(list)
    for method in methods:
        curve = method['runs'][0]['curve']
        ends[f'at {method["unit"]} {curve[-1][0]}'].append(method['method'])
        counts[str(len(curve))].append(method['method'])

    def groups(named: dict[str, list[str]]) -> str:
        return '; '.join(f'{", ".join(names)} {key}' for key, names in named.items())

    if len(ends) > 1:
        notes.add('Runs of unequal length', f'they end, {groups(ends)}')
    if len(counts) > 1:
        remark = f'{groups(counts)}; `best` is a maximum over them'
        notes.add('Unequal numbers of validations', remark)


def _differing(one: dict, other: dict, prefix: str = '') -> Iterator[str]:
    """Keys in which two configs differ."""
    for key in {**one, **other}:
        mine, theirs = (cfg.get(key, ...) for cfg in (one, other))
        if isinstance(mine, dict) and isinstance(theirs, dict):
            yield from _differing(mine, theirs, f'{prefix}{key}.')
        elif mine != theirs:
            yield f'{prefix}{key}'


def _label(method: str, run: Run | dict) -> str:
    told = run if isinstance(run, dict) else vars(run)
    seed = '' if told['seed'] is None else f' seed {told["seed"]}'
    return f'{method}{seed} ({told["work_dir"]})'


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return statistics.fmean(known) if known and len(known) == len(values) else None


def _statistics(values: list[float]) -> dict:
    deviation = statistics.stdev(values) if len(values) > 1 else None
    return dict(mean=_mean(values), spread=deviation)
