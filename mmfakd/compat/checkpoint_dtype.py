# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""numpy's ``dtype`` as files may have it."""

from __future__ import annotations

import re
from typing import Any

import numpy as np

from .refused_error import RefusedError

# Booleans, integers, floats, complex numbers and text, as numpy writes them.
_CODE = re.compile('b1|[iu][1248]|f[248]|c8|c16|[SU][0-9]{1,8}')


def as_text(value: Any) -> Any:
    """Decode what a pickle of Python 2 has as bytes; return the rest as it is."""
    return value.decode('latin1') if type(value) is bytes else value


class CheckpointDtype:
    """What a pickle gets where it asks for ``numpy.dtype``.

    numpy's own takes any type, pointers among them, and may be given another size when
    arrays use it already: what is read then is not in the array. This one holds
    numbers and text only, is told once of their order of bytes, and passes nothing of
    a file on to numpy but a code that it knows.

    Args:
        code (str): As ``'f8'``.
        align (bool): Of no meaning here.
        copy (bool): Of no meaning here.

    Raises:
        RefusedError: If the code is another one.
    """

    __slots__ = ('_code', '_order')
    _code: str
    _order: str | None

    # Not in `__init__`, as a pickle can do without that.
    def __new__(
        cls, code: Any = None, align: Any = None, copy: Any = None
    ) -> CheckpointDtype:
        """Check the code."""
        code = as_text(code)
        if type(code) is not str or not _CODE.fullmatch(code):
            given = repr(code)[:40] if type(code) is str else type(code).__name__
            raise RefusedError(
                f'numpy.dtype({given}) is neither of numbers nor of plain text'
            )
        made = super().__new__(cls)
        made._code, made._order = code, None
        return made

    @property
    def dtype(self) -> np.dtype:
        """The type of numpy itself."""
        return np.dtype((self._order or '=') + self._code)

    def __setstate__(self, state: Any) -> None:
        """Take the order of bytes.

        Args:
            state (tuple): As numpy writes it: version 3, the order, None for subtype,
                names and fields, the size or -1, alignment and flags.

        Raises:
            RefusedError: If it is another one, or the second.
        """
        if self._order is not None:
            raise RefusedError('the state of a numpy.dtype is set twice')
        if type(state) is not tuple or len(state) != 8:
            raise RefusedError('the state of a numpy.dtype is not as numpy writes it')
        version, order, *fields, size = state[:6]
        order = as_text(order)
        kinds = [type(value) for value in (version, order, size, *fields)]
        if (
            kinds != [int, str, int, *[type(None)] * 3]
            or (version, order in {*'<>|='}) != (3, True)
            or size not in (-1, self.dtype.itemsize)
        ):
            raise RefusedError(f'numpy.dtype({self._code!r}) has the state of another')
        self._order = order

    def __reduce__(self) -> Any:
        """Be written as numpy's own."""
        return self.dtype.__reduce__()
