# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""What an issue report needs to say of an environment."""

from pathlib import Path

from mmfakd.version import __version__

from .versions import find_problems, installed_versions


def describe_environment() -> str:
    """Describe the environment, also one in which mmfakd does not work.

    Returns:
        Versions, what MMEngine finds of the machine, and what the gates say.
    """
    versions = installed_versions()
    lines = [f'mmfakd: {__version__} ({Path(__file__).resolve().parents[1]})']
    lines += [f'{name}: {version}' for name, version in versions.items()]
    try:
        # The report that every OpenMMLab library asks for.
        from mmengine.utils.dl_utils import collect_env

        lines += ['', *(f'{name}: {value}' for name, value in collect_env().items())]
    except Exception as error:
        lines += ['', f'MMEngine tells nothing: {type(error).__name__}: {error}']
    problems = find_problems(versions)
    lines += ['', 'Gates: ' + ('everything fits.' if not problems else 'refused.')]
    return '\n'.join([*lines, *(f'- {problem}' for problem in problems)])
