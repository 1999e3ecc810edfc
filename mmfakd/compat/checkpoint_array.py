# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""numpy's arrays and scalars as files may have them."""

from __future__ import annotations

import math
import sys
from typing import Any

import numpy as np

from .checkpoint_dtype import CheckpointDtype
from .refused_error import RefusedError

_numpy_scalar = np.float64(0).__reduce__()[0]
# A type that no file can give to an array.
_UNREAD = np.dtype('V1')


class CheckpointArray(np.ndarray):
    """What a pickle gets where it asks for ``numpy.ndarray``.

    numpy's own lays itself over any bytes, as pointers, too, if they are asked for;
    and its state may be set again, which frees the memory that a tensor reads. This one
    is made empty and filled once, after a check that shape, type and bytes agree. What
    is computed with it, and what is written of it, is numpy's own.

    Raises:
        RefusedError: If it is given anything.
    """

    __slots__ = ()

    def __new__(cls, *given: Any) -> CheckpointArray:
        """Make an array that is not yet read."""
        if given:
            raise RefusedError('numpy.ndarray is called, which lays it over any memory')
        return super().__new__(cls, (0,), _UNREAD)

    def __setstate__(self, state: Any) -> None:
        """Fill the array.

        Args:
            state (tuple): As numpy writes it: version 1, shape, type, whether the
                order is Fortran's, and the bytes.

        Raises:
            RefusedError: If it is another one, or the second.
        """
        # Not what a file may have put under that name.
        if np.ndarray.dtype.__get__(self) != _UNREAD:  # type: ignore[attr-defined]
            raise RefusedError('the state of a numpy.ndarray is set twice')
        if type(state) is not tuple or len(state) != 5:
            raise RefusedError('the state of a numpy.ndarray is not as numpy writes it')
        version, shape, dtype, fortran, data = state
        dtype = _plain_dtype(dtype)
        data = _checked_bytes(dtype, data, _count(shape, dtype))
        if type(version) is not int or version != 1 or type(fortran) not in (bool, int):
            raise RefusedError('the state of a numpy.ndarray is not as numpy writes it')
        state = (1, shape, dtype, bool(fortran), data)
        super().__setstate__(state)  # type: ignore[arg-type]

    def __reduce__(self) -> Any:
        """Be written as numpy's own."""
        return np.array(self).__reduce__()

    def __reduce_ex__(self, protocol: Any) -> Any:
        """Be written as numpy's own."""
        return np.array(self).__reduce_ex__(protocol)

    def __array_wrap__(
        self, array: Any, context: Any = None, return_scalar: Any = None
    ) -> Any:
        """Let results be numpy's own."""
        array = np.asarray(array)
        return array if array.ndim else array[()]


def reconstruct(kind: Any, shape: Any = None, code: Any = None) -> CheckpointArray:
    """Begin an array in place of numpy's ``_reconstruct``.

    Args:
        kind (type): What the pickle has for ``numpy.ndarray``.
        shape (tuple): Of no meaning, as a state follows that has another.
        code (bytes): Of no meaning likewise.

    Returns:
        CheckpointArray: Not yet read.

    Raises:
        RefusedError: If another kind is asked for.
    """
    if kind is not CheckpointArray:
        raise RefusedError('numpy begins an array of another class than numpy.ndarray')
    return CheckpointArray()


def scalar(dtype: Any, data: Any = None) -> Any:
    """Make a scalar in place of numpy's ``scalar``.

    Args:
        dtype (CheckpointDtype): Its type.
        data (bytes): Its bytes.

    Returns:
        np.generic: numpy's own.

    Raises:
        RefusedError: If the bytes are not those of one scalar of the type.
    """
    dtype = _plain_dtype(dtype)
    return _numpy_scalar(dtype, _checked_bytes(dtype, data, 1))


def _plain_dtype(dtype: Any) -> np.dtype:
    if type(dtype) is not CheckpointDtype:
        raise RefusedError(f'a type of numpy is a {type(dtype).__name__}')
    return dtype.dtype


def _count(shape: Any, dtype: np.dtype) -> int:
    """Count the values of an array, whose steps numpy must be able to count, too."""
    if type(shape) is not tuple or not all(type(n) is int and n >= 0 for n in shape):
        raise RefusedError('the shape of a numpy.ndarray is no tuple of lengths')
    if math.prod(max(n, 1) for n in shape) * max(dtype.itemsize, 1) > sys.maxsize:
        raise RefusedError('the shape of a numpy.ndarray is larger than any memory')
    return math.prod(shape)


def _checked_bytes(dtype: np.dtype, data: Any, count: int) -> bytes:
    """Return the bytes of values, if they are some of their type."""
    if type(data) is str:
        # As numpy does with pickles of Python 2.
        data = data.encode('latin1')
    if type(data) is not bytes:
        raise RefusedError(f'numpy values are a {type(data).__name__}, not bytes')
    if len(data) != count * dtype.itemsize:
        raise RefusedError(
            f'{count} numpy values of {dtype.itemsize} bytes have {len(data)} bytes'
        )
    # numpy counts those that are 1, and then writes those that are not 0.
    if dtype.kind == 'b' and data.translate(None, b'\0\1'):
        raise RefusedError('numpy booleans are neither 0 nor 1')
    if dtype.kind == 'U' and not _is_text(dtype, data):
        raise RefusedError('a text of numpy is none of Unicode')
    return data


def _is_text(dtype: np.dtype, data: bytes) -> bool:
    order = 'utf-32-le' if dtype.str.startswith('<') else 'utf-32-be'
    try:
        data.decode(order, 'surrogatepass')
    except UnicodeDecodeError:
        return False
    return True
