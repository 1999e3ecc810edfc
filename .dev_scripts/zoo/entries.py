# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""Entries of metafiles: results, teachers and students, published files."""

from __future__ import annotations

import json
from collections.abc import Iterable
from importlib import import_module
from importlib.util import find_spec
from statistics import fmean, stdev
from typing import Any

import make_configs

from mmfakd.model_zoo.find import entries_of, zoo_entries

from .table import LOGS, METRICS, read_facts, read_table

_RESOURCES = 'one thread of a CPU that did other things as well'


def make_entries() -> dict[str, dict[str, Any]]:
    """Make all metafiles.

    Returns:
        dict: Folder of ``configs/fakd`` -> ``Collections`` and ``Models``.
    """
    table, metafiles = read_table(), make_configs.make_metafiles()
    stock = _Stock()
    for name, folder in table.items():
        if 'collection' in folder:
            models = [_plain_entry(name, folder, model) for model in folder['models']]
            collections = [folder['collection']]
            metafiles[name] = dict(Collections=collections, Models=models)
    for name, folder in table.items():
        entries = metafiles[name]['Models']
        _add_results(folder, entries)
        _add_files(folder, entries)
        _add_roles(folder, entries, stock)
        metafiles[name]['Models'] = [_in_order(entry) for entry in entries]
    return metafiles


def _plain_entry(folder: str, table: dict, name: str) -> dict[str, Any]:
    entry: dict[str, Any] = {
        'Name': name,
        'In Collection': f'fakd-{folder}',
        'Config': f'configs/fakd/{folder}/{name}.py',
    }
    if 'location' in table['models'][name]:
        teacher, student = (f'configs/fakd/{folder}/{n}.py' for n in table['pair'])
        entry['Metadata'] = {
            'Location': table['models'][name]['location'],
            'Teacher': {'Config': teacher},
            'Student': {'Config': student},
        }
    return entry


def _add_results(folder: dict, entries: list[dict]) -> None:
    """What was measured: means of the logs, with seeds and spread."""
    if 'log' not in folder:
        return
    log = json.loads((LOGS / folder['log']).read_text())
    result, memory = folder['result'], read_facts()['memory']
    methods = {method['method']: method for method in log['methods']}
    methods['teacher'] = log['teacher']
    for entry in entries:
        model = folder['models'].get(entry['Name'], {})
        if 'method' not in model:
            continue
        method = methods[model['method']]
        metadata = entry.setdefault('Metadata', {})
        metadata['Epochs'] = method['runs'][0]['curve'][-1][0]
        metadata.update(folder.get('metadata', {}))
        metadata['Parameters'] = method['parameters']
        if method['added']:
            metadata['Parameters Added in Training'] = method['added']
        metadata['Training Time (s)'] = round(method['seconds'])
        if entry['Name'] in memory:
            megabytes = round(memory[entry['Name']] / 1e6, 1)
            metadata['Training Memory (MB)'] = megabytes
        metadata['Training Resources'] = _RESOURCES
        entry['Results'] = [
            {
                'Task': result['Task'],
                'Dataset': result['Dataset'],
                'Metrics': _metrics(result['metric'], method['runs']),
            }
        ]
        entry['Training Log'] = f'docs/en/results/logs/{folder["log"]}'


def _metrics(metric: str, runs: Iterable[dict]) -> dict[str, Any]:
    _, factor, decimals = METRICS[metric]
    scores = [factor * run['last'] for run in runs]
    found = {metric: round(fmean(scores), decimals), 'Seeds': len(scores)}
    if len(scores) > 1:
        found['Spread'] = round(stdev(scores), decimals)
    return found


def _add_files(folder: dict, entries: list[dict]) -> None:
    """Published files, and where they are."""
    known = read_facts()['weights']
    for entry in entries:
        found = known.get(entry['Name'])
        if found is None:
            continue
        if 'url' in found:
            entry['Weights'] = found['url']
        elif entry['Name'] not in folder.get('elsewhere', ()):
            entry['Weights'] = f'weights/{found["file"]}'
        entry['Metadata']['Batch Size'] = found['batch_size']
        entry['Published'] = {
            'Metrics': {found['metric']: found['score']},
            'Seed': found['seed'],
            'File': found['file'],
            'SHA256': found['sha256'],
            'Size (MB)': round(found['bytes'] / 1e6, 2),
            'Precision': found['precision'],
            'Date': found['date'],
            'Commit': found['commit'],
            'Training Log': 'docs/en/results/logs/zoo.json',
        }


class _Stock:
    """Teachers and students of the libraries, as their metafiles have them.

    Of a library that is not installed they are as ours have them already.
    """

    def __init__(self) -> None:
        self.former = {
            role['Config']: role
            for entry in zoo_entries('mmfakd')
            for role in (entry.get('Metadata') or {}).values()
            if isinstance(role, dict)
        }

    def find(self, config: str) -> dict[str, Any]:
        package, _, path = config.partition('::')
        if find_spec(package) is None:
            former = self.former.get(config, {})
            return {k: v for k, v in former.items() if k != 'Config'}
        # Of several weights the first.
        return _told(next(iter(entries_of(package, path)), None))


def _add_roles(folder: dict, entries: list[dict], stock: _Stock) -> None:
    """Scores and weights of teachers and students, for whoever distils them."""
    of_config = {entry['Config']: entry for entry in entries}
    for entry in entries:
        metadata = entry.get('Metadata', {})
        for role in ('Teacher', 'Student'):
            config = metadata.get(role, {}).get('Config')
            if config is not None:
                # Those of a short run are not told of other pairs.
                known = of_config.get(config) if 'Results' in entry else None
                found = _torchvision(config, folder) or (
                    stock.find(config) if '::' in config else _told(known)
                )
                metadata[role] = {'Config': config, **found}
        if 'Teacher' in metadata and 'Results' in entry and 'teacher' in folder:
            file = folder['teacher']['file']
            teacher = read_facts()['teachers'][file]
            metadata['Teacher'].update(
                Metrics={teacher['metric']: teacher['score']},
                File=file,
                SHA256=teacher['sha256'],
            )


def _torchvision(config: str, folder: dict) -> dict[str, Any]:
    name = config.rpartition('/')[2].removesuffix('.py')
    if name not in folder.get('torchvision', {}):
        return {}
    models = import_module('torchvision.models')
    weights = models.get_weight(folder['torchvision'][name])
    (scores,) = weights.meta['_metrics'].values()
    metrics = {'Top 1 Accuracy': round(scores['acc@1'], 2)}
    return dict(Weights=weights.url, Metrics=metrics)


def _told(entry: dict | None) -> dict[str, Any]:
    """Weights and scores of an entry."""
    if entry is None:
        return {}
    found = {'Weights': entry['Weights']} if entry.get('Weights') else {}
    metrics = {
        metric: result['Metrics'][metric]
        for result in entry.get('Results') or []
        for metric in ('Top 1 Accuracy', 'box AP', 'mask AP')
        if metric in result['Metrics']
    }
    return {**found, 'Metrics': metrics} if metrics else found


def _in_order(entry: dict) -> dict:
    """The keys as OpenMMLab's metafiles have them."""
    first = ('Name', 'In Collection', 'Config', 'Metadata', 'Results', 'Weights')
    return {
        key: entry[key]
        for key in (*first, 'Training Log', 'Published', *entry)
        if key in entry
    }
