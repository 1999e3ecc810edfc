# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""Work dirs side by side, as the command line names them."""

from __future__ import annotations

import glob
import os
import os.path as osp
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import mmengine
from mmengine.logging import MMLogger

from mmfakd.checkpoints.atomic import whole_file
from mmfakd.model_zoo.outputs import check_outputs
from mmfakd.pictures.picture_file import check_picture_name

from .compare_runs import compare, extend
from .comparison_table import format_table
from .curves import save_curves
from .earlier_comparison import read_comparison
from .read_run import read_run
from .run import Run


def compare_work_dirs(
    runs: Sequence[str],
    metric: str | None = None,
    baseline: str | None = None,
    teacher: str | None = None,
    out: Sequence[str] = (),
    add_to: str | None = None,
    trust: bool = False,
) -> str:
    """Compare work dirs, as the command line names them.

    Args:
        runs (Sequence[str]): ``'NAME=DIR[,DIR...]'``, or without a name, which groups
            runs by their config's. None shows those of ``add_to``.
        metric (str, optional): The score to compare.
        baseline (str, optional): The method that the others are compared with.
        teacher (str, optional): The teacher's work dir.
        out (Sequence[str]): Files to write: curves, figures (.json), the table (.md).
        add_to (str, optional): A file of figures (.json) whose runs are compared, too,
            and which is written anew where there are others. It need not be there.
        trust (bool): Whether all work dirs are one's own, so that their configs may
            import modules and name any class when parameters are counted.

    Returns:
        str: The table.

    Raises:
        FileExistsError: If a file to write is one of a work dir that is read.
        FileNotFoundError: If there is no log of the teacher.
        OSError: If a file cannot be written.
        ValueError: If there is nothing to compare or to show, a file to write has an
            ending that says nothing, or ``add_to`` is no file of figures.
    """
    for path in out:
        if not path.endswith(('.json', '.md')):
            check_picture_name(path, 'figures (.json), a table (.md) or ')
    # Models are built only to be counted.
    MMLogger.get_instance('compare', log_level='WARNING')
    if not (runs or (add_to and osp.exists(add_to) and teacher is None)):
        raise ValueError(
            'no work dir to compare: give some, or with --add-to FILE.json a file of '
            'figures that is there (and no --teacher).'
        )
    methods, seen, notes = _read_all(runs, trust)
    of_teacher = _read(teacher, trust) if teacher else None
    # It stays as it is where nothing is added.
    outs = [*out, *([add_to] if add_to and runs else [])]
    check_outputs(True, outs, _logs([*seen, *([teacher] if teacher else [])]))
    older = read_comparison(add_to) if add_to else None
    if runs or older is None:
        # It may be one of the older methods.
        among = None if older and baseline not in methods else baseline
        newer = compare(methods, metric, among, of_teacher, notes)
    else:
        score = metric or older['metric']
        newer = dict(metric=score, methods=[], teacher=None, remarks={})
    comparison = extend(older, newer, baseline, notes) if older else newer
    table = format_table(comparison)
    for path in outs:
        if path.endswith('.json'):
            with whole_file(path) as part:
                mmengine.dump(comparison, part, file_format='json', indent=2)
        elif path.endswith('.md'):
            # Names may be a stranger's: they are no HTML of the page.
            page = table.replace('<', '&lt;')
            with whole_file(path) as part:
                Path(part).write_text(f'{page}\n', encoding='utf-8')
        else:
            save_curves(comparison, path)
    return table


def _read_all(
    items: Sequence[str], trust: bool
) -> tuple[dict[str, list[Run]], set[str], list[str]]:
    """Methods with their runs, all folders, and notes on those that are left out."""
    methods: dict[str, list[Run]] = {}
    seen: set[str] = set()
    notes: list[str] = []
    for item in items:
        name, folders = _work_dirs(item)
        if name:
            methods.setdefault(name, [])
        for folder in folders:
            if osp.realpath(folder) in seen:
                raise ValueError(f'{folder}: given twice.')
            seen.add(osp.realpath(folder))
            try:
                run = _read(folder, trust)
            except (OSError, ValueError) as error:
                named = '' if folder in str(error) else f'{folder}: '
                notes.append(f'Left out: {named}{error}')
            else:
                methods.setdefault(name or run.name, []).append(run)
    if items and not any(methods.values()):
        raise ValueError('\n'.join(notes))
    return methods, seen, notes


def _work_dirs(item: str) -> tuple[str | None, list[str]]:
    """Split ``NAME=DIR[,DIR...]``, with globs, into the name and the folders."""
    name: str | None = None
    if '=' in item and not _matching(item):
        name, item = _named(item)
    folders: list[str] = []
    # An existing folder may have commas and brackets in its name.
    for pattern in [item] if _matching(item) else item.split(','):
        found = _matching(pattern)
        if not found:
            raise ValueError(
                f'{pattern!r}: no such folder; expected NAME=DIR[,DIR...] or DIR, the '
                'work dirs of trainings.'
            )
        folders += found
    return name, folders


def _named(item: str) -> tuple[str, str]:
    """Split at the first ``=`` behind which folders are: ``lr=0.02=work_dirs/a``."""
    parts = item.split('=')
    splits = [('='.join(parts[:n]), '='.join(parts[n:])) for n in range(1, len(parts))]
    for name, folders in splits:
        if _matching(folders) or _matching(folders.split(',')[0]):
            return name, folders
    # An error in any case, which is to name the missing folder alone.
    for name, folders in reversed(splits):
        if any(map(_matching, folders.split(','))):
            return name, folders
    return splits[0]


def _matching(pattern: str) -> list[str]:
    """Folders that a glob finds, or the one of that name."""
    found = [pattern] if osp.isdir(pattern) else glob.glob(pattern)
    return sorted(filter(osp.isdir, found), key=_natural)


def _natural(path: str) -> list:
    """Order seed10 behind seed9."""
    return [int(p) if p.isdigit() else p for p in re.split(r'(\d+)', path)]


def _logs(folders: Sequence[str]) -> list[str]:
    """Files of figures in folders: logs, and whatever may be one."""
    # Neither follows links, which may lead in circles, beyond the folders of starts.
    found = [
        osp.join(place, name)
        for folder in folders
        for place, _, names in os.walk(folder)
        for name in names
    ]
    patterns = (osp.join(glob.escape(f), '*', 'vis_data', '*') for f in folders)
    found += [path for pattern in patterns for path in glob.glob(pattern)]
    return [path for path in found if path.endswith('.json')]


def _read(folder: str, trust: bool) -> Run:
    run = read_run(folder)
    return replace(run, risk=None, trusted=True) if trust else run
