# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""Files that are made of tables: written, or compared with what is there."""

from __future__ import annotations

import argparse
from pathlib import Path


def write_or_check(
    files: dict[str, str],
    repository: Path,
    made_of: str,
    hint: str,
    about: str | None,
    arguments: list[str] | None = None,
) -> None:
    """Write files that differ, or name them.

    Args:
        files (dict[str, str]): Their texts, by their paths in the repository.
        repository (Path): Its folder.
        made_of (str): What has them so, for messages.
        hint (str): What to do about files that differ.
        about (str, optional): What the script that calls this says of itself.
        arguments (list[str], optional): Of its command line.

    Raises:
        SystemExit: With their names, if files differ under ``--check``.
    """
    parser = argparse.ArgumentParser(description=(about or '').partition('\n')[0])
    parser.add_argument('--check', action='store_true', help='write nothing')
    check = parser.parse_args(arguments).check
    differing = []
    for path, text in files.items():
        file = repository / path
        if not file.is_file() or file.read_text() != text:
            differing.append(path)
            if not check:
                file.write_text(text)
    if check and differing:
        raise SystemExit(
            f'{len(differing)} files are not as {made_of}: {", ".join(differing)}. '
            f'{hint}.'
        )
    print('\n'.join(differing) or f'All files are as {made_of}.')
