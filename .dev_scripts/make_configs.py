# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""Write the configs for CIFAR-100, ImageNet and COCO.

    python .dev_scripts/make_configs.py            # writes what differs
    python .dev_scripts/make_configs.py --check    # names what differs

They are made of the table configs.yml and, as for CIFAR-100's networks, of
``mmfakd.checkpoints.mdistiller_zoo``. Their metafiles are written by make_metafiles.py.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from string import Template
from typing import Any

import yaml
from generated_files import write_or_check

from mmfakd.checkpoints.mdistiller_zoo import mdistiller_model_cfg

REPOSITORY = Path(__file__).resolve().parents[1]
TABLE = Path(__file__).with_name('configs.yml')


def make_files() -> dict[str, str]:
    """Make all files of the table.

    Returns:
        dict[str, str]: Their texts, by their paths in the repository.
    """
    return {
        path: text
        for folder in _read_table().values()
        for path, text, _ in _make_folder(folder)
    }


def make_metafiles() -> dict[str, dict[str, Any]]:
    """Make what metafiles say of the configs, without results and weights.

    Returns:
        dict[str, dict]: Folder -> ``Collections`` and ``Models``.
    """
    return {
        folder['defaults']['folder']: dict(
            Collections=[folder['collection']],
            Models=[entry for _, _, entry in _make_folder(folder) if entry],
        )
        for folder in _read_table().values()
    }


def _read_table() -> dict[str, dict]:
    table = yaml.safe_load(TABLE.read_text())
    table.pop('shared')
    return table


def _make_folder(folder: dict) -> Iterator[tuple[str, str, dict]]:
    """Paths and texts of a data set's networks, pairs and experiments.

    With what a metafile says of an experiment; of the others nothing.
    """
    networks = {
        name: dict(network, network=name, variable=name.replace('-', '_'))
        for name, network in folder['networks'].items()
    }
    for network in networks.values():
        values = {**folder['defaults'], **network}
        if 'arch' in network:
            model = _source(_trained_model(network['arch']))
            values['model'] = model.replace('=None,', "=None,  # torch's own")
        entry = _entry(_fill('${network}_$suffix', values), values)
        for path, text in _fill_all(folder['for_network'], values):
            yield path, text, entry if path == entry['Config'] else {}
    for pair, own in folder['pairs'].items():
        values = {**folder['defaults'], **own, 'pair': pair}
        for role, name in zip(('teacher', 'student'), pair.split('_')[-2:]):
            network = networks.get(name, {})
            values.update({f'{role}_{key}': value for key, value in network.items()})
        for path, text in _fill_all(folder.get('for_pair', {}), values):
            yield path, text, {}
        for method, extra in folder['methods'].items():
            if not values.get(extra.get('only_with', 'pair')):
                continue
            leaf = {'name': '${method}_${pair}_$suffix', 'method': method, **extra}
            leaf = {**values, **leaf}
            entry = _entry(_fill(leaf['name'], leaf), leaf)
            yield entry['Config'], _fill(leaf['text'], leaf), entry


def _trained_model(arch: str) -> dict:
    """Config of a network of the zoo, as it is trained here."""
    cfg = mdistiller_model_cfg(arch)
    head = {key: value for key, value in cfg['head'].items() if key != 'topk'}
    if head['init_cfg'] and head['init_cfg']['type'] == 'Normal':
        del head['init_cfg']  # the head's own
    else:
        head['init_cfg'] = None  # for Wide ResNets too, whose bias the zoo begins at 0
    return dict(type=cfg['type'], backbone=cfg['backbone'], neck=cfg['neck'], head=head)


def _source(value: Any, indent: int = 0) -> str:
    """Python source of a config, in lines that the formatter leaves alone."""
    if not isinstance(value, dict):
        return repr(value)
    items = [f'{key}={_source(item, indent + 4)}' for key, item in value.items()]
    line = f'dict({", ".join(items)})'
    if len(line) < 70 and '\n' not in line:
        return line
    lines = ''.join(f'{" " * (indent + 4)}{item},\n' for item in items)
    return f'dict(\n{lines}{" " * indent})'


def _fill_all(texts: dict[str, str], values: dict) -> Iterator[tuple[str, str]]:
    for path, text in texts.items():
        yield _fill(path, values), _fill(text, values)


def _fill(text: str, values: dict) -> str:
    """Put values into a text, and values into them."""
    end = '\n' * text.endswith('\n')
    while '$' in text:
        text = Template(text).substitute(values)
    return text.rstrip() + end


def _entry(name: str, values: dict) -> dict:
    """What a metafile says of a config."""
    entry: dict[str, Any] = {
        'Name': name,
        'In Collection': f'fakd-{values["folder"]}',
        'Config': f'configs/fakd/{values["folder"]}/{name}.py',
    }
    if 'location' in values:
        entry['Metadata'] = {
            'Location': values['location'],
            'Teacher': {'Config': _fill(values['teacher_config'], values)},
            'Student': {'Config': _fill(values['student_config'], values)},
        }
    return entry


def main(arguments: list[str] | None = None) -> None:
    """Write the files, or check them.

    Args:
        arguments (list[str], optional): Of the command line.

    Raises:
        SystemExit: With their names, if files differ from the table under ``--check``.
    """
    hint = 'Change the table, then run python .dev_scripts/make_configs.py'
    made_of = 'configs.yml has them'
    write_or_check(make_files(), REPOSITORY, made_of, hint, __doc__, arguments)


if __name__ == '__main__':
    main()
