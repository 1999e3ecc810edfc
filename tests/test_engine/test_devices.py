# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""A device that is not there is told in the same words by every command."""

import pytest
import torch

from mmfakd import cli
from mmfakd.engine import devices
from mmfakd.engine.devices import find_device

CONFIG = 'fakd_review_r18w32_r18w4_1xb50_digits'
HERE = ['cpu', 'cpu:0', *['cuda', 'cuda:0'] * torch.cuda.is_available()]


@pytest.mark.parametrize('name', HERE)
def test_devices_that_are_there(name):
    assert find_device(name) == torch.device(name)


def test_the_usual_one(monkeypatch):
    for there, kind in ((True, 'cuda'), (False, 'cpu')):
        monkeypatch.setattr(torch.cuda, 'is_available', lambda there=there: there)
        assert find_device() == torch.device(kind)


@pytest.mark.parametrize('name', ['foo', 'cuda:77', 'cuda:x', 'hpu', 'meta', ''])
def test_devices_that_are_not_there(name):
    said = (
        rf'--device {name}: torch .* cannot compute there \(\w+: \w.*\)\. It finds cpu'
    )
    with pytest.raises(ValueError, match=said):
        find_device(name)


def test_devices_of_other_makers(monkeypatch):
    """Whatever torch computes on is taken, and listed where MMEngine knows it."""
    monkeypatch.setattr(devices, 'get_device', lambda: 'mps')
    with pytest.raises(ValueError, match=r'It finds cpu, .*mps.*Give one of these'):
        find_device('foo')
    zeros = torch.zeros
    monkeypatch.setattr(torch, 'zeros', lambda *size, device: zeros(*size))
    assert find_device('mps') == torch.device('mps')


def test_gpus_are_counted(monkeypatch):
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: True)
    monkeypatch.setattr(torch.cuda, 'device_count', lambda: 2)
    monkeypatch.setattr(devices, 'get_device', lambda: 'cuda')
    with pytest.raises(ValueError, match=r'It finds cpu, cuda:0, cuda:1\. Give'):
        find_device('foo')


@pytest.mark.parametrize(
    'words',
    [('check', CONFIG), ('detections', CONFIG, 'x.pth'), ('benchmark',)],
    ids=lambda words: words[0],
)
@pytest.mark.skipif(torch.cuda.is_available(), reason='has a GPU')
def test_every_command_says_so(words):
    said = f'^mmfakd {words[0]}: --device cuda: .* It finds cpu and no GPU of CUDA'
    with pytest.raises(SystemExit, match=said):
        cli.main([*words, '--device', 'cuda'])
