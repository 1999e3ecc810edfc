# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""Weights in both formats, and what the header of safetensors tells."""

import json
import struct
import sys

import pytest
import torch
from mmengine.config import Config
from mmengine.runner import load_checkpoint
from mmpretrain import get_model
from torch import nn

from mmfakd import cli
from mmfakd.checkpoints.config_text import read_config_text
from mmfakd.checkpoints.fetch import fetch_checkpoint
from mmfakd.checkpoints.load import load_weights
from mmfakd.checkpoints.write import write_weights
from mmfakd.compat import load_checkpoint_file
from tests.helpers.tiny_runs import distillation, run_config, student

safetensors = pytest.importorskip('safetensors.torch')

META = dict(
    dataset_meta=dict(classes=('a', 'b'), palette=[(1, 2, 3), (4, 5, 6)], nested={}),
    cfg="model = dict(type='ResNet')\n",
    epoch=3,
)


@pytest.fixture
def distilled(tmp_path, monkeypatch):
    """A checkpoint of a distillation, without its training."""
    monkeypatch.chdir(tmp_path)
    cfg = run_config('run', distillation('teacher.pth'))
    weights = get_model(Config(dict(model=student()))).state_dict()
    torch.save(
        dict(
            state_dict={f'architecture.{k}': v for k, v in weights.items()},
            meta=dict(cfg=cfg.pretty_text, dataset_meta=META['dataset_meta'], iter=5),
        ),
        'epoch_1.pth',
    )
    return weights


def tensors():
    shared = torch.arange(6.0).reshape(2, 3)
    return dict(
        a=shared,
        b=shared,
        view=shared.t()[1:],
        half=torch.ones(2, dtype=torch.bfloat16),
        count=torch.tensor(3),
        empty=torch.zeros(0, 2),
        parameter=nn.Parameter(torch.ones(1)),
    )


@pytest.mark.parametrize('name', ['w.pth', 'w.safetensors', 'w'])
@pytest.mark.parametrize('file_format', [None, 'pth', 'safetensors'])
def test_what_is_written_is_read(name, file_format, tmp_path):
    path = tmp_path / name
    write_weights(dict(state_dict=tensors(), meta=META), path, file_format)
    is_other = (file_format or name.rpartition('.')[2]) == 'safetensors'
    assert (path.read_bytes()[8:9] == b'{') == is_other
    # By what is in it, not by its name.
    loaded = load_checkpoint_file(path, mmap=True)
    loaded['meta'].pop('format', None)
    assert loaded['meta'] == META
    for key, value in tensors().items():
        assert loaded['state_dict'][key].dtype == value.dtype
        assert torch.equal(loaded['state_dict'][key], value)
    assert [file.name for file in tmp_path.iterdir()] == [name]


def test_missing_folders_are_made(tmp_path):
    path = tmp_path / 'a' / 'b' / 'w.pth'
    write_weights(dict(state_dict=tensors(), meta=META), path)
    assert load_checkpoint_file(path)['meta'] == META


def test_failed_write_leaves_the_file_before(tmp_path):
    path = tmp_path / 'w.safetensors'
    write_weights(dict(state_dict=tensors()), path)
    before = path.read_bytes()
    meta = dict(strange=object())
    with pytest.raises(ValueError, match=r"meta\['strange'\].*write a \.pth file"):
        write_weights(dict(state_dict=tensors(), meta=meta), path)
    assert path.read_bytes() == before and len(list(tmp_path.iterdir())) == 1


@pytest.mark.parametrize('name', ['s.pth', 's.safetensors'])
def test_exported_student_is_loaded_everywhere(name, distilled, capsys):
    cli.main(['export', 'epoch_1.pth', '-o', name, '--config-out', 'student.py'])
    assert f'{name}: {len(distilled)} tensors' in capsys.readouterr().out
    meta = fetch_checkpoint(name)['meta']
    assert meta['dataset_meta'] == META['dataset_meta'] and meta['iter'] == 5
    cfg = read_config_text(meta['cfg'])
    assert cfg.model == Config.fromfile('student.py').model
    for load in (
        lambda model: load_weights(model, name, 'student'),
        lambda model: load_checkpoint(model, name, strict=True),
    ):
        model = get_model(cfg)
        load(model)
        for key, value in model.state_dict().items():
            assert torch.equal(value, distilled[key]), key
    # mmpretrain takes the file, too.
    assert torch.equal(
        get_model(cfg, pretrained=name).head.fc.weight, distilled['head.fc.weight']
    )


@pytest.mark.parametrize('name', ['s.pth', 's.safetensors'])
def test_a_student_is_exported_once_more(name, distilled):
    """From one format to the other, as to ONNX; what it says of itself is kept."""
    cli.main(['export', 'epoch_1.pth', '-o', 'epoch_1_student.pth'])
    options = ['-o', name, '--config-out', 'student.py']
    cli.main(['export', 'epoch_1_student.pth', *options])
    meta = fetch_checkpoint('epoch_1_student.pth')['meta']
    again = fetch_checkpoint(name)
    assert again['state_dict'].keys() == distilled.keys()
    for key in ('dataset_meta', 'iter', 'cfg'):
        assert again['meta'][key] == meta[key]
    assert Config.fromfile('student.py').model == read_config_text(meta['cfg']).model


def test_a_plain_model_without_a_config_is_no_distillation(distilled):
    weights = torch.load('epoch_1.pth', weights_only=True)
    plain = {k.partition('.')[2]: v for k, v in weights['state_dict'].items()}
    # The second one has the config of the distillation, not its own.
    for meta in ({}, weights['meta']):
        torch.save(dict(state_dict=plain, meta=meta), 'plain.pth')
        with pytest.raises(SystemExit, match='plain.pth: No key begins with'):
            cli.main(['export', 'plain.pth', '-o', 's.pth'])


def test_export_by_option(distilled):
    cli.main(['export', 'epoch_1.pth', '-o', 's.bin', '--format', 'safetensors'])
    assert safetensors.load_file('s.bin').keys() == distilled.keys()


def test_file_of_another_library(tmp_path):
    """timm's have tensors and one entry of text; others have none."""
    net = nn.Linear(2, 2)
    for number, metadata in enumerate([{'format': 'pt'}, None, {'cfg': 'plain text'}]):
        path = str(tmp_path / f'{number}.safetensors')
        safetensors.save_file(net.state_dict(), path, metadata)
        other = nn.Linear(2, 2)
        load_weights(other, path, 'teacher')
        assert torch.equal(other.weight, net.weight)


def test_device_is_told_by_name_only(tmp_path):
    path = tmp_path / 'w.safetensors'
    write_weights(dict(state_dict=tensors()), path)
    for location in ('cpu', torch.device('cpu'), None, lambda storage, _: storage):
        loaded = load_checkpoint_file(path, map_location=location)
        assert loaded['state_dict']['a'].device.type == 'cpu'
    loaded = load_checkpoint_file(path, map_location='meta')
    assert loaded['state_dict']['a'].device.type == 'meta'


def header(text):
    text = text if isinstance(text, bytes) else json.dumps(text).encode()
    return struct.pack('<Q', len(text)) + text


ONE = dict(dtype='F32', shape=[1], data_offsets=[0, 4])


@pytest.mark.parametrize(
    'raw',
    [
        header(dict(w=ONE)),
        header(dict(w=ONE, v=dict(ONE, data_offsets=[2, 6]))) + bytes(6),
        header(dict(w=dict(ONE, data_offsets=[4, 0]))) + bytes(4),
        header(dict(w=dict(ONE, shape=[2**62, 4]))) + bytes(4),
        header(dict(w=dict(ONE, dtype='OBJECT'))) + bytes(4),
        header(dict(__metadata__=dict(cfg=[1]))),
        header(b'{"__metadata__": ' + b'[' * 10000),
        header(b'{"w": '),
        struct.pack('<Q', 2**31) + b'{}',
        struct.pack('<Q', 2**60) + b'{}',
        header(dict(w=ONE))[:20],
    ],
    ids=range(11),
)
def test_false_header(raw, tmp_path):
    path = tmp_path / 'w.safetensors'
    path.write_bytes(raw)
    with pytest.raises(ValueError, match='is truncated or not a checkpoint'):
        load_checkpoint_file(path)


def test_without_the_package(tmp_path, monkeypatch):
    path = tmp_path / 'w.safetensors'
    write_weights(dict(state_dict=tensors()), path)
    for name in ('safetensors', 'safetensors.torch'):
        monkeypatch.setitem(sys.modules, name, None)
    for call in (load_checkpoint_file, lambda p: write_weights(dict(state_dict={}), p)):
        with pytest.raises(ModuleNotFoundError, match='pip install safetensors'):
            call(path)
