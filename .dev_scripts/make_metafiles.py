# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""Write the metafiles of all configs, and the tables of the zoo's page.

    python .dev_scripts/make_metafiles.py            # writes what differs
    python .dev_scripts/make_metafiles.py --check    # names what differs

They are made of the tables configs.yml and zoo.yml, of the logs of results, and of what
export_zoo.py found out about published files. Stock teachers and students stand there
as the metafiles of the installed mmpretrain and mmdet have them.
"""

from __future__ import annotations

import yaml
from generated_files import write_or_check
from zoo.entries import make_entries
from zoo.page import PAGE, fill_page
from zoo.table import REPOSITORY


class _Dumper(yaml.SafeDumper):
    """Writes what is told twice twice, without references."""

    def ignore_aliases(self, data: object) -> bool:
        """Say that nothing is to be referred to.

        Args:
            data (object): Anything.

        Returns:
            bool: True.
        """
        return True


def make_files() -> dict[str, str]:
    """Make all files.

    Returns:
        dict[str, str]: Their texts, by their paths in the repository.
    """
    metafiles = make_entries()
    files = {
        f'configs/fakd/{folder}/metafile.yml': (
            '# Written by .dev_scripts/make_metafiles.py.\n'
            + yaml.dump(content, Dumper=_Dumper, sort_keys=False, width=88)
        )
        for folder, content in metafiles.items()
    }
    return {**files, PAGE: fill_page(metafiles)}


def main(arguments: list[str] | None = None) -> None:
    """Write the files, or check them.

    Args:
        arguments (list[str], optional): Of the command line.

    Raises:
        SystemExit: With their names, if files differ under ``--check``.
    """
    hint = 'Run python .dev_scripts/make_metafiles.py'
    made_of = 'tables and logs have them'
    write_or_check(make_files(), REPOSITORY, made_of, hint, __doc__, arguments)


if __name__ == '__main__':
    main()
