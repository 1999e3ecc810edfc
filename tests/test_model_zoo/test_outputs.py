# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""What commands read is never overwritten, with --force neither."""

import errno
import os
import tempfile

import pytest

from mmfakd import cli
from mmfakd.model_zoo.outputs import check_outputs, explain_unwritten


def test_existing_files_and_sources(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / 'there').write_text('mine')
    (tmp_path / 'link').symlink_to('there')
    check_outputs(False, ['new', None], ['there', 'resnet18', 'https://a.b/c.pth'])
    check_outputs(True, ['there'], ['new', None])
    with pytest.raises(FileExistsError, match='there exists; .*--force'):
        check_outputs(False, ['new', 'there'])
    for name in ('there', './there', 'link', str(tmp_path / 'there')):
        with pytest.raises(FileExistsError, match='that this command reads'):
            check_outputs(True, [name], ['there'])
    for name in ('there', './there', 'link', str(tmp_path / 'there')):
        with pytest.raises(FileExistsError, match='be written twice, as there is'):
            check_outputs(True, ['there', name])


def test_what_cannot_be_written(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / 'file').write_text('mine')
    (tmp_path / 'folder').mkdir()
    check_outputs(False, ['new', 'a/b/new', 's3://bucket/new', str(tmp_path / 'c/d')])
    for path, message in {
        'file/new': 'file/new could not be written: Not a directory. Choose another',
        'file/a/b': 'file/a/b could not be written: Not a directory',
        'folder': 'folder could not be written: It is a folder',
    }.items():
        with pytest.raises(OSError, match=f'^{message}'):
            check_outputs(True, [path])
    assert sorted(os.listdir()) == ['file', 'folder']

    def refuse(dir):
        raise PermissionError(errno.EACCES, 'Permission denied', f'{dir}/tmp0')

    monkeypatch.setattr(tempfile, 'TemporaryFile', refuse)
    with pytest.raises(PermissionError, match='^a/new could .*: Permission denied.'):
        check_outputs(False, ['a/new'])
    # A file is written beside the older one, which it then replaces.
    with pytest.raises(PermissionError, match='^file could not be written'):
        check_outputs(True, ['file'])


@pytest.mark.skipif(not hasattr(os, 'mkfifo'), reason='Windows has none')
@pytest.mark.parametrize('force', [False, True])
def test_devices_and_pipes_are_kept(force, tmp_path):
    """A file that is renamed takes the place of `/dev/null`, if it may."""
    pipe, link = tmp_path / 'pipe.pth', tmp_path / 'link.pth'
    os.mkfifo(pipe)
    link.symlink_to(pipe)
    outs = [str(pipe), str(link), '/dev/null', '/dev/stdout', '/dev/new.pth']
    for out in (*outs, '/proc/self/fd/1'):
        with pytest.raises(FileExistsError, match=f'{out} is a device or a pipe, and'):
            check_outputs(force, [out])
    assert pipe.is_fifo() and link.is_symlink()
    check_outputs(force, ['/dev/shm/new.pth'] if os.path.isdir('/dev/shm') else [])


def test_errors_that_are_not_of_the_file(tmp_path):
    path = tmp_path / 'a' / 'new'
    for error in (
        FileNotFoundError(errno.ENOENT, 'No such file or directory', 'images/1.png'),
        OSError('what a library says'),
        ValueError('no error of the system'),
    ):
        with pytest.raises(type(error)) as caught, explain_unwritten(path):
            raise error
        assert caught.value is error
    for name in (None, str(path), f'{path}.part', str(tmp_path / 'a')):
        error = OSError(errno.EROFS, 'Read-only file system', name)
        with pytest.raises(OSError) as caught, explain_unwritten(path):
            raise error
        assert str(caught.value).startswith(f'{path} could not be written: Read-only ')
        assert caught.value.errno == errno.EROFS


@pytest.mark.parametrize(
    'command',
    [
        'pair r18w4_1xb50_digits r18w32_1xb50_digits -o file/x.py',
        'export gone.pth -o file/x.pth',
        'export gone.pth -o file/x.onnx',
        'export gone.pth -o x.onnx --config-out file/x.py',
        'convert gone.pth -o file/x.pth',
        'configs copy r18w4_1xb50_digits -o file/x.py',
        'zoo get r18w4_1xb50_digits -o file/x',
        'test r18w4_1xb50_digits gone.pth --out file/x.pkl',
        'plot r18w4_1xb50_digits gone.pth -o file/x.png',
        'detections r18w4_1xb50_digits gone.pth -o file/x',
        'benchmark -o file/x.json',
    ],
)
def test_commands_tell_it_before_they_begin(command, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / 'file').write_text('mine')
    with pytest.raises(SystemExit, match='file/x.* could not be written: Not a dir'):
        cli.main(command.split())
    assert os.listdir() == ['file']


@pytest.mark.parametrize(
    'command',
    [
        'pair stud.py resnet18_8xb32_in1k -o stud.py',
        'pair stud.py resnet18_8xb32_in1k -o base.py',
        'pair resnet18_8xb32_in1k stud.py -o ./stud.py',
        'export a.pth a.pth',
        'export a.pth a.onnx --config stud.py --config-out base.py',
        'convert a.pth -o a.pth',
        'configs copy stud.py -o base.py',
    ],
)
def test_sources_of_commands(command, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    files = {'base.py': 'a = 1\n', 'stud.py': "_base_ = 'base.py'\n", 'a.pth': 'x'}
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    with pytest.raises(SystemExit, match='is a file that this command reads'):
        cli.main([*command.split(), '--force'])
    assert {p.name: p.read_text() for p in tmp_path.iterdir()} == files


def test_results_take_the_place_of_no_checkpoint(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / 'a.pkl').write_text('x')
    with pytest.raises(SystemExit, match='is a file that this command reads'):
        cli.main(['test', 'r18w4_1xb50_digits', 'a.pkl', '--out', 'a.pkl'])
