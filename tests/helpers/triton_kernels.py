# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""Kernels of Triton without a GPU: interpreted, or compiled for one."""

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest
from mmengine.utils import digit_version

from tests.conftest import REPOSITORY

# What a few registers take; more slows a kernel down.
FEW_SPILLS = 16
# A100, L4 and RTX 40, H100, B200, RTX 50.
ARCHITECTURES = [80, 89, 90, 100, 120]


class Usage(NamedTuple):
    """What a program needs: registers of a thread, bytes that they spill."""

    registers: int
    spills: int


def need_triton():
    """Give Triton, or skip where it is missing or too old."""
    triton = pytest.importorskip('triton')
    if digit_version(triton.__version__) < digit_version('3.3'):
        pytest.skip('older Triton does not work without a GPU, or not with NumPy 2')
    return triton


def interpret(tests: Path) -> None:
    """Run tests with the kernels interpreted on the CPU."""
    need_triton()
    # Read while Triton is imported, hence a process of its own.
    command = [sys.executable, '-m', 'pytest', '-q', '-x', '-p', 'no:cacheprovider']
    process = subprocess.run(
        [*command, '-n0', str(tests)],
        cwd=REPOSITORY,
        env={**os.environ, 'TRITON_INTERPRET': '1'},
        capture_output=True,
        text=True,
    )
    assert process.returncode == 0, process.stdout + process.stderr


def compile_kernel(
    kernel, types: dict, constants: dict, arch: int, warps: int, folder: Path, patch
) -> Usage:
    """Compile a kernel; arguments of no given type are pointers to float32."""
    triton = need_triton()
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    patch.setenv('TRITON_CACHE_DIR', str(folder))
    types = {**types, **dict.fromkeys(constants, 'constexpr')}
    types = {name: types.get(name, '*fp32') for name in kernel.arg_names}
    aligned = {
        (i,): [['tt.divisibility', 16]]
        for i, kind in enumerate(types.values())
        if kind.startswith('*')
    }
    try:
        compiled = triton.compile(
            ASTSource(kernel, types, constants, aligned),
            target=GPUTarget('cuda', arch, 32),
            options=dict(num_warps=warps),
        )
    except Exception as error:
        if "is not defined for option 'gpu-name'" in str(error):
            pytest.skip(f'this Triton does not know {arch / 10}')
        raise
    binary = folder / 'kernel.cubin'
    binary.write_bytes(compiled.asm['cubin'])
    tool = Path(triton.__file__).parent / 'backends/nvidia/bin/cuobjdump'
    if not tool.exists():
        pytest.skip('this Triton has no cuobjdump')
    usage = subprocess.check_output([tool, '-res-usage', binary], text=True)
    numbers = r'\s+REG:(\d+) STACK:(\d+) .* LOCAL:(\d+) '
    found = re.search(f'Function {kernel.fn.__name__}:{numbers}', usage)
    assert found, usage
    registers, stack, local = map(int, found.groups())
    return Usage(registers, stack + local)
