# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""Give the published weights an address.

    python .dev_scripts/publish_zoo.py --base-url https://example.org/zoo --out upload

``upload`` then holds every file that export_zoo.py has made, also those that are too
large for the package, or those of the models that are named; and ``manifest.json``:
what each is, its size and its SHA-256. Upload the folder as it is. Metafiles name the
addresses from here on, which ``mim download`` wants; mmfakd itself goes on taking the
files that come with the package. ``--no-base-url`` takes the addresses out again.
"""

from __future__ import annotations

import argparse
import json
import shutil
from pathlib import Path
from typing import Any

import make_metafiles
from zoo.table import LARGE, WEIGHTS, read_facts, read_table, write_facts

from mmfakd.checkpoints.download import file_hash


def publish(names: list[str], base_url: str, out: Path) -> str:
    """Write addresses into the metafiles, and the files for upload into a folder.

    Args:
        names (list[str]): Models; none for all.
        base_url (str): Address of the folder of all files.
        out (Path): The folder for upload.

    Returns:
        str: What was done.

    Raises:
        FileNotFoundError: If a file is missing, or is another than when it was made;
            all of them are named.
        ValueError: If one of the models has no weights.
    """
    facts = read_facts()
    known: dict[str, dict[str, Any]] = facts['weights']
    if unknown := {*names} - {*known}:
        raise ValueError(f'no weights: {sorted(unknown)}; there are {sorted(known)}.')
    files = {name: _file(known[name]) for name in names or known}
    if missing := [name for name, file in files.items() if file is None]:
        raise FileNotFoundError(
            f'missing or changed: {", ".join(known[name]["file"] for name in missing)}.'
            f' Expected in {WEIGHTS.name}/ or, of large files, in {LARGE}; `python '
            '.dev_scripts/export_zoo.py NAME` makes them out of their trainings. Or '
            'name the models to publish.'
        )
    out.mkdir(parents=True, exist_ok=True)
    for name, file in files.items():
        shutil.copy2(str(file), out)
        known[name]['url'] = f'{base_url.rstrip("/")}/{known[name]["file"]}'
    manifest = _manifest({name: known[name] for name in files})
    (out / 'manifest.json').write_text(json.dumps(manifest, indent=1) + '\n')
    write_facts(facts)
    make_metafiles.main([])
    return f'{len(files)} files and manifest.json in {out}'


def withdraw() -> str:
    """Take the addresses out of the metafiles.

    Returns:
        str: What was done.
    """
    facts = read_facts()
    urls = [known.pop('url', None) for known in facts['weights'].values()]
    write_facts(facts)
    make_metafiles.main([])
    return f'{sum(url is not None for url in urls)} addresses are gone.'


def _file(found: dict[str, Any]) -> Path | None:
    """The file of these facts, if it is there and as it was."""
    for folder in (WEIGHTS, LARGE):
        file = folder / found['file']
        if file.is_file() and file_hash(str(file)) == found['sha256']:
            return file
    return None


def _manifest(weights: dict[str, dict[str, Any]]) -> list[dict[str, Any]]:
    configs = {
        name: f'configs/fakd/{folder}/{name}.py'
        for folder, table in read_table().items()
        for name in table.get('models', {})
    }
    told = ('url', 'file', 'sha256', 'bytes', 'precision', 'metric', 'score', 'date')
    return [
        dict(name=name, config=configs[name], **{key: known[key] for key in told})
        for name, known in weights.items()
    ]


def main() -> None:
    """Do what the command line says.

    Raises:
        SystemExit: If a file is missing.
    """
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('names', nargs='*', metavar='NAME')
    where = parser.add_mutually_exclusive_group(required=True)
    where.add_argument('--base-url', help='address of the folder of all files')
    where.add_argument('--no-base-url', action='store_true', help='none any more')
    parser.add_argument('--out', type=Path, default='upload', help='folder for upload')
    args = parser.parse_args()
    try:
        print(
            withdraw()
            if args.no_base_url
            else publish(args.names, args.base_url, args.out)
        )
    except (FileNotFoundError, ValueError) as error:
        parser.exit(1, f'{error}\n')


if __name__ == '__main__':
    main()
