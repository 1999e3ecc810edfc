# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""Publish the weights of trainings, and measure what their entries say.

    python .dev_scripts/export_zoo.py [NAME ...]

For each training of zoo.yml, or those that are named: its last checkpoint becomes a
file of ``weights/``, named by its hash, or of ``work_dirs/zoo/`` where it is too large
for the package; it is evaluated on the real data in both precisions; and what was found
out goes into ``docs/en/results/logs/zoo.json``. ``make_metafiles.py`` writes metafiles
and pages out of that. ``--memory`` measures a training step of every model with
results, ``--teacher FILE`` scores a teacher of others that is named, not published.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from tempfile import TemporaryDirectory

from mmengine.config import Config
from zoo.evaluate import test
from zoo.export import export_run
from zoo.memory import training_bytes
from zoo.table import (
    LARGE,
    MOST_BYTES,
    WEIGHTS,
    read_facts,
    read_table,
    write_facts,
)

from mmfakd.checkpoints.download import file_hash
from mmfakd.checkpoints.mdistiller_file import convert_file
from mmfakd.model_zoo.find import config_file


def export(names: list[str]) -> None:
    """Publish trainings.

    Args:
        names (list[str]): Of which models; none for all.

    Raises:
        ValueError: If a model has no training, or the files of the package become too
            large.
    """
    table = read_table()
    known = [name for folder in table.values() for name in folder.get('runs', {})]
    if unknown := {*names} - {*known}:
        raise ValueError(f'zoo.yml has no runs of {sorted(unknown)}; of {known}.')
    for folder in table.values():
        commits = folder.get('commits', {})
        for name, work_dir in folder.get('runs', {}).items():
            if names and name not in names:
                continue
            found = export_run(
                name,
                work_dir,
                folder['result']['metric'],
                commits.get(name, folder['commit']),
                LARGE if name in folder.get('elsewhere', ()) else WEIGHTS,
            )
            print(name, found['file'], found['precision'], found['score'], flush=True)
            facts = read_facts()
            facts['weights'][name] = found
            write_facts(facts)
    size = sum(file.stat().st_size for file in WEIGHTS.glob('*.pth'))
    print(f'{size:,} bytes in {WEIGHTS.name}/')
    if size > MOST_BYTES:
        raise ValueError(f'More than {MOST_BYTES:,}: list some as `elsewhere`.')


def measure_memory() -> None:
    """Measure a training step of every model with results."""
    for folder in read_table().values():
        for name in folder.get('models', {}):
            facts = read_facts()
            facts['memory'][name] = training_bytes(name)
            write_facts(facts)
            print(name, f'{facts["memory"][name]:,} bytes', flush=True)


def score_teacher(file: Path) -> None:
    """Score a teacher of others, which is in the mdistiller zoo's format.

    Args:
        file (Path): Its weights.
    """
    for folder in read_table().values():
        teacher = folder.get('teacher', {})
        if teacher.get('file') != file.name:
            continue
        metric = folder['result']['metric']
        cfg = Config.fromfile(config_file(teacher['config']))
        with TemporaryDirectory() as made:
            convert_file(str(file), f'{made}/teacher.pth')
            score = test(cfg, Path(made) / 'teacher.pth', metric)
        facts = read_facts()
        found = dict(sha256=file_hash(str(file)), metric=metric, score=score)
        facts['teachers'][file.name] = found
        write_facts(facts)
        print(file.name, score)


def main() -> None:
    """Do what the command line says."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('names', nargs='*', metavar='NAME')
    parser.add_argument('--memory', action='store_true')
    parser.add_argument('--teacher', type=Path, metavar='FILE')
    args = parser.parse_args()
    if args.memory:
        measure_memory()
    elif args.teacher:
        score_teacher(args.teacher)
    else:
        export(args.names)


if __name__ == '__main__':
    main()
