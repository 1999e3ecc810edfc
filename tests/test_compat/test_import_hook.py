# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""Shims wait for the module that they are for, and leave no trace in it."""

import textwrap
from pathlib import Path

import pytest
import torch

from mmfakd.compat.late_imports import _EXTENSION, _IMPORTERS
from mmfakd.compat.mmrazor_types import _DELIVERIES, _RECORDERS
from mmfakd.compat.mmrazor_val_loop import _LOOPS
from mmfakd.version import parse_version

STORED = Path(__file__).parents[1] / 'data' / 'checkpoints' / 'numpy2.pth'
# Whether the shims for MMEngine are there.
MENDED = """
import sys
def mended():
    utils = sys.modules['mmengine'].utils.package_utils
    return hasattr(utils.get_installed_path, 'mmfakd')
def hooks():
    watched = {n for h in sys.meta_path for n in getattr(h, 'watched', ())}
    # Watched once mmpretrain is there.
    return sorted(watched - {'mmdet.models'})
"""
WATCHED = [
    'mmcv.transforms',
    'mmengine',
    'mmengine.dataset.base_dataset',
    'mmengine.optim.optimizer.default_constructor',
    'mmengine.config.config',
    'mmengine.hooks.checkpoint_hook',
    'mmengine.hub.hub',
    'mmengine.infer',
    'mmengine.registry',
    'mmengine.runner.checkpoint',
    'mmengine.runner.loops',
    'mmdet.datasets',
    'mmdet.datasets.transforms',
    'mmpretrain.datasets',
    'mmpretrain.datasets.transforms',
    'mmseg.datasets',
    'mmseg.datasets.transforms',
    'mmrazor',
    _DELIVERIES,
    _RECORDERS,
    _LOOPS,
    _EXTENSION,
    *_IMPORTERS,
    'mmrazor.structures.quantization',
    'torch',
]
WATCHED.sort()


@pytest.fixture
def run(run_python):
    def call(code, *paths):
        return run_python(MENDED + textwrap.dedent(code), *paths)

    return call


def test_import_of_mmfakd_alone_is_light(run):
    run("""
        import mmfakd
        assert not {'torch', 'mmengine', 'numpy'} & set(sys.modules)
        """)


@pytest.mark.parametrize(
    'order',
    [
        'mmfakd, mmengine',
        'mmengine, mmfakd',
        'torch, mmfakd',
        'mmfakd, mmrazor.models',
        'mmfakd.models.layers',
    ],
)
def test_shims_are_there_in_any_order(order, run):
    run(f"""
        import {order}
        assert mended()
        assert hooks() == {WATCHED}
        """)


@pytest.mark.skipif(
    parse_version(torch.__version__) < (2, 6), reason='nothing to allow there'
)
@pytest.mark.parametrize('order', ['mmfakd, torch', 'torch, mmfakd'])
def test_torch_alone_reads_checkpoints_of_mmengine(order, run):
    run(f"""
        import {order}
        assert torch.load({str(STORED)!r})['message_hub']['log_scalars']
        """)


def test_modules_look_as_ever(run):
    run("""
        import mmfakd, torch, mmengine.runner, mmrazor.structures.quantization
        import mmcv.transforms
        from importlib.machinery import SourceFileLoader
        import mmpretrain.datasets, mmpretrain.models, mmrazor.engine
        seen = [name for name in hooks() if name in sys.modules]
        assert len(seen) > 10
        for name in seen:
            module = sys.modules[name]
            assert type(module.__loader__) is SourceFileLoader, name
            assert module.__spec__.loader is module.__loader__, name
            assert vars(module.__loader__).keys() == {'name', 'path'}, name
        """)


def test_looking_for_a_module_does_nothing(run):
    run("""
        import mmfakd
        from importlib.util import find_spec
        spec = find_spec('mmengine')
        assert spec.origin.endswith('__init__.py')
        assert spec.loader.get_source('mmengine')
        assert 'mmengine' not in sys.modules and 'torch' not in sys.modules
        import mmengine
        assert mended()
        """)


def test_reload(run):
    run(f"""
        import importlib
        import mmfakd, mmengine, torch
        path = mmengine.get_installed_path
        safe = getattr(torch.serialization, 'get_safe_globals', list)
        known = len(safe())
        for module in (mmengine, mmfakd, mmfakd.compat, mmengine):
            importlib.reload(module)
        assert mended() and mmengine.get_installed_path is path
        assert len(safe()) == known
        assert hooks() == {WATCHED}
        """)


@pytest.mark.parametrize('between', ['pass', 'import mmengine'])
def test_second_import_of_mmfakd(between, run):
    run(f"""
        import mmfakd
        {between}
        for name in [name for name in sys.modules if name.startswith('mmfakd')]:
            del sys.modules[name]
        import mmfakd, mmengine
        assert mended()
        assert hooks() == {WATCHED}
        """)


def test_failed_import_can_be_repeated(run, tmp_path):
    """Here the first import of MMEngine fails, in its middle."""
    (tmp_path / 'site').mkdir()
    (tmp_path / 'site' / 'addict.py').write_text("raise ImportError('on purpose')\n")
    run(
        f"""
        import mmfakd
        try:
            import mmengine
        except ImportError as error:
            assert 'on purpose' in str(error)
        else:
            raise AssertionError
        assert 'mmengine' not in sys.modules and hooks() == {WATCHED}
        sys.path.remove({str(tmp_path / 'site')!r})
        import mmengine
        assert mended()
        """,
        tmp_path / 'site',
    )


def test_torch_does_without_a_broken_mmengine(run, tmp_path):
    package = tmp_path / 'site' / 'mmengine'
    package.mkdir(parents=True)
    (package / '__init__.py').write_text("raise OSError('on purpose')\n")
    run(
        """
        import mmfakd, torch
        assert torch.ones(1) == 1 and 'mmengine' not in sys.modules
        """,
        tmp_path / 'site',
    )


def test_other_finders_are_asked(run, tmp_path):
    """An editable install may have a finder of its own, behind Python's."""
    file = tmp_path / 'elsewhere.py'
    file.write_text('value = 1\n')
    run(f"""
        from importlib.util import spec_from_file_location
        from mmfakd.compat.import_hook import when_imported
        class Finder:
            def find_spec(name, path, target=None):
                if name == 'found_otherwise':
                    return spec_from_file_location(name, {str(file)!r})
        sys.meta_path.append(Finder)
        seen = []
        def look():
            seen.append(sys.modules['found_otherwise'].value)
        when_imported('found_otherwise', look)
        import found_otherwise
        assert seen == [1]
        """)
