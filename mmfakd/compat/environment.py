# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""What an issue report needs to say of an environment."""

import platform
from pathlib import Path

from mmfakd.messages import aligned
from mmfakd.version import __version__

from .families import families_in
from .versions import find_problems, installed_versions


def describe_environment() -> str:
    """Describe the environment, also one in which mmfakd does not work.

    Returns:
        str: Versions, what MMEngine finds of the machine, and what the gates say.
    """
    folder = Path(__file__).resolve().parents[1]
    rows = [('mmfakd', f'{__version__} in {folder}'), ('platform', platform.platform())]
    # Of whatever is broken here: what an issue report is written for.
    try:
        versions = installed_versions()
        families = families_in(versions)
        found = ' and '.join(f'{f.name}: {f.title}' for f in families) or 'none'
        rows += [('family', found), *versions.items()]
        problems = find_problems(versions)
    except Exception as error:
        problems = [f'The versions cannot be read: {type(error).__name__}: {error}']
    try:
        # The report that every OpenMMLab library asks for.
        from mmengine.utils.dl_utils import collect_env

        machine = collect_env()
        # How torch was compiled takes a page.
        machine.pop('PyTorch compiling details', None)
        rows += [(name, str(value)) for name, value in machine.items()]
    except Exception as error:
        problems.append(f'MMEngine does not work: {type(error).__name__}: {error}')
    verdict = 'mmfakd cannot run here:' if problems else 'everything fits.'
    return '\n'.join(
        [aligned(rows), '', f'Gates: {verdict}', *map('- {}'.format, problems)]
    )
