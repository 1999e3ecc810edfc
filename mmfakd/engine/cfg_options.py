# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""What is given as ``--cfg-options``."""

from __future__ import annotations

import argparse
import re
from collections.abc import Mapping, Sequence
from typing import Any

from mmengine.config import Config, DictAction
from mmengine.config.config import DELETE_KEY

from mmfakd.compat.config_literals import config_literals
from mmfakd.compat.nesting import usual_recursion_limit

from .check_config import warn_unknown_keys

# What MMEngine's reading would take for a word, or for words with commas between.
_HOLDS_DICT = re.compile(r'[\[({]*(\{|dict\().*[\])}]', re.S)
# One pair of quotes around all of it.
_QUOTED = re.compile(r'"[^"]*"|\'[^\']*\'')
# None is a value of a config.
_ABSENT = object()
# Key of a config that holds nothing but an entry of a list.
_ENTRY = 'entry'
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
    texts = {pair.partition('=')[0]: pair for pair in pairs or ()}
    # One after another: each meets what those before it have made.
    for key in _in_order(options):
        try:
            _merge(cfg, key, options[key])
        except (
            AssertionError,
            AttributeError,
            IndexError,
            KeyError,
            TypeError,
        ) as error:
            told = _in_words(error)
            raise ValueError(f'--cfg-options {texts[key]}: {told}') from error


def _in_words(error: Exception) -> str:
    """What MMEngine says, and what to do where that is of Python's types alone."""
    text = str(error.args[0])
    if DELETE_KEY in text or not isinstance(error, (AttributeError, TypeError)):
        return text
    return (
        f'it does not fit into the config ({text}). A dict within a dict takes the '
        f'place of a list if it has `{DELETE_KEY}=True`.'
    )


def _in_order(options: Mapping[str, Any]) -> list[str]:
    """Order keys as in one merge of all: what is deleted goes before what is put there.

    Of a value and of what is within it, the value replaces what stands before it.
    """
    keys = list(options)
    kept = [
        key
        for place, key in enumerate(keys, 1)
        if not any(key.startswith(f'{later}.') for later in keys[place:])
    ]
    return sorted(kept, key=lambda key: not key.endswith(f'.{DELETE_KEY}'))


def _merge(cfg: Config, key: str, value: Any, shown: str = '') -> None:
    """Put one value into a config, an entry of a list by way of the whole list.

    MMEngine takes what has an index for a dict that another one joins, and knows none
    of tuples. ``shown`` is what messages call the entry that ``cfg`` holds alone.
    """
    name, entry = _split_entry(cfg, key)
    found = _find(cfg, name)
    if entry:
        place, _, rest = entry.partition('.')
        told = shown + name.removeprefix(_ENTRY) if shown else name
        inner = Config({_ENTRY: _entry(found, place, rest, told)})
        inner_key = f'{_ENTRY}.{rest}' if rest else _ENTRY
        _merge(inner, inner_key, value, f'{told}.{place}')
        before, after = found[: int(place)], found[int(place) + 1 :]
        value = type(found)([*before, inner[_ENTRY], *after])
    elif isinstance(found, (list, tuple)) and _has_places(value):
        for place, one in value.items():
            _merge(cfg, f'{key}.{place}', one, shown)
        return
    elif isinstance(value, dict) and not _can_be_joined(found):
        value[DELETE_KEY] = True
    cfg.merge_from_dict({name: value})


def _entry(values: Sequence, place: str, rest: str, name: str) -> Any:
    """Find an entry of a list; refuse a key that leads to nothing in it."""
    entry = _find(values, place)
    if entry is _ABSENT:
        count = len(values)
        places = f'0 to {count - 1}' if count else 'a whole list, as it is empty'
        raise IndexError(
            f'{name} is a {type(values).__name__} of {count}, which has no entry '
            f'{place}; expected {places}.'
        )
    leads_on = rest and rest.partition('.')[0] != DELETE_KEY
    if leads_on and not isinstance(entry, (Mapping, list, tuple)):
        raise IndexError(
            f'{name}.{place} is {entry!r}, which has no entries; give it as a whole, '
            f'{name}.{place}=VALUE.'
        )
    return entry


def _split_entry(cfg: Config, key: str) -> tuple[str, str]:
    """Split a key behind the outermost list or tuple; '' if nothing follows."""
    parts = key.split('.')
    for cut in range(1, len(parts)):
        name = '.'.join(parts[:cut])
        if isinstance(_find(cfg, name), (list, tuple)) and parts[cut] != DELETE_KEY:
            return name, '.'.join(parts[cut:])
    return key, ''


def _has_places(value: Any) -> bool:
    """Whether a value is a dict of MMEngine's form for some entries of a list."""
    if not isinstance(value, dict):
        return False
    return bool(value) and all(str(key).isdecimal() for key in value)


def _can_be_joined(found: Any) -> bool:
    """Whether a dict can join what a config has: no list, number, word or None."""
    return found is _ABSENT or isinstance(found, Mapping)


def _find(cfg: Any, key: str) -> Any:
    """Find what a config has under a key, or ``_ABSENT``."""
    for part in key.split('.'):
        if isinstance(cfg, (list, tuple)) and part.isdecimal() and int(part) < len(cfg):
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
