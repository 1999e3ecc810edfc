# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""The command line: its options, its help, its errors. What the commands do is tested
with what does it."""

import ast
import inspect
import io
import os
import re
import subprocess
import sys
from pathlib import Path
from pkgutil import resolve_name
from types import SimpleNamespace

import pytest
import torch

from mmfakd import cli
from mmfakd.checkpoints.download import one_try
from mmfakd.compat import environment
from mmfakd.messages import aligned, markdown, near_layers, near_names, printable

ROOT = Path(__file__).resolve().parents[1]
CONFIG = 'fakd_review_r56_r20_1xb64_cifar100'
# The least that each command wants.
LEAST = {
    'train': [CONFIG],
    'test': [CONFIG, 'x.pth'],
    'pair': ['student', 'teacher', '-o', 'x.py'],
    'layers': [CONFIG],
    'check': [CONFIG],
    'check-teacher': [CONFIG],
    'export': ['x.pth', '-o', 'y.pth'],
    'convert': ['x.pth', '-o', 'y.pth'],
    'compare': ['a', 'b'],
    'plot': [CONFIG, 'x.pth', '-o', 'x.png'],
    'detections': [CONFIG, 'x.pth'],
    'benchmark': [],
    'configs list': [],
    'configs copy': [CONFIG],
    'configs show': [CONFIG],
    'zoo list': [],
    'zoo get': ['name'],
    'env': [],
}
SCRIPTS = {
    'benchmark': 'benchmark',
    'check_distillation': 'check',
    'check_teacher': 'check-teacher',
    'compare_detections': 'detections',
    'compare_runs': 'compare',
    'export_student': 'export',
    'list_layers': 'layers',
    'make_distill_config': 'pair',
    'mdistiller_to_mmfakd': 'convert',
    'plot_frequency_attention': 'plot',
    'test': 'test',
    'train': 'train',
}


@pytest.fixture
def called(monkeypatch):
    """What a command would be called with."""

    def call(*words):
        calls = []

        def note(name):
            function = resolve_name(name)

            def stand_in(*args, **kwargs):
                calls.append(inspect.signature(function).bind(*args, **kwargs))

            return stand_in

        monkeypatch.setattr(cli, 'resolve_name', note)
        cli.main([str(word) for word in words])
        [bound] = calls
        # Options that a function hands on.
        return {**bound.arguments, **bound.arguments.get('options', {})}

    return call


@pytest.mark.parametrize('count', ['0', '-1', 'abc', '2.5'])
@pytest.mark.parametrize('command', ['train', 'test'])
def test_numbers_of_processes_that_are_none(command, count, capsys):
    with pytest.raises(SystemExit):
        cli.main([command, *LEAST[command], f'--nproc={count}'])
    said = capsys.readouterr().err
    assert f'{command}: --nproc {count}: ' in said and 'a number above 0' in said


@pytest.mark.parametrize('rest', [[], ['--seed', '1'], ['--max-restarts', '2']])
def test_no_number_of_processes(rest, capsys):
    with pytest.raises(SystemExit):
        cli.main(['train', CONFIG, '--nproc', *rest])
    assert 'train: --nproc: expected a number above 0' in capsys.readouterr().err


@pytest.mark.parametrize('count', ['0', '-3', 'x'])
def test_depths_that_list_nothing(count, capsys):
    with pytest.raises(SystemExit):
        cli.main(['layers', CONFIG, '--depth', count])
    assert f'--depth: {count}: expected a positive number' in capsys.readouterr().err


@pytest.mark.parametrize('launcher', ['slurm', 'mpi'])
def test_processes_are_started_in_one_way(launcher, capsys):
    with pytest.raises(SystemExit):
        cli.main(['train', CONFIG, '--nproc', '2', '--launcher', launcher])
    assert f'--nproc and --launcher {launcher}: each' in capsys.readouterr().err


def test_every_command_is_tried_here():
    assert {name.split()[0] for name in LEAST} == set(cli.COMMANDS)


@pytest.mark.parametrize('command', LEAST)
def test_options_are_what_the_function_takes(command, called):
    """A function that hands options on is held to them where they end."""
    arguments = called(*command.split(), *LEAST[command])
    assert not {'command', 'run', 'action', 'quiet', 'output'} & set(arguments) - (
        {'command'} if command == 'pair' else set()
    )


@pytest.mark.parametrize('command', ['', *LEAST])
def test_help_needs_no_torch(command, run_python):
    process = run_python(f"""
import sys
from mmfakd.cli import main
try:
    main({[*command.split(), '--help']!r})
except SystemExit as error:
    assert not error.code
heavy = {{'torch', 'mmengine', 'numpy'}} & set(sys.modules)
assert not heavy, heavy
""")
    assert 'usage: mmfakd' in process.stdout


@pytest.mark.parametrize('command', LEAST)
def test_output_is_o(command, capsys):
    """Whatever writes a file or folder that the user names calls it so."""
    with pytest.raises(SystemExit):
        cli.main([*command.split(), '--help'])
    text = capsys.readouterr().out
    writes = command not in (
        *('train', 'layers', 'check', 'check-teacher'),
        *('configs list', 'configs show', 'zoo list', 'env'),
    )
    assert ('-o ' in text and '--out' in text) is writes


@pytest.mark.parametrize('command', ['export', 'convert'])
def test_output_in_the_last_place(command, called):
    for words in (['a', 'b'], ['a', '-o', 'b'], ['-o', 'b', 'a'], ['--out=b', 'a']):
        assert called(command, *words)['out'] == 'b'


def test_output_is_missing(capsys):
    with pytest.raises(SystemExit) as error:
        cli.main(['export', 'x.pth'])
    assert error.value.code == 2
    assert '-o FILE' in capsys.readouterr().err


def test_files_by_their_old_options(called):
    words = ['--json', 'a.json', '--plot', 'b.png', '-o', 'c.md']
    assert called('compare', 'a', *words)['out'] == ['a.json', 'b.png', 'c.md']
    assert called('detections', 'a', 'b', '--out-dir', 'c')['out'] == 'c'


def test_home_is_that_of_the_user(called, monkeypatch):
    """No shell puts it in place of `~` behind `=`; a folder of that name is a trap."""
    monkeypatch.setenv('HOME', '/home/me')
    assert called('export', 'a', '--out=~/b.pth')['out'] == '/home/me/b.pth'
    words = ['--json=~/a.json', '--add-to=~/b.json']
    assert called('compare', 'a', *words)['out'] == ['/home/me/a.json']
    assert called('compare', 'a', *words)['add_to'] == '/home/me/b.json'
    assert called('zoo', 'get', 'a', '--out=~/c')['out'] == '/home/me/c'
    train = called('train', CONFIG, '--work-dir=~/d')
    assert train['options']['work_dir'] == '/home/me/d'


@pytest.mark.parametrize('text', ['0x5', 'x', '12x', '-3', '3.5'])
def test_no_size(text, capsys):
    with pytest.raises(SystemExit):
        cli.main(['layers', 'a', f'--input-size={text}'])
    assert 'height and width in pixels' in capsys.readouterr().err


def test_size(called):
    assert called('layers', 'a', '--input-size', '224')['input_size'] == (224, 224)
    assert called('layers', 'a', '--input-size', '64X32')['input_size'] == (64, 32)


@pytest.mark.parametrize(
    'command',
    ['train', 'test', 'layers', 'pair', 'check-teacher', 'plot', 'configs show'],
)
def test_a_mistake_is_one_line(command, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    words = [word.replace(CONFIG, 'resnet18_8xb32_in2k') for word in LEAST[command]]
    words = [word.replace('student', 'resnet18_8xb32_in2k') for word in words]
    with pytest.raises(SystemExit) as error:
        cli.main([*command.split(), *words])
    text = str(error.value.code)
    assert (
        text.startswith(f'mmfakd {command.split()[0]}: ')
        and 'resnet18_8xb32_in1k' in text
    )
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ('words', 'message'),
    [
        ('train a --npro 2', '--npro'),
        ('train a --resum', '--resum'),
        ('configs copy a --forc', '--forc'),
        ('plot a --batches 0', '--batches: 0: expected a positive number'),
        ('plot a --batches few', '--batches: few: expected a positive number'),
        ('detections a b --num 0', '--num: 0: expected a positive number'),
        ('plot a b c.html -o d.html', 'two files to write, c.html and d.html'),
        ('export a b.pth -o c.pth', 'two files to write, b.pth and c.pth'),
    ],
)
def test_wrong_command_lines(words, message, capsys):
    """Abbreviations are none: which options there are is asked before parsing."""
    with pytest.raises(SystemExit) as error:
        cli.main(words.split())
    assert error.value.code == 2 and message in capsys.readouterr().err


def test_mistakes_of_other_kinds_are_one_line(tmp_path, monkeypatch):
    monkeypatch.setenv('MMENGINE_HOME', str(tmp_path))
    with one_try(), pytest.raises(SystemExit, match='^mmfakd export: .*downloaded'):
        cli.main(['export', 'http://127.0.0.1:9/a.pth', str(tmp_path / 'b.pth')])
    wrong = 'optim_wrapper.optimizer.type=Adamm'
    with pytest.raises(SystemExit, match='^mmfakd train: [^\'"].*Adamm'):
        cli.main(['train', 'r18w4_1xb50_digits', '--cfg-options', wrong])
    torch.save([torch.ones(1)], tmp_path / 'list.pth')
    words = ['export', str(tmp_path / 'list.pth'), '-o', str(tmp_path / 'b.pth')]
    with pytest.raises(SystemExit, match='^mmfakd export: .* holds a list; expected'):
        cli.main(words)
    # What is no sentence is a fault of ours.
    monkeypatch.setitem(
        cli.COMMANDS, 'env', (cli._env, 'model_zoo.shipped:list_configs')
    )
    monkeypatch.setattr('mmfakd.model_zoo.shipped.list_configs', lambda: {}['key'])
    with pytest.raises(KeyError, match='key'):
        cli.main(['env'])


@pytest.fixture(params=[-1, 0], ids=['buffered', 'unbuffered'])
def unread(request):
    """A pipe whose reader has left, as `head` does."""
    end, start = os.pipe()
    os.close(end)
    raw = open(start, 'wb', buffering=request.param)  # noqa: SIM115
    stream = io.TextIOWrapper(raw, write_through=not request.param)
    yield stream
    # Nothing waits to be written, of which Python would complain at its end.
    stream.close()


@pytest.mark.parametrize('where', ['as its result', 'while it runs', 'at length'])
def test_output_that_nobody_reads_is_no_fault(where, unread, monkeypatch, capsys):
    def command():
        if where == 'while it runs':
            print('text', flush=True)
        return 'text' * (100_000 if where == 'at length' else 1)

    monkeypatch.setattr(environment, 'describe_environment', command)
    monkeypatch.setattr(sys, 'stdout', unread)
    with pytest.raises(SystemExit) as caught:
        cli.main(['env'])
    assert caught.value.code == 141 and not capsys.readouterr().err


@pytest.mark.skipif(not Path('/dev/full').exists(), reason='Linux has /dev/full')
@pytest.mark.parametrize('args', ['--help', 'env'])
def test_output_that_cannot_be_written(args, monkeypatch):
    monkeypatch.setattr(environment, 'describe_environment', lambda: 'text')
    with open('/dev/full', 'w') as full:
        monkeypatch.setattr(sys, 'stdout', full)
        with pytest.raises(SystemExit, match='No space left on device') as caught:
            cli.main([args])
        # As Python does at its end.
        full.flush()
    assert re.match('mmfakd( env)?: ', caught.value.code)


def test_closed_streams_lead_nowhere(monkeypatch):
    monkeypatch.setattr(environment, 'describe_environment', lambda: 'text')
    for name in ('stdout', 'stderr'):
        monkeypatch.setattr(sys, name, None)
    cli.main(['env'])
    sys.stdout.close()
    sys.stderr.close()


def test_a_command_may_close_its_output(monkeypatch):
    def close():
        sys.stdout.close()
        return 0

    monkeypatch.setattr(environment, 'describe_environment', close)
    monkeypatch.setattr(sys, 'stdout', open(os.devnull, 'w'))  # noqa: SIM115
    with pytest.raises(SystemExit) as caught:
        cli.main(['env'])
    assert caught.value.code == 0


def test_help_that_nobody_reads(unread, monkeypatch):
    monkeypatch.setattr(sys, 'stdout', unread)
    with pytest.raises(SystemExit):
        cli.main(['--help'])
    # As Python does at its end.
    unread.flush()


def test_a_mistake_is_told_where_nobody_reads_the_output(unread, monkeypatch):
    monkeypatch.setattr(sys, 'stdout', unread)
    with pytest.raises(SystemExit, match=r'mmfakd export: .*nowhere\.pth'):
        cli.main(['export', 'nowhere.pth', '-o', 'x.pth'])


@pytest.mark.skipif(not Path('/dev/full').exists(), reason='Linux has /dev/full')
def test_another_file_that_cannot_be_written_is_told(unread, monkeypatch, capsys):
    """As by a training, whose errors have a traceback. One disk may be full of both."""

    def train():
        raise OSError(28, 'No space left on device', 'epoch_1.pth')

    monkeypatch.setattr(environment, 'describe_environment', lambda: train)
    with pytest.raises(OSError, match='epoch_1.pth'):
        cli.main(['env'])
    assert not capsys.readouterr().out
    with open('/dev/full', 'w') as full:
        for stream in (unread, full):
            monkeypatch.setattr(sys, 'stdout', stream)
            with pytest.raises(OSError, match='epoch_1.pth'):
                cli.main(['env'])


def test_an_output_of_ones_own(monkeypatch):
    """It writes, and that is all."""
    texts = []
    own = SimpleNamespace(write=texts.append, flush=lambda: None)
    monkeypatch.setattr(environment, 'describe_environment', lambda: 'text')
    monkeypatch.setattr(sys, 'stdout', own)
    cli.main(['env'])
    assert texts == ['text\n']


def test_text_that_an_output_has_no_letters_for(monkeypatch):
    monkeypatch.setattr(environment, 'describe_environment', lambda: 'größe')
    monkeypatch.setattr(sys, 'stdout', io.TextIOWrapper(io.BytesIO(), 'ascii'))
    with pytest.raises(UnicodeEncodeError):
        cli.main(['env'])


def test_other_pipes_that_break_are_faults(monkeypatch):
    def command():
        raise BrokenPipeError(32, 'a worker has gone')

    monkeypatch.setattr(environment, 'describe_environment', command)
    with pytest.raises(BrokenPipeError, match='a worker has gone'):
        cli.main(['env'])


def test_version(capsys):
    from mmfakd import __version__

    with pytest.raises(SystemExit):
        cli.main(['--version'])
    assert capsys.readouterr().out.strip() == __version__


def test_scripts_are_fronts_of_commands():
    """For a checkout and for `mim run`, which look for files in `tools`."""
    found = {file.stem: file for file in (ROOT / 'tools').glob('*.py')}
    assert set(found) == set(SCRIPTS)
    for name, command in SCRIPTS.items():
        call = ast.parse(found[name].read_text()).body[-1].body[0]
        assert ast.unparse(call) == f"front('{command}')"


def test_script_and_module_are_the_command(tmp_path):
    front = [sys.executable, str(ROOT / 'tools/list_layers.py'), '--help']
    module = [sys.executable, '-m', 'mmfakd', 'layers', '--help']
    environ = {'PYTHONPATH': str(ROOT), 'PATH': ''}
    first, second = (
        subprocess.run(
            command, cwd=tmp_path, env=environ, capture_output=True, check=True
        ).stdout
        for command in (front, module)
    )
    assert first == second


def test_near_names():
    known = ['resnet18', 'resnet34', 'ResNet50', 'vgg']
    assert 'resnet34' in near_names('Resnet35', known)
    assert 'ResNet50' in near_names('resnet50', known)
    assert near_names('swin', known) == []


def test_near_layers_show_siblings():
    layers = ['', 'backbone', 'backbone.layer1', 'backbone.layer2', 'head.fc']
    assert near_layers('backbone.stage', layers).count('backbone.layer') == 2
    assert near_layers('x', ['yyyyy.z']) == 'none'


def test_tables():
    rows = [('layer', 'n'), ('a', '10'), ('very long indeed', '2')]
    assert aligned(rows).splitlines()[1] == 'a                 10'
    assert aligned(rows, widest=5).splitlines()[1] == 'a      10'
    assert markdown(rows)[:2] == ['| layer | n |', '| --- | --- |']
    assert markdown([('a|b', 'c\nd')])[0] == r'| a\|b | c d |'


def test_no_terminal_obeys_a_stranger():
    assert printable('a\x1b[2J\r\x07\x9b\x7f\udcff') == r'a\x1b[2J\r\x07\x9b\x7f\udcff'
    assert printable('ä\t|\n\\x') == 'ä\t|\n\\x'
    assert printable(ValueError('\x00')) == r'\x00'
    assert aligned([['a\x1b', 'b']]) == r'a\x1b  b'
    assert markdown([['a\x1b']])[0] == r'| a\x1b |'


def test_keys_of_a_file_reach_no_terminal_raw(tmp_path):
    torch.save({'a\x1b[2J': torch.zeros(3)}, tmp_path / 'b\x1b.pth')
    with pytest.raises(SystemExit, match=r'a\\x1b\[2J') as error:
        cli.main(['export', str(tmp_path / 'b\x1b.pth'), '-o', str(tmp_path / 'c.pth')])
    assert '\x1b' not in str(error.value)
