# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""Give the published weights an address.

    python .dev_scripts/publish_zoo.py --base-url https://example.org/zoo --out upload

``upload`` then holds every file that export_zoo.py has made, also those that are too large
for the package, and ``manifest.json``: what each is, its size and its SHA-256. Upload the
folder as it is. Metafiles name the addresses from here on, which ``mim download`` wants;
mmfakd itself goes on taking the files that come with the package. ``--no-base-url`` takes
the addresses out again.
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


def publish(base_url: str | None, out: Path | None) -> str:
    """Write addresses into the metafiles, and the files for upload into a folder.

    Args:
        base_url (str, optional): Address of the folder of all files; None for none.
        out (Path, optional): The folder for upload.

    Returns:
        str: What was done.

    Raises:
        FileNotFoundError: If a file is missing, or is another than when it was made;
            all of them are named.
    """
    facts = read_facts()
    facts['base_url'] = base_url = base_url and base_url.rstrip('/')
    told = []
    if out is not None:
        files = {name: _file(found) for name, found in facts['weights'].items()}
        wrong = [facts['weights'][name]['file'] for name in files if not files[name]]
        if wrong:
            raise FileNotFoundError(
                f'missing or changed: {", ".join(wrong)}. Expected in {WEIGHTS.name}/, '
                f'or, of large files, in {LARGE}; `python .dev_scripts/export_zoo.py '
                'NAME` makes them out of their trainings.'
            )
        out.mkdir(parents=True, exist_ok=True)
        for file in files.values():
            shutil.copy2(str(file), out)
        manifest = dict(base_url=base_url, files=_manifest(facts))
        (out / 'manifest.json').write_text(json.dumps(manifest, indent=1) + '\n')
        told.append(f'{len(files)} files and manifest.json in {out}')
    write_facts(facts)
    make_metafiles.main([])
    return '\n'.join([*told, f'Addresses of the metafiles: {base_url}'])


def _file(found: dict[str, Any]) -> Path | None:
    """The file of these facts, if it is there and as it was."""
    for folder in (WEIGHTS, LARGE):
        file = folder / found['file']
        if file.is_file() and file_hash(str(file)) == found['sha256']:
            return file
    return None


def _manifest(facts: dict[str, Any]) -> list[dict[str, Any]]:
    configs = {
        name: f'configs/fakd/{folder}/{name}.py'
        for folder, table in read_table().items()
        for name in table.get('models', {})
    }
    kept = ('file', 'sha256', 'bytes', 'precision', 'metric', 'score', 'date')
    return [
        dict(name=name, config=configs[name], **{key: found[key] for key in kept})
        for name, found in facts['weights'].items()
    ]


def main() -> None:
    """Do what the command line says.

    Raises:
        SystemExit: If a file is missing.
    """
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    where = parser.add_mutually_exclusive_group(required=True)
    where.add_argument('--base-url', help='address of the folder of all files')
    where.add_argument('--no-base-url', action='store_true', help='none any more')
    parser.add_argument('--out', type=Path, metavar='DIR', help='folder for upload')
    args = parser.parse_args()
    try:
        print(publish(args.base_url, args.out))
    except FileNotFoundError as error:
        parser.exit(1, f'{error}\n')


if __name__ == '__main__':
    main()
