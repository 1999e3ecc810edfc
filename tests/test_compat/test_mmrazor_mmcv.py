# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""mmrazor can be imported beside an mmcv that came after it."""

import sys

import pytest

from mmfakd.compat import allow_mmrazor_with_newer_mmcv

# The gates have looked by then.
SHOWN = """
import mmfakd, mmcv
mmcv.__version__ = '{version}'
import mmrazor
"""


@pytest.mark.parametrize('version', ['2.0.1', '2.3.6.post1'])
def test_mmrazor_is_imported(version, run_python):
    run_python(f"""{SHOWN.format(version=version)}
assert mmcv.__version__ == {version!r}
import importlib
importlib.reload(mmrazor)
import mmrazor.models
assert mmcv.__version__ == {version!r}
""")


@pytest.mark.parametrize('version', ['2.2.0', '2.4.0', '3.0.0'])
def test_what_nobody_has_tested_stays_refused(version, run_python):
    process = run_python(SHOWN.format(version=version), check=False)
    assert f'MMCV=={version} is used but incompatible' in process.stderr


def test_version_is_back_after_an_error(run_python, tmp_path):
    package = tmp_path / 'site' / 'mmrazor'
    package.mkdir(parents=True)
    (package / '__init__.py').write_text(
        "import mmcv; assert mmcv.__version__ == '2.1.0'; 1 / 0"
    )
    run_python(
        """
import mmfakd, mmcv
mmcv.__version__ = '2.3.6'
try:
    import mmrazor
except ZeroDivisionError:
    assert mmcv.__version__ == '2.3.6'
else:
    raise AssertionError
""",
        tmp_path / 'site',
    )


def test_shim_is_repeatable():
    before = list(sys.meta_path)
    allow_mmrazor_with_newer_mmcv()
    assert sys.meta_path == before
