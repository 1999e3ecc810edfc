# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""mmrazor can be imported, and its quantization says why it cannot be used."""

import sys

import pytest

from mmfakd.compat import allow_mmrazor_without_quantization


def test_shim_is_needed(run_python):
    """Plain mmrazor fails; else this shim can go."""
    code = """
import mmcv
# Another shim is for what mmrazor says of a newer one.
mmcv.__version__ = '2.1.0'
import mmrazor.models
"""
    process = run_python(code, check=False)
    assert 'ImportError: `torch>=1.13` is not installed properly' in process.stderr


def test_mmrazor_builds_by_name_after_importing_mmfakd(run_python):
    run_python("""
import mmfakd
from mmengine.registry import MODELS
loss = MODELS.build(dict(type='mmrazor.KLDivergence', tau=4))
assert type(loss).__module__.startswith('mmrazor.')
import mmrazor.structures.quantization
import mmrazor.structures.subnet
""")


@pytest.mark.parametrize('first', ['mmrazor.models', 'mmrazor.registry'])
def test_mmfakd_may_come_after_a_failed_import_of_mmrazor(first, run_python):
    run_python(f"""
try:
    import {first}
except (AssertionError, ImportError):
    pass
import mmfakd, mmrazor.models
from mmengine.registry import MODELS
MODELS.build(dict(type='mmrazor.ConfigurableDistiller'))
""")


def test_quantization_says_why_it_does_not_work():
    from mmrazor.registry import MODELS
    from mmrazor.structures.quantization import BackendConfigs, QConfigHandler

    message = (
        r'not available.*removed since version 1\.13.*is not installed properly'
        r'.*#615.*torch 1\.13'
    )
    with pytest.raises(
        ImportError, match=r'quantization\.BackendConfigs is ' + message
    ):
        BackendConfigs['native']
    with pytest.raises(ImportError, match=message):
        QConfigHandler(dict())
    with pytest.raises(ImportError, match=message):
        QConfigHandler.check_qconfig(dict())
    with pytest.raises(ImportError, match=message):
        MODELS.build(dict(type='mmrazor.OpenVINOQuantizer', global_qconfig=dict()))


def test_placeholders_are_classes_without_instances():
    from mmrazor.structures.quantization import QConfigHandler

    assert not isinstance(1, QConfigHandler)
    assert QConfigHandler.__module__.startswith('mmfakd.')


def test_shim_is_repeatable():
    before = list(sys.meta_path)
    allow_mmrazor_without_quantization()
    assert sys.meta_path == before


def test_quantization_that_can_be_imported_is_left_alone(run_python, tmp_path):
    """The real subpackage is tried first; a repaired mmrazor would be used."""
    package = tmp_path / 'site' / 'mmrazor' / 'structures' / 'quantization'
    package.mkdir(parents=True)
    (package / '__init__.py').write_text("BackendConfigs = dict(native='real')\n")
    for parent in (package.parent, package.parent.parent):
        (parent / '__init__.py').touch()
    run_python(
        """
import mmfakd
from mmrazor.structures.quantization import BackendConfigs
assert BackendConfigs == dict(native='real')
""",
        tmp_path / 'site',
    )


def test_other_errors_of_mmrazor_are_not_hidden(run_python, tmp_path):
    package = tmp_path / 'site' / 'mmrazor' / 'structures' / 'quantization'
    package.mkdir(parents=True)
    (package / '__init__.py').write_text('1 / 0\n')
    for parent in (package.parent, package.parent.parent):
        (parent / '__init__.py').touch()
    process = run_python(
        'import mmfakd, mmrazor.structures.quantization',
        tmp_path / 'site',
        check=False,
    )
    assert 'ZeroDivisionError' in process.stderr
