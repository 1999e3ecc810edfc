# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""A stand-in for the command `mmfakd`, for tables of runs that nobody trains."""

import sys

import pytest
import table_log
import table_run

STAND_IN = """
import json, sys, time
from pathlib import Path

kind, *words = sys.argv[1:]
if kind == 'train':
    print('trained by', *words)
    sys.exit(3 * ('fails=1' in words))
[path] = [Path(word[9:]) for word in words if word.startswith('--add-to=')]
name, _, folder = words[-1].rpartition('=')
empty = dict(metric='accuracy/top1', baseline=name, methods=[])
log = json.loads(path.read_text()) if path.exists() else empty
time.sleep(0.3)
if name == 'unread':
    sys.exit('nothing to read')
none = dict(seconds=None, step_seconds=None, data_share=None)
score = dict(last=1.0, best=1.0, curve=[[1, 1.0]], losses=[], **none)
run = dict(work_dir=folder, seed=int(folder[-1]), **score)
mean = dict.fromkeys(('last', 'best'), dict(mean=1.0, spread=None))
method = dict(method=name, unit='epoch', parameters=None, added=None, **mean, **none)
methods = {known['method']: known for known in log['methods']}
runs = methods.setdefault(name, dict(method, runs=[]))['runs']
runs[:] = [known for known in runs if known['seed'] != run['seed']] + [run]
path.write_text(json.dumps(dict(log, methods=list(methods.values()))))
"""


@pytest.fixture
def stand_in(tmp_path, monkeypatch):
    """Let the scripts call it: `train` prints its words, `compare` adds a run."""
    script = tmp_path / 'mmfakd.py'
    script.write_text(STAND_IN)
    for module in (table_run, table_log):
        monkeypatch.setattr(module, 'COMMAND', [sys.executable, str(script)])
