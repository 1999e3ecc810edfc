# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""What is given as ``--cfg-options``."""

from __future__ import annotations

import argparse
import re
from collections.abc import Mapping, Sequence
from typing import Any

from mmengine.config import Config, DictAction

from mmfakd.compat.config_literals import config_literals
from mmfakd.compat.nesting import usual_recursion_limit

from .check_config import warn_unknown_keys

# What MMEngine's reading would take for a word, or for words with commas between.
_HOLDS_DICT = re.compile(r'[\[({]*(\{|dict\().*[\])}]', re.S)
# One pair of quotes around all of it.
_QUOTED = re.compile(r'"[^"]*"|\'[^\']*\'')
_INDEX = re.compile(r'-?[0-9]+')
# None is a value of a config.
_ABSENT = object()
_EXPECTED = {
    False: 'a number, a word, a text in quotes within those of the shell, or a list or '
    'tuple of them in brackets that close',
    True: 'words within a dict in quotes, and all of it in those of the shell: '
    '\'transform=dict(type="FrequencyAttention", modes=8)\'',
}


def merge_cfg_options(cfg: Config, pairs: Sequence[str] | None) -> None:
    """Put overrides into a config, with a warning where nothing is overridden.

    Args:
        cfg (Config): The config, changed in place.
        pairs (Sequence[str], optional): ``'key=value'`` each.

    Raises:
        ValueError: If one is no such pair, or does not fit into the config.
    """
    options = parse_cfg_options(pairs)
    warn_unknown_keys(cfg, options)
    try:
        options = _with_whole_lists(cfg, options)
    except IndexError as error:
        raise ValueError(f'--cfg-options {" ".join(pairs or ())}: {error}') from error
    for key, value in options.items():
        # With a number, a word or None there is nothing that a dict could join.
        if isinstance(value, dict) and _is_single(cfg, key):
            value['_delete_'] = True
    try:
        cfg.merge_from_dict(options)
    except (AssertionError, AttributeError, KeyError, TypeError) as error:
        raise ValueError(
            f'--cfg-options {" ".join(pairs or ())}: {error.args[0]}'
        ) from error


def _with_whole_lists(cfg: Config, options: Mapping[str, Any]) -> dict[str, Any]:
    """Replace entries of lists without dicts by whole lists.

    MMEngine takes what has an index for a dict that another one joins.
    """
    found: dict[str, Any] = {}
    for key, value in options.items():
        name, indices = _split_entry(cfg, found, key)
        if indices:
            value = _replaced(_given(cfg, found, name), indices, value, name)
        found[name] = value
    return found


def _given(cfg: Config, options: Mapping[str, Any], key: str) -> Any:
    """What stands under a key, by an option of it or around it, or by the config."""
    parts = key.split('.')
    for cut in range(len(parts), 0, -1):
        head, rest = '.'.join(parts[:cut]), parts[cut:]
        if head in options:
            found = _find(options[head], '.'.join(rest)) if rest else options[head]
            joins = isinstance(options[head], Mapping) and not options[head].get(
                '_delete_'
            )
            if found is not _ABSENT or not joins:
                return found
    return _find(cfg, key)


def _split_entry(
    cfg: Config, options: Mapping[str, Any], key: str
) -> tuple[str, list[int]]:
    """Split a key into that of the outermost list without dicts, and indices."""
    parts = key.split('.')
    for cut in range(1, len(parts)):
        name, rest = '.'.join(parts[:cut]), parts[cut:]
        values = _given(cfg, options, name)
        if (
            all(map(_INDEX.fullmatch, rest))
            and isinstance(values, (list, tuple))
            and not _holds_dict(values)
        ):
            return name, [int(index) for index in rest]
    return key, []


def _replaced(values: Any, indices: Sequence[int], value: Any, name: str) -> Any:
    """Copy a list or tuple, in lists where there are several indices, with a value."""
    if not isinstance(values, (list, tuple)):
        raise IndexError(f'{name} is {values!r}, which has no entries.')
    index, *rest = indices
    if not 0 <= index < len(values):
        count = f'0 to {len(values) - 1}' if values else 'a whole list, as it is empty'
        raise IndexError(
            f'Index {index} exceeds the length of {name}={values!r}; expected {count}.'
        )
    if rest:
        value = _replaced(values[index], rest, value, f'{name}.{index}')
    return type(values)([*values[:index], value, *values[index + 1 :]])


def _holds_dict(values: Any) -> bool:
    if isinstance(values, (list, tuple)):
        return any(map(_holds_dict, values))
    return isinstance(values, Mapping)


def _is_single(cfg: Any, key: str) -> bool:
    """Tell whether a config has something under a key that is no dict and no list."""
    found = _find(cfg, key)
    return found is not _ABSENT and not isinstance(found, (Mapping, list, tuple))


def _find(cfg: Any, key: str) -> Any:
    """Find what a config has under a key, or ``_ABSENT``."""
    for part in key.split('.'):
        if isinstance(cfg, (list, tuple)) and part.isdigit() and int(part) < len(cfg):
            cfg = cfg[int(part)]
        elif isinstance(cfg, (Config, Mapping)) and part in cfg:
            cfg = cfg[part]
        else:
            return _ABSENT
    return cfg


def parse_cfg_options(pairs: Sequence[str] | None) -> dict[str, Any]:
    """Read overrides of a config as MMEngine does, and dicts and texts.

    Args:
        pairs (Sequence[str], optional): ``'key=value'`` each. A value is a number, a
            word, a list or tuple of them, or of literals with a dict among them,
            ``dict(...)`` or ``{...}``. Words in quotes of their own, and not in
            brackets, are one text, with the commas in it.

    Returns:
        dict: Keys and values.

    Raises:
        ValueError: If one is no such pair.

    Examples:
        >>> from mmfakd.engine.cfg_options import parse_cfg_options
        >>> parse_cfg_options(['model.depth=18', 'hooks=[dict(type="EMAHook")]'])
        {'model.depth': 18, 'hooks': [{'type': 'EMAHook'}]}
    """
    options: dict[str, Any] = {}
    for pair in pairs or ():
        key, _, text = pair.partition('=')
        if not key or '=' not in pair:
            raise ValueError(
                f'--cfg-options {pair}: expected KEY=VALUE, for example '
                'train_cfg.max_epochs=10.'
            )
        options.update(_parse(pair, key, text.strip()))
    return options


def _parse(pair: str, key: str, text: str) -> dict[str, Any]:
    holds_dict = bool(_HOLDS_DICT.fullmatch(text))
    parser = argparse.ArgumentParser()
    parser.add_argument('pairs', nargs='*', action=DictAction)
    try:
        if holds_dict:
            return {key: config_literals(f'value = {text}')['value']}
        # MMEngine's reading recurses without end at brackets behind a word.
        with usual_recursion_limit():
            read = parser.parse_args(['--', pair]).pairs
    except (AssertionError, RecursionError, ValueError) as error:
        raise ValueError(
            f'--cfg-options {pair}: cannot be read; expected {_EXPECTED[holds_dict]}.'
        ) from error
    within = text.strip('\'"').strip()
    if isinstance(read[key], str):
        # MMEngine takes spaces out of it, of paths, too.
        return {key: within}
    words = isinstance(read[key], list) and any(isinstance(v, str) for v in read[key])
    if words and _QUOTED.fullmatch(text) and within[0] not in '[(':
        return {key: within}
    return read
