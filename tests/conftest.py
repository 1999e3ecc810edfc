# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""Fixtures of all tests: one thread, one seed, no state shared between tests."""

import functools
import gc
import importlib.util
import os
import random
import re
import socket
import subprocess
import sys
import tempfile
import threading
from functools import partial
from pathlib import Path

# Before torch and matplotlib are imported, and for the subprocesses of tests.
os.environ.setdefault('OMP_NUM_THREADS', '1')
os.environ.setdefault('MPLBACKEND', 'Agg')

import numpy as np
import pytest
import torch
from mmengine.config import config as config_module
from mmengine.config import utils as config_utils
from mmengine.utils import ManagerMixin
from mmengine.utils import manager as manager_module

import mmfakd  # noqa: F401  (its shims come before mmrazor is imported anywhere)
from tests.helpers.plain_configs import as_it_is, formatted_with

REPOSITORY = Path(__file__).resolve().parents[1]

torch.set_num_threads(1)


# Modules that start many processes, and those that would else be the last ones.
_LAST = ('segmentation', 'site', 'snippets')
_LONG = ('/test_tools/', *(f'/test_{name}.py' for name in _LAST))


def _has_operators():
    """Whether mmcv's compiled operators are installed; imports nothing."""
    spec = importlib.util.find_spec('mmcv')
    folders = spec.submodule_search_locations if spec else None
    return any(list(Path(folder).glob('_ext.*')) for folder in folders or ())


def _find_missing():
    """What an environment without operators, or without mmdet, says of it."""
    missing = [] if _has_operators() else ["No module named '(mmcv._ext|mmdet)"]
    if importlib.util.find_spec('mmdet') is None:
        # MMEngine logs it, and then fails with what the registries do not have.
        missing += [
            "'?mmdet'? is not installed",
            'A config of mmdet was asked for by name',
            "type='(mmdet.)?RetinaNet' is not registered",
        ]
    return re.compile('|'.join(missing or ['(?!)']))


_MISSING = _find_missing()


def _managers(base=ManagerMixin):
    """Yield every class that keeps global instances: scopes, loggers, hubs, ..."""
    for manager in base.__subclasses__():
        yield manager
        yield from _managers(manager)


def pytest_collection_modifyitems(config, items):
    """Leave what takes long or needs much out, unless `-m` speaks of it.

    What takes minutes comes first: a worker that got it last would work alone.
    """
    items.sort(key=lambda item: not any(name in item.nodeid for name in _LONG))
    for marker in ('matrix', 'cluster', 'kills'):
        if marker in config.option.markexpr:
            continue
        left_out = [item for item in items if item.get_closest_marker(marker)]
        items[:] = [item for item in items if item not in left_out]
        config.hook.pytest_deselected(items=left_out)


def _spare_the_collector():
    """Take what is there from the collector of garbage: it took 7 % of all time."""
    gc.collect()
    gc.freeze()


def pytest_collection_finish():
    """Begin with what is imported by then."""
    _spare_the_collector()
    gc.set_threshold(10_000, 20, 20)


def _skip_without_operators(report, path):
    """Turn a failure for want of mmcv's operators or of mmdet into a skip."""
    if not report.failed:
        return
    captured = (text for _, text in report.sections)
    if _MISSING.search('\n'.join([str(report.longrepr), *captured])):
        report.outcome = 'skipped'
        report.longrepr = (str(path), 0, "Skipped: needs mmcv's operators and mmdet")


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item, call):
    """Skip what an environment with mmcv-lite cannot run."""
    outcome = yield
    _skip_without_operators(outcome.get_result(), item.path)


@pytest.hookimpl(hookwrapper=True)
def pytest_make_collect_report(collector):
    """Skip modules of tests that an environment with mmcv-lite cannot import."""
    outcome = yield
    _skip_without_operators(outcome.get_result(), collector.path)


@pytest.fixture(autouse=True, scope='session')
def configs_are_copied_in_memory():
    """MMEngine copies a config and its bases to a temporary folder to read them.

    There are thousands, and disks take some milliseconds to delete such a folder.
    """
    memory = Path('/dev/shm')
    if not os.access(memory, os.W_OK):
        yield
        return

    class InMemory:
        TemporaryDirectory = partial(tempfile.TemporaryDirectory, dir=memory)
        NamedTemporaryFile = tempfile.NamedTemporaryFile

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(config_module, 'tempfile', InMemory)
        yield


@pytest.fixture(autouse=True, scope='session')
def metafiles_are_read_once():
    """MMEngine reads the 90 of a package for each config that is asked for by name."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(config_utils, 'load', functools.lru_cache(512)(config_utils.load))
        yield


@pytest.fixture(autouse=True, scope='session')
def data_workers_are_not_waited_for():
    """The garbage collector waits five seconds for each that it finds."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr('torch.utils.data._utils.MP_STATUS_CHECK_INTERVAL', 0.2)
        yield


@pytest.fixture(autouse=True, scope='session')
def configs_are_not_laid_out():
    """Yapf takes half a second for the text of a detector's config."""
    with formatted_with(as_it_is):
        yield


@pytest.fixture(autouse=True, scope='module')
def fresh_managers():
    """Drop the global instances that fixtures of an earlier module have left."""
    for manager in _managers():
        manager._instance_dict.clear()
    # MMEngine collects for each data set, and tests go on importing.
    _spare_the_collector()


@pytest.fixture(autouse=True)
def isolated_managers():
    """Drop the global instances of MMEngine that a test leaves behind.

    A default scope or message hub of one test would otherwise decide what the
    next one builds or logs. An error within `get_instance` leaves MMEngine's lock
    locked, and a thread of another test would wait for it.
    """
    manager_module._lock = threading.RLock()
    before = {manager: manager._instance_dict.copy() for manager in _managers()}
    yield
    for manager in _managers():
        kept = before.get(manager, {})
        for name, instance in manager._instance_dict.items():
            if name not in kept:
                for handler in getattr(instance, 'handlers', []):
                    handler.close()
        manager._instance_dict.clear()
        manager._instance_dict.update(kept)


@pytest.fixture(autouse=True)
def seeded():
    """Start every test from the same random state, whatever ran before it."""
    random.seed(0)
    np.random.seed(0)
    torch.manual_seed(0)


@pytest.fixture
def work_dir(tmp_path):
    """An empty work directory, as the string that configs hold."""
    path = tmp_path / 'work_dir'
    path.mkdir()
    return str(path)


@pytest.fixture
def no_network(monkeypatch):
    """Every attempt to connect is an error."""

    def refuse(self, address):
        raise AssertionError(f'a connection to {address} was tried')

    monkeypatch.setattr(socket.socket, 'connect', refuse)


@pytest.fixture
def run_python(tmp_path):
    """Run code in a fresh interpreter that sees this checkout, outside of it.

    Returns:
        A function ``run(code, *paths, check=True)``: ``paths`` go before this
        checkout on ``PYTHONPATH``. It returns the completed process; a failing one
        is an error that shows its output unless ``check`` is False.
    """

    def run(code, *paths, check=True):
        search = os.pathsep.join(map(str, [*paths, REPOSITORY]))
        process = subprocess.run(
            [sys.executable, '-c', code],
            cwd=tmp_path,
            env={**os.environ, 'PYTHONPATH': search},
            capture_output=True,
            text=True,
        )
        if check and process.returncode:
            pytest.fail(f'{code}\nfailed:\n{process.stdout}\n{process.stderr}')
        return process

    return run
