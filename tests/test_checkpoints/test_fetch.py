# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""Checkpoints from files, a local server and the names of the model zoos."""

import functools
import hashlib
import http.server
import threading

import pytest
import torch
from mmengine.hub import get_config
from torch import nn

from mmfakd.checkpoints import fetch
from mmfakd.checkpoints.fetch import fetch_checkpoint


class Handler(http.server.SimpleHTTPRequestHandler):
    """Serves a folder; what is named `cut` breaks off in the middle."""

    def log_message(self, *args):
        pass

    def do_GET(self):
        self.server.requested.append(self.path)
        if 'cut' not in self.path:
            super().do_GET()
            return
        with open(self.translate_path(self.path), 'rb') as file:
            content = file.read()
        self.send_response(200)
        self.send_header('Content-Length', str(len(content)))
        self.end_headers()
        self.wfile.write(content[: len(content) // 2])


@pytest.fixture(scope='module')
def server(tmp_path_factory):
    folder = tmp_path_factory.mktemp('served')
    handler = functools.partial(Handler, directory=str(folder))
    instance = http.server.ThreadingHTTPServer(('127.0.0.1', 0), handler)
    instance.folder, instance.requested = folder, []
    instance.url = f'http://127.0.0.1:{instance.server_address[1]}'
    thread = threading.Thread(target=instance.serve_forever, daemon=True)
    thread.start()
    yield instance
    instance.shutdown()
    instance.server_close()


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """The folder that downloads go to."""
    monkeypatch.setenv('MMENGINE_HOME', str(tmp_path / 'home'))
    monkeypatch.setenv('no_proxy', '127.0.0.1')
    return tmp_path / 'home' / 'checkpoints'


@pytest.fixture(scope='module')
def weights():
    return nn.Linear(3, 2).state_dict()


def save(folder, name, weights):
    """Save under a name whose HASH is replaced by the file's own."""
    path = folder / 'file.pth'
    torch.save(dict(state_dict=weights), path)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    return path.rename(folder / name.replace('HASH', digest[:8]))


def assert_loaded(checkpoint, weights):
    assert checkpoint.keys() == {'state_dict'}
    torch.testing.assert_close(checkpoint['state_dict'], dict(weights))


def test_local_file(tmp_path, weights):
    assert_loaded(fetch_checkpoint(str(save(tmp_path, 'a.pth', weights))), weights)


def test_home_directory(tmp_path, monkeypatch, weights):
    monkeypatch.setenv('HOME', str(tmp_path))
    save(tmp_path, 'a.pth', weights)
    assert_loaded(fetch_checkpoint('~/a.pth'), weights)


@pytest.mark.parametrize('name', ['work_dirs/run/epoch_1.pth', 'lone.pth', 'a/b'])
def test_missing_file(name):
    with pytest.raises(FileNotFoundError) as error:
        fetch_checkpoint(name)
    assert repr(name) in str(error.value)
    assert 'neither a file' in str(error.value)
    assert 'Check the path' in str(error.value)


def test_truncated_file(tmp_path, weights):
    path = save(tmp_path, 'a.pth', weights)
    path.write_bytes(path.read_bytes()[:500])
    with pytest.raises(ValueError, match=r'a\.pth" is truncated'):
        fetch_checkpoint(str(path))


def test_local_file_with_its_hash_is_silent(tmp_path, weights, logged):
    fetch_checkpoint(str(save(tmp_path, 'net-HASH.pth', weights)))
    assert not logged


def test_local_file_with_another_hash_only_warns(tmp_path, weights, logged):
    path = save(tmp_path, 'net-01234567.pth', weights)
    assert_loaded(fetch_checkpoint(str(path)), weights)
    (message,) = logged
    assert str(path) in message
    assert 'promises the SHA-256 01234567...' in message


@pytest.mark.parametrize(
    'name', ['run_20240131.pth', 'run-20240131.pth', 'iter_10000000.pth', 'a-bc.pth']
)
def test_dates_and_counts_are_no_hashes(name, tmp_path, weights, logged):
    fetch_checkpoint(str(save(tmp_path, name, weights)))
    assert not logged


def test_download_with_the_right_hash_happens_once(server, cache, weights, logged):
    path = save(server.folder, 'right-HASH.pth', weights)
    url = f'{server.url}/{path.name}'
    assert_loaded(fetch_checkpoint(url), weights)
    assert [file.name for file in cache.iterdir()] == [path.name]
    assert any(url in message and str(cache) in message for message in logged)
    path.unlink()
    assert_loaded(fetch_checkpoint(url), weights)
    assert server.requested.count(f'/{path.name}') == 1
    assert 'downloaded before' in logged[-1]


def test_query_is_no_part_of_the_file_name(server, cache, weights):
    path = save(server.folder, 'query-HASH.pth', weights)
    fetch_checkpoint(f'{server.url}/{path.name}?versionId=1')
    assert [file.name for file in cache.iterdir()] == [path.name]


@pytest.mark.parametrize(
    ('name', 'reason'),
    [
        ('wrong-01234567.pth', 'invalid hash value'),
        ('cut.pth', 'truncated'),
        ('cut-HASH.pth', 'invalid hash value'),
        ('absent.pth', '404'),
    ],
)
def test_broken_download_leaves_nothing(name, reason, server, cache, weights):
    path = save(server.folder, name, weights)
    if name.startswith('absent'):
        path.unlink()
    url = f'{server.url}/{path.name}'
    with pytest.raises(RuntimeError) as error:
        fetch_checkpoint(url)
    message = str(error.value)
    assert message.startswith(f'{url} could not be downloaded: ')
    assert reason in message
    assert f'put it at {cache / path.name}' in message
    assert not list(cache.iterdir())


def test_no_server(cache):
    with pytest.raises(RuntimeError, match='could not be downloaded'):
        fetch_checkpoint('http://127.0.0.1:9/a.pth')


@pytest.mark.parametrize(
    'name',
    [
        'mmpretrain::resnet/resnet18_8xb16_cifar10.py',
        'resnet18_8xb16_cifar10',
        'ResNet18_8xb16_CIFAR10',
    ],
)
def test_model_zoo_name_leads_to_the_address_of_its_metafile(name, monkeypatch):
    """Only the download itself is left out."""
    addresses = []
    monkeypatch.setattr(fetch, '_download', addresses.append)
    monkeypatch.setattr(fetch, 'load_checkpoint_file', lambda path: path)
    fetch_checkpoint(name)
    config = get_config('mmpretrain::resnet/resnet18_8xb16_cifar10.py', pretrained=True)
    assert addresses == [config.model_path]
    assert config.model_path.startswith('https://')


def test_name_of_another_zoo(monkeypatch):
    addresses = []
    monkeypatch.setattr(fetch, '_download', addresses.append)
    monkeypatch.setattr(fetch, 'load_checkpoint_file', lambda path: path)
    fetch_checkpoint('mmdet::faster_rcnn/faster-rcnn_r50_fpn_1x_coco.py')
    fetch_checkpoint('faster-rcnn_r50_fpn_1x_coco')
    assert addresses[0] == addresses[1]
    assert 'mmdetection' in addresses[0]


def test_misspelt_name_lists_near_names():
    with pytest.raises(FileNotFoundError) as error:
        fetch_checkpoint('resnet34_8xb32_in1kk')
    assert 'Near names: resnet34_8xb32_in1k, ' in str(error.value)


@pytest.mark.parametrize(
    'name',
    [
        'mmpretrain::resnet/resnet19.py',
        'mmpretrain::resnet18.py',
        'mmpretrain::_base_/models/resnet18.py',
    ],
)
def test_config_without_weights(name):
    with pytest.raises(FileNotFoundError) as error:
        fetch_checkpoint(name)
    assert f'{name!r}: no weights are published' in str(error.value)


def test_name_in_a_package_that_is_not_installed():
    with pytest.raises(ModuleNotFoundError, match="'mmseg' is not installed"):
        fetch_checkpoint('mmseg::pspnet/pspnet_r50-d8_4xb2-40k_cityscapes-512x1024.py')
