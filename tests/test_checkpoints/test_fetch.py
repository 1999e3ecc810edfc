# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""Checkpoints from files, a local server and the names of the model zoos."""

import hashlib
import multiprocessing
import os
import signal
import threading
import time

import pytest
import torch
from mmengine.hub import get_config
from torch import nn

from mmfakd.checkpoints import download, fetch
from mmfakd.checkpoints.download import cache_path
from mmfakd.checkpoints.fetch import fetch_checkpoint, is_at_hand


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
    assert names(cache) == [os.path.basename(cache_path(url))]
    assert names(cache)[0].endswith(f'_{path.name}')
    assert any(url in message and str(cache) in message for message in logged)
    path.unlink()
    assert_loaded(fetch_checkpoint(url), weights)
    assert server.requested.count(f'/{path.name}') == 1
    assert 'downloaded before' in logged[-1]


def names(folder):
    return [file.name for file in folder.iterdir()]


def test_query_is_no_part_of_the_file_name(server, cache, weights):
    path = save(server.folder, 'query-HASH.pth', weights)
    fetch_checkpoint(f'{server.url}/{path.name}?versionId=1')
    assert names(cache)[0].endswith(f'_{path.name}') and len(names(cache)) == 1


@pytest.mark.parametrize(
    ('name', 'reason'),
    [
        ('wrong-01234567.pth', 'invalid hash value'),
        ('cut.pth', 'truncated'),
        ('cut-HASH.pth', 'truncated'),
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
    assert f'put it at {cache_path(url)}' in message
    assert str(cache) in message
    assert not list(cache.iterdir())


def test_two_addresses_with_one_file_name(server, cache):
    """The second is not the first one's."""
    urls = []
    for number in range(2):
        folder = server.folder / f'zoo{number}'
        folder.mkdir()
        save(folder, 'net.pth', dict(weight=torch.full((2,), float(number))))
        urls.append(f'{server.url}/zoo{number}/net.pth')
    for _ in range(2):
        for number, url in enumerate(urls):
            assert fetch_checkpoint(url)['state_dict']['weight'][0] == number
    assert len(names(cache)) == 2


@pytest.mark.parametrize('name', ['damaged-HASH.pth', 'damaged.pth'])
def test_damaged_file_of_the_cache_is_loaded_anew(name, server, cache, weights, logged):
    url = f'{server.url}/{save(server.folder, name, weights).name}'
    fetch_checkpoint(url)
    cached = cache / names(cache)[0]
    cached.write_bytes(cached.read_bytes()[:-100])
    assert_loaded(fetch_checkpoint(url), weights)
    (warning,) = (message for message in logged if 'anew' in message)
    assert str(cached) in warning
    assert names(cache) == [cached.name]


def test_download_goes_on_where_it_broke_off(server, cache, weights, logged):
    url = f'{server.url}/{save(server.folder, "flaky-HASH.pth", weights).name}'
    assert_loaded(fetch_checkpoint(url), weights)
    first, second = server.ranges[-2:]
    assert first == 0 and second > 0
    assert any('truncated' in text and 'Trying again' in text for text in logged)


def test_busy_server_is_asked_again(server, cache, weights, logged):
    url = f'{server.url}/{save(server.folder, "busy-HASH.pth", weights).name}'
    assert_loaded(fetch_checkpoint(url), weights)
    assert any('503' in text and 'Trying again' in text for text in logged)


def test_silent_server_is_left(server, cache, weights, monkeypatch):
    monkeypatch.setattr(download, 'TIMEOUT', 0.1)
    url = f'{server.url}/{save(server.folder, "slow-HASH.pth", weights).name}'
    with pytest.raises(RuntimeError, match='timed out'):
        fetch_checkpoint(url)
    assert not names(cache)


@pytest.mark.parametrize('place', ['home/checkpoints', 'torch/hub/checkpoints'])
def test_file_of_an_older_version_is_taken(place, server, cache, weights, tmp_path):
    """If its name promises a hash that it has; torch keeps files that way, too."""
    folder = tmp_path / place
    folder.mkdir(parents=True)
    right, wrong = (
        save(folder, f'old-{end}.pth', weights) for end in ('HASH', '01234567')
    )
    assert_loaded(fetch_checkpoint(f'{server.url}/{right.name}'), weights)
    with pytest.raises(RuntimeError, match='404'):
        fetch_checkpoint(f'{server.url}/{wrong.name}')
    assert wrong.exists()


def test_page_of_a_portal_is_no_checkpoint(server, cache):
    (server.folder / 'portal.pth').write_text('<html>Please log in</html>')
    with pytest.raises(RuntimeError, match='does not begin as files of torch'):
        fetch_checkpoint(f'{server.url}/portal.pth')
    assert not names(cache)


def load_in_process(url, results):
    try:
        results.put(fetch_checkpoint(url)['state_dict']['weight'].tolist())
    except Exception as error:
        results.put(repr(error))


def test_several_processes_at_once_load_once(server, cache, weights):
    """As two trainings do, or the ranks of one."""
    url = f'{server.url}/{save(server.folder, "slow-HASH.pth", weights).name}'
    server.requested.clear()
    context = multiprocessing.get_context('fork')
    results = context.Queue()
    workers = [
        context.Process(target=load_in_process, args=(url, results)) for _ in range(3)
    ]
    for worker in workers:
        worker.start()
    assert [results.get(timeout=60) for _ in workers] == [
        weights['weight'].tolist()
    ] * 3
    for worker in workers:
        worker.join()
    assert len(server.requested) == 1
    assert len(names(cache)) == 1


def test_killed_download_leaves_nothing_for_ever(server, cache, weights, monkeypatch):
    url = f'{server.url}/{save(server.folder, "slow-HASH.pth", weights).name}'
    context = multiprocessing.get_context('fork')
    worker = context.Process(target=load_in_process, args=(url, context.Queue()))
    worker.start()
    while not cache.is_dir() or not names(cache):
        time.sleep(0.01)
    os.kill(worker.pid, signal.SIGKILL)
    worker.join()
    (part,) = cache.iterdir()
    assert part.suffix == '.part'
    # The lock died with the process.
    assert_loaded(fetch_checkpoint(url), weights)
    assert names(cache) == [part.name.removesuffix('.part')]
    old, young = cache / 'old.part', cache / 'young.part'
    old.touch()
    young.touch()
    os.utime(old, (0, 0))
    other = save(server.folder, 'other-HASH.pth', weights)
    fetch_checkpoint(f'{server.url}/{other.name}')
    assert young.exists() and not old.exists()


def test_threads_of_one_process_wait_for_each_other(server, cache, weights):
    url = f'{server.url}/{save(server.folder, "slow-thread.pth", weights).name}'
    loaded = []
    threads = [
        threading.Thread(target=lambda: loaded.append(fetch_checkpoint(url)))
        for _ in range(2)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(loaded) == 2
    assert server.requested.count('/slow-thread.pth') == 1


def test_address_of_an_unknown_scheme():
    with pytest.raises(ValueError, match=r"'ftp://a/b\.pth'.*ftp://.*Expected one of"):
        fetch_checkpoint('ftp://a/b.pth')


@pytest.mark.parametrize('scheme', ['torchvision', 'modelzoo', 'open-mmlab', 'mmcls'])
def test_unknown_name_of_a_list(scheme):
    with pytest.raises(FileNotFoundError, match="no 'resnet1.*Near names: .*resnet"):
        fetch_checkpoint(f'{scheme}://resnet1')


def test_names_of_lists_lead_to_addresses(monkeypatch):
    addresses = []
    monkeypatch.setattr(fetch, '_download', addresses.append)
    monkeypatch.setattr(fetch, 'load_checkpoint_file', lambda path: {})
    for name in ('torchvision://resnet18', 'openmmlab://vgg16_caffe'):
        fetch_checkpoint(name)
    assert all(address.startswith('https://') for address in addresses)
    assert 'resnet18-' in addresses[0] and 'vgg16' in addresses[1]


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


def test_what_needs_no_download(server, cache, weights):
    path = save(server.folder, 'a-HASH.pth', weights)
    assert is_at_hand(str(path)) and is_at_hand('r18w32_1xb50_digits')
    assert not is_at_hand('resnet18_8xb32_in1k') and not is_at_hand('s3://a/b.pth')
    address = f'{server.url}/{path.name}'
    assert not is_at_hand(address)
    fetch_checkpoint(address)
    assert is_at_hand(address)
    with pytest.raises(FileNotFoundError, match='neither a file'):
        is_at_hand('gone.pth')


def test_name_in_a_package_that_is_not_installed():
    with pytest.raises(ModuleNotFoundError, match="'mmyolo' is not installed"):
        fetch_checkpoint('mmyolo::yolov5/yolov5_s-v61_syncbn_8xb16-300e_coco.py')
