# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""`--nproc`: which words are torchrun's, and what is started."""

import os
import subprocess
import sys
from contextlib import nullcontext
from itertools import permutations

import pytest
import torch

from mmfakd.cli import make_parser
from mmfakd.engine.processes import (
    check_processes,
    get_args_parser,
    may_be_restarted,
    split_options,
    start_processes,
)


def test_options_are_told_apart_in_any_order():
    parts = [
        ['c.py'],
        ['--nproc', '2'],
        ['--master-addr', '10.0.0.1'],
        ['--work-dir', 'w'],
        ['--max-restarts=3'],
    ]
    for order in permutations(parts):
        own, launcher = split_options(['train', *(word for p in order for word in p)])
        mine = [word for p in order if p[0] in ('c.py', '--work-dir') for word in p]
        assert own == ['train', *mine]
        assert sorted(launcher) == sorted(
            ['--nproc-per-node', '2', '--master-addr', '10.0.0.1', '--max-restarts=3']
        )
        assert launcher[launcher.index('--nproc-per-node') + 1] == '2'
        assert launcher[launcher.index('--master-addr') + 1] == '10.0.0.1'


@pytest.mark.parametrize(
    ('words', 'own', 'launcher'),
    [
        (['--nproc=2'], [], ['--nproc-per-node=2']),
        (['--nproc', 'gpu'], [], ['--nproc-per-node', 'gpu']),
        (['--nproc_per_node', '4'], [], ['--nproc_per_node', '4']),
        (['--master_port=29511'], [], ['--master_port=29511']),
        (['--node-rank', '-1'], [], ['--node-rank', '-1']),
        (['--rdzv-conf=a=1,b=2'], [], ['--rdzv-conf=a=1,b=2']),
        (['--rdzv-id', '--odd'], [], ['--rdzv-id', '--odd']),
        (['--standalone', 'c.py'], ['c.py'], ['--standalone']),
        (['--seed', '2', '--nnodes', '2'], ['--seed', '2'], ['--nnodes', '2']),
        (['--seed=-1'], ['--seed=-1'], []),
        (
            ['--cfg-options', 'a=1', 'b="[2, 3]"', '--tee', '3', '--amp'],
            ['--cfg-options', 'a=1', 'b="[2, 3]"', '--amp'],
            ['--tee', '3'],
        ),
        (['--resume', '--nproc', '2'], ['--resume'], ['--nproc-per-node', '2']),
        # Torchrun complains.
        (['--nproc'], [], ['--nproc-per-node']),
        # Nobody's, or not to be passed on.
        (['--nodes', '2', '-m', 'x'], ['--nodes', '2', '-m', 'x'], []),
        (['--help', '-h', '--module'], ['--help', '-h', '--module'], []),
        (['--no-python', '--run_path'], ['--no-python', '--run_path'], []),
        ([], [], []),
    ],
)
def test_split(words, own, launcher):
    assert split_options(words) == (own, launcher)


@pytest.mark.parametrize('command', ['train', 'test'])
def test_no_option_is_of_both(command):
    [commands] = make_parser()._subparsers._group_actions
    options = commands.choices[command]._option_string_actions
    common = set(options) & set(get_args_parser()._option_string_actions)
    assert common == {'-h', '--help'}


@pytest.mark.parametrize(
    ('options', 'meeting'),
    [
        ([], ['--standalone']),
        (['--max-restarts=3'], ['--standalone']),
        (['--nnodes', '2', '--node-rank', '0', '--master-addr', 'h'], []),
        (['--rdzv_endpoint=h:1'], []),
        (['--standalone'], []),
    ],
)
def test_what_is_started(options, meeting, monkeypatch):
    calls = []
    monkeypatch.setattr(os, 'execv', lambda path, words: calls.append((path, words)))
    start_processes(['train', 'c.py', *options, '--nproc=2', '--seed', '1'])
    [(path, words)] = calls
    assert path == words[0] == sys.executable
    assert words[1:3] == ['-m', 'torch.distributed.run']
    end = ['-m', 'mmfakd', 'train', 'c.py', '--seed', '1', '--launcher', 'pytorch']
    assert words[-len(end) :] == end
    middle = words[3 : -len(end)]
    assert middle[: len(meeting)] == meeting
    assert middle.count('--standalone') == ('--standalone' in [*options, *meeting])
    # Torchrun itself reads them so.
    parsed = get_args_parser().parse_args(words[3:])
    assert parsed.nproc_per_node == '2' and parsed.module
    assert parsed.training_script == 'mmfakd'
    assert parsed.training_script_args == end[2:]


def test_option_unknown_to_both_is_told_once(tmp_path):
    process = subprocess.run(
        [sys.executable, '-m', 'mmfakd', 'train', 'c.py', '--nproc', '2', '--sed', '1'],
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert process.returncode == 2
    assert process.stderr.count('unrecognized arguments') == 1
    assert 'torch' not in process.stderr


@pytest.mark.parametrize(
    ('gpus', 'count', 'refused'),
    [
        (0, '8', False),
        (4, '4', False),
        (4, 'gpu', False),
        (4, '5', True),
        (4, '4 --nnodes=2', False),
    ],
)
def test_each_process_has_a_gpu_where_there_are_some(gpus, count, refused, monkeypatch):
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: gpus > 0)
    monkeypatch.setattr(torch.cuda, 'device_count', lambda: gpus)
    said = pytest.raises(
        ValueError, match=r'--nproc 5: .* 4 GPU\(s\) .* `--nproc 4`, or'
    )
    with said if refused else nullcontext():
        check_processes(f'--nproc-per-node={count}'.split())


@pytest.mark.parametrize('given', [[], ['--signals_to_handle=SIGTERM']])
def test_torchrun_passes_on_the_signal_of_slurm(given, monkeypatch):
    calls = []
    monkeypatch.setattr(os, 'execv', lambda path, words: calls.append(words))
    start_processes(['train', 'c.py', '--nproc=2', *given])
    [words] = calls
    if '--signals-to-handle' not in get_args_parser()._option_string_actions:
        assert not any('signals' in word for word in words if word not in given)
        return
    signals = get_args_parser().parse_args(words[3:]).signals_to_handle.split(',')
    assert 'SIGTERM' in signals and ('SIGUSR1' in signals) == (not given)


@pytest.mark.parametrize(
    ('environment', 'answer'),
    [
        ({}, False),
        (dict(TORCHELASTIC_RESTART_COUNT=0, SLURM_RESTART_COUNT=''), False),
        (dict(TORCHELASTIC_RESTART_COUNT=2), True),
        (dict(SLURM_RESTART_COUNT=1), True),
        # The first start of one machine may be the second of another.
        (dict(TORCHELASTIC_MAX_RESTARTS=3, GROUP_WORLD_SIZE=2), True),
        (dict(TORCHELASTIC_MAX_RESTARTS=3, GROUP_WORLD_SIZE=1), False),
        (dict(TORCHELASTIC_MAX_RESTARTS=0, GROUP_WORLD_SIZE=2), False),
    ],
)
def test_restarted(environment, answer, monkeypatch):
    for name in [n for n in os.environ if n.startswith(('TORCHELASTIC', 'SLURM'))]:
        monkeypatch.delenv(name)
    monkeypatch.delenv('GROUP_WORLD_SIZE', raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, str(value))
    assert may_be_restarted() == answer
