# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""The kernels without a GPU: interpreted, compiled, and where they cannot run.

What needs a GPU is in test_on_gpu.py.
"""

import re
import subprocess
import sys
import warnings
from pathlib import Path

import pytest
import torch
from mmengine.utils import digit_version

from mmfakd.ops import triton_window_attention, window_attention
from mmfakd.ops.blockwise_window_attention import BlockwiseWindowAttention
from mmfakd.ops.triton_window_attention import TritonWindowAttention
from tests.conftest import REPOSITORY
from tests.helpers.window_attentions import make_inputs, results


@pytest.fixture
def triton():
    triton = pytest.importorskip('triton')
    if digit_version(triton.__version__) < digit_version('3.3'):
        pytest.skip('older Triton does not work without a GPU, or not with NumPy 2')
    return triton


def test_interpreted(triton, monkeypatch):
    # Read while Triton is imported, hence a process of its own.
    monkeypatch.setenv('TRITON_INTERPRET', '1')
    tests = Path(__file__).with_name('interpreted_window_attention.py')
    command = [sys.executable, '-m', 'pytest', '-q', '-x', '-p', 'no:cacheprovider']
    process = subprocess.run(
        [*command, str(tests)], cwd=REPOSITORY, capture_output=True, text=True
    )
    assert process.returncode == 0, process.stdout + process.stderr


@pytest.mark.parametrize('arch', [80, 90])
@pytest.mark.parametrize('last', [False, True])
@pytest.mark.parametrize('name', ['attend', 'attend_backward'])
def test_compiles_without_spilling(triton, monkeypatch, tmp_path, name, last, arch):
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    from mmfakd.ops import window_attention_kernels

    monkeypatch.setenv('TRITON_CACHE_DIR', str(tmp_path))
    kernel = getattr(window_attention_kernels, name)
    query = torch.empty(2, 64, 56, 56, device='meta')
    constants = dict(SIZE=3, **triton_window_attention._tile(query, last))
    types = dict(dict.fromkeys(['channels', 'height', 'width'], 'i32'))
    types.update(dict.fromkeys(constants, 'constexpr'))
    types = {argument: types.get(argument, '*fp32') for argument in kernel.arg_names}
    aligned = {
        (i,): [['tt.divisibility', 16]]
        for i, kind in enumerate(types.values())
        if kind == '*fp32'
    }
    compiled = triton.compile(
        ASTSource(kernel, types, constants, aligned),
        target=GPUTarget('cuda', arch, 32),
        options=dict(num_warps=triton_window_attention._WARPS[name]),
    )
    binary = tmp_path / 'kernel.cubin'
    binary.write_bytes(compiled.asm['cubin'])
    tool = Path(triton.__file__).parent / 'backends/nvidia/bin/cuobjdump'
    if not tool.exists():
        pytest.skip('this Triton has no cuobjdump')
    usage = subprocess.check_output([tool, '-res-usage', binary], text=True)
    assert re.search(rf'Function {name}:\s+REG:\d+ STACK:0 .* LOCAL:0 ', usage), usage


@pytest.fixture
def unusable(monkeypatch):
    """Triton is tried on the CPU, where it fails."""
    monkeypatch.setattr(triton_window_attention, '_failed', False)
    monkeypatch.setattr(
        window_attention,
        'is_usable',
        lambda query: not triton_window_attention._failed,
    )


def test_falls_back_with_one_warning(unusable):
    inputs = make_inputs((2, 4, 5, 6), 3)
    expected = results(BlockwiseWindowAttention.apply, inputs, 3, inputs[0])
    with pytest.warns(
        UserWarning, match=r'kernels failed here: .*\nWithout MMFAKD_TRITON=1'
    ):
        first = results(window_attention.window_attention, inputs, 3, inputs[0])
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        second = results(window_attention.window_attention, inputs, 3, inputs[0])
    for actual in (first, second):
        assert all(torch.equal(a, b) for a, b in zip(actual, expected))


class _OnlyBackward(TritonWindowAttention):
    """Computes forwards as if Triton did."""

    @staticmethod
    def forward(ctx, query, key_value, offset, size):
        out = BlockwiseWindowAttention.apply(query, key_value, offset, size)
        ctx.save_for_backward(query, key_value, offset, out, torch.zeros_like(out))
        ctx.size, ctx.format = size, torch.contiguous_format
        return out


def test_falls_back_backwards(unusable):
    inputs = make_inputs((2, 4, 5, 6), 3)
    expected = results(BlockwiseWindowAttention.apply, inputs, 3, inputs[0])
    with pytest.warns(UserWarning, match='failed here'):
        actual = results(_OnlyBackward.apply, inputs, 3, inputs[0])
    assert all(torch.equal(a, b) for a, b in zip(actual, expected))


def test_short_memory_is_no_reason_to_fall_back(unusable):
    error = torch.cuda.OutOfMemoryError('too little')
    with pytest.raises(torch.cuda.OutOfMemoryError, match='too little'):
        triton_window_attention.give_up(error)
    assert not triton_window_attention._failed


def test_cpus_are_left_alone():
    query, key_value, offset = make_inputs((2, 4, 5, 6), 3)
    out = window_attention.window_attention(
        query.requires_grad_(), key_value, offset, 3
    )
    assert out.grad_fn.name() == 'BlockwiseWindowAttentionBackward'


@pytest.mark.parametrize(
    ('shape', 'last', 'tile'),
    [
        # Rows of 32 pixels are read at once; channels fill what small maps leave.
        ((64, 56, 56), False, (1, 16, 32)),
        ((64, 8, 8), False, (8, 8, 8)),
        ((64, 7, 7), False, (8, 8, 8)),
        ((512, 1, 1), False, (256, 1, 1)),
        ((6, 1, 5), False, (4, 1, 8)),
        # Half of the channels at most, because their offsets are of one kind.
        ((64, 56, 56), True, (16, 4, 8)),
        ((6, 56, 56), True, (4, 16, 8)),
    ],
)
def test_tiles(shape, last, tile):
    query = torch.empty(2, *shape, device='meta')
    actual = triton_window_attention._tile(query, last)
    assert tuple(actual[f'BLOCK_{name}'] for name in 'CHW') == tile
    assert actual['LAST'] == last
