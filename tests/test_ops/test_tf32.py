# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""What GPUs may round, as PyTorch's two interfaces say it."""

import subprocess
import sys
from types import SimpleNamespace

import pytest
import torch
from mmengine.utils import digit_version

from mmfakd.ops import compare_ways, operation
from mmfakd.ops.compare_ways import WrongResult, compare
from mmfakd.ops.frequency_filter import FREQUENCY_FILTER
from mmfakd.ops.tf32 import TF32, tf32

NEW = digit_version(torch.__version__) >= digit_version('2.9')
MATMUL = 'torch.backends.cuda.matmul.'
CONVOLUTION = 'torch.backends.cudnn.'


def test_default():
    assert tf32() == TF32(matmul=False, convolution=True)


@pytest.mark.parametrize(
    ('setting', 'expected'),
    [
        (f'{MATMUL}allow_tf32 = True', TF32(True, True)),
        (f'{CONVOLUTION}allow_tf32 = False', TF32(False, False)),
        ('torch.set_float32_matmul_precision("high")', TF32(True, True)),
        (f'{MATMUL}fp32_precision = "tf32"', TF32(True, True)),
        (f'{MATMUL}fp32_precision = "ieee"', TF32(False, True)),
        (f'{CONVOLUTION}conv.fp32_precision = "ieee"', TF32(False, False)),
        ('torch.backends.fp32_precision = "tf32"', TF32(True, True)),
    ],
)
def test_settings(setting, expected):
    """Each in a process of its own: PyTorch refuses to go back from the newer."""
    if 'fp32' in setting and not NEW:
        pytest.skip('this PyTorch has the older interface alone')
    code = f'import torch; from mmfakd.ops.tf32 import tf32; {setting}; print(*tf32())'
    done = subprocess.run(
        [sys.executable, '-c', code], capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == [str(value) for value in expected]


def test_a_choice_is_of_its_rounding(monkeypatch):
    monkeypatch.setattr(torch.cuda, 'get_device_name', lambda device: 'GPU')
    inputs = (SimpleNamespace(device=torch.device('cuda:0')),)
    keys, labels = set(), set()
    for rounds in (TF32(False, True), TF32(True, True), TF32(False, False)):
        monkeypatch.setattr(operation, 'tf32', lambda rounds=rounds: rounds)
        keys.add(FREQUENCY_FILTER.key(inputs)[:3])
        labels.add(FREQUENCY_FILTER.label(inputs).split(' | ')[1])
    assert len(keys) == 3
    assert labels == {'GPU', 'GPU, TF32', 'GPU, exact convolutions'}


@pytest.mark.parametrize(
    ('rounds', 'error', 'refused'),
    [
        (TF32(False, True), 1e-3, False),
        (TF32(True, False), 1e-3, False),
        (TF32(False, False), 1e-3, True),
        (TF32(True, True), 3e-2, True),
    ],
)
def test_rounding_is_no_error(monkeypatch, rounds, error, refused):
    """Of float32 on a GPU, as which this tensor passes itself off."""

    class OnGPU(torch.Tensor):
        is_cuda = True

    monkeypatch.setattr(compare_ways, 'tf32', lambda: rounds)
    expected = torch.linspace(-1, 1, 9)
    for dtype, wrong in ((torch.float32, refused), (torch.float64, True)):
        actual = (expected + error).to(dtype)
        given = expected.to(dtype).as_subclass(OnGPU)
        if wrong:
            with pytest.raises(WrongResult, match='the output differs by'):
                compare([actual], [given])
        else:
            compare([actual], [given])
