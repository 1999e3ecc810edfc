# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""What a command prints is its own, whatever its libraries print on import."""

from importlib.util import find_spec

import pytest


@pytest.mark.parametrize('package', ['mmpretrain', 'mmdet', 'mmseg'])
@pytest.mark.parametrize('error', ['', '1 / 0'])
def test_only_the_message_on_onedl_is_dropped(package, error, run_python, tmp_path):
    if find_spec(package) is None:
        pytest.skip(f'a {package} without a version is refused')
    folder = tmp_path / 'site' / package / 'datasets'
    folder.mkdir(parents=True)
    (folder.parent / '__init__.py').touch()
    (folder / '__init__.py').write_text(
        "print('before')\nfrom . import transforms\nprint('after')\n"
    )
    (folder / 'transforms.py').write_text(
        "print('Could not import OneDL. Skipping OneDL datasets.')\n"
        f"print('another')\n{error}\n"
    )
    process = run_python(
        f'import mmfakd, {package}.datasets', tmp_path / 'site', check=False
    )
    printed = ['before', 'another', *([] if error else ['after'])]
    assert process.stdout.split() == printed
    assert ('ZeroDivisionError' in process.stderr) == bool(error)


def test_commands_print_nothing_else(run_python):
    code = 'import mmfakd, mmpretrain.datasets, mmpretrain.models'
    assert run_python(code).stdout == ''
