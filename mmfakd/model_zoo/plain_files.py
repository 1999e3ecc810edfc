# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""What files a stranger's config may have read."""

from __future__ import annotations

import pickle
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from contextvars import ContextVar
from typing import Any, NoReturn

import yaml
from mmengine.fileio import HTTPBackend, PickleHandler, YamlHandler

from mmfakd.compat.refused_error import RefusedError

from .one_at_a_time import ONE_AT_A_TIME

_PLAIN_ONLY = ContextVar('_PLAIN_ONLY', default=False)
_OWN = 'if you trust it, give the config itself, or `mmfakd plot` --trust'


@contextmanager
def plain_files_only() -> Iterator[None]:
    """Let MMEngine read nothing that could run something, and no address.

    Its ``mmengine.load`` reads pickles, and YAML with a loader that makes any object;
    what is registered opens the files by it that a config names. Within this context
    pickles are refused, those in arrays of numpy, too, YAML is read as plain values,
    MMEngine's backend of ``http://`` is off, and a ``cfg_path`` names no file of
    Python. Weights are read by mmfakd's own loader, which this leaves alone.

    Yields:
        None: Within the context it is so, in all threads, with ``cfg_path`` in this
        one. Other threads wait to enter.
    """
    # Not `pickle.loads`, with which data sets keep what they have read.
    stand_ins: list[tuple[Any, str, Any]] = [
        (pickle, 'load', _refuse_pickle),
        (PickleHandler, 'load_from_fileobj', _refuse_pickle),
        (YamlHandler, 'load_from_fileobj', _load_plain_yaml),
        (HTTPBackend, 'get', _refuse_address),
        (HTTPBackend, 'get_text', _refuse_address),
    ]
    with ExitStack() as restored:
        restored.enter_context(ONE_AT_A_TIME)
        for owner, name, stand_in in stand_ins:
            restored.callback(setattr, owner, name, getattr(owner, name))
            setattr(owner, name, stand_in)
        restored.callback(_PLAIN_ONLY.reset, _PLAIN_ONLY.set(True))
        yield


def reads_plain_files_only() -> bool:
    """Tell whether this is called within :func:`plain_files_only`.

    Returns:
        bool: Whether it is.
    """
    return _PLAIN_ONLY.get()


def _refuse_pickle(*args: Any, **kwargs: Any) -> NoReturn:
    raise RefusedError(
        f'a pickle is named by the config, and not read, as it can run anything; {_OWN}'
    )


def _refuse_address(backend: HTTPBackend, address: Any, *args: Any) -> NoReturn:
    raise RefusedError(
        f'an address is named by the config, and not read: {address}; {_OWN}'
    )


def _load_plain_yaml(handler: YamlHandler, file: Any, **kwargs: Any) -> Any:
    try:
        return yaml.safe_load(file)
    except yaml.constructor.ConstructorError as error:
        raise RefusedError(
            f'a YAML file is named by the config that holds more than plain values, '
            f'which can run anything ({error.problem}); {_OWN}'
        ) from error
