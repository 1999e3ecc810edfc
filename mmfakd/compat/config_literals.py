# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""Text of configs that comes with strangers' files: read, never run."""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator
from typing import Any

from .named_types import TYPE_KEYS, find_risk_of_type, is_module, is_openmmlab
from .nesting import usual_recursion_limit
from .risky_values import find_risky_value

# What values are written as that are no literals; dict has a rule of its own.
_KINDS = {kind.__name__: kind for kind in (frozenset, range, set, slice)}
_ITEMS = (list, tuple, set, frozenset)
# A dict in braces stands in another where keys are no identifiers.
_MADE_OF: dict[str | None, Any] = dict(dict=dict, set=_ITEMS, frozenset=_ITEMS)
# Levels of syntax; a dict in a dict is two. Python's own limit is no guard: libraries
# raise it, above what the stack holds.
_DEEPEST = 300
# What mmrazor imports to record or deliver what a function returns, to trace a model
# and to quantize it; a module of a model is named by `source`, too.
_IMPORTED = (
    *('func_path', 'method_path', 'skipped_methods', 'no_observer_modules'),
    *('object_type', 'float_to_observed_custom_module_class'),
)
_OF_CODE = re.compile(r'(.*\.)?(Function|Method)(In|Out)puts(Recorder|Delivery)?')
_LIBRARY = re.compile(r'mm(engine|cv|pretrain|det|razor|fakd)(\.\w+)*')


def config_literals(text: str) -> dict[str, Any]:
    """Read the text of a config without running it.

    Everything is understood that MMEngine's ``Config.pretty_text`` writes.

    Args:
        text (str): Assignments of literals and ``dict(...)`` calls.

    Returns:
        dict[str, Any]: Names and values.

    Raises:
        ValueError: If there is anything else in it; the line is named.

    Examples:
        >>> from mmfakd.compat.config_literals import config_literals
        >>> config_literals('lr = 0.1; model = dict(type="ResNet", depth=18)')
        {'lr': 0.1, 'model': {'type': 'ResNet', 'depth': 18}}
    """
    try:
        return dict(_assignment(node) for node in _parse(text).body)
    except SyntaxError as error:
        reason = f'line {error.lineno}: {error.msg}'
    except (TypeError, ValueError) as error:
        reason = str(error)
    except (MemoryError, RecursionError):
        reason = 'it is nested too deeply'
    raise ValueError(
        f'This is no text of a config with plain values: {reason}. Expected '
        'assignments of literals and dict(...) calls, as MMEngine dumps configs; '
        'nothing of it was executed.'
    )


def find_risk(text: str) -> str | None:
    """Tell what could run if MMEngine executed a text, or built from it.

    MMEngine's ``Config.fromstring`` executes Python, follows ``_base_`` to other
    files, replaces templates before it reads, and imports what ``custom_imports`` and
    scopes name; its registries call whatever a ``type`` with dots names, ``os.system``,
    too, and what they build may execute its arguments, or files that these name.

    Args:
        text (str): The text of a config.

    Returns:
        str | None: The reason, None if there is none.
    """
    try:
        config = config_literals(text)
    except ValueError as error:
        return str(error)
    if '{{' in text:
        return 'it has a template, {{...}}'
    if '_base_' in config:
        return f'it inherits another file, _base_ = {config["_base_"]!r}'
    for name in _imports(config.get('custom_imports')):
        if name not in {'None', *sys.modules} and not _LIBRARY.fullmatch(name):
            return (
                f'it imports {name!r}; if you trust that module, import it before '
                'the file is loaded'
            )
    for path in _named(config, 'cfg_path'):
        if leaves_package(path):
            return f'it names a file outside of a package, cfg_path={path!r}'
    for scope in (*_named(config, '_scope_'), *_named(config, 'default_scope')):
        if _is_foreign_scope(scope):
            return f'its scope {scope!r} is a module, which would be imported'
    for path in _imported_paths(config):
        if _is_foreign_scope(path):
            return f'it imports a module to find {path!r}'
    for key in TYPE_KEYS:
        for kind in dict.fromkeys(_named(config, key)):
            if reason := find_risk_of_type(kind):
                return f'its {key}={kind!r} {reason}'
    return find_risky_value(config)


def _is_foreign_scope(scope: str) -> bool:
    """Whether MMEngine would import a module of that name that is not here yet.

    A user's own registry is imported by then, or has a scope that is no module.
    """
    module = scope.partition('.')[0]
    return not (is_openmmlab(module) or module in sys.modules) and is_module(module)


def leaves_package(path: str) -> bool:
    """Tell whether ``'package::config.py'`` names a file that is not in the package.

    MMEngine's hub joins folder and path: an absolute path stays what it is.

    Args:
        path (str): What a config names.

    Returns:
        bool: Whether it does.
    """
    _, _, name = path.partition('::')
    return name.startswith(('/', '\\')) or '..' in re.split(r'[/\\]', name)


def _parse(text: str) -> ast.Module:
    # Its part in C goes down level by level: a sum of many terms is nested, too.
    with usual_recursion_limit():
        tree = ast.parse(text)
    level: list[ast.AST] = [tree]
    for _ in range(_DEEPEST):
        level = [child for node in level for child in ast.iter_child_nodes(node)]
    if level:
        raise RecursionError
    return tree


def _imports(imported: Any) -> list[str]:
    names = imported.get('imports') if isinstance(imported, dict) else imported
    return [str(n) for n in (names if isinstance(names, (list, tuple)) else [names])]


def _imported_paths(config: dict[str, Any]) -> Iterator[str]:
    """Names with dots by which mmrazor finds functions and classes of any module."""
    for key in _IMPORTED:
        yield from _named(config, key)
    for part in dicts_in(config):
        kind = part.get('type')
        if isinstance(kind, str) and _OF_CODE.fullmatch(kind):
            yield from _texts(part.get('source'))


def _named(value: Any, key: str) -> Iterator[str]:
    """Texts under a key, also those that stand in lists there."""
    for part in dicts_in(value):
        yield from _texts(part.get(key))


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, _ITEMS):
        for item in value:
            yield from _texts(item)


def dicts_in(value: Any) -> Iterator[dict]:
    """Find all dicts in a value.

    Args:
        value (object): Dicts, lists and tuples in each other, of which it is one.

    Yields:
        dict: Each, before those in it.
    """
    if isinstance(value, dict):
        yield value
        value = list(value.values())
    if isinstance(value, (list, tuple)):
        for item in value:
            yield from dicts_in(item)


def _assignment(node: ast.stmt) -> tuple[str, Any]:
    if isinstance(node, ast.Assign) and len(node.targets) == 1:
        (target,) = node.targets
        if isinstance(target, ast.Name):
            return target.id, _value(node.value)
    raise _unexpected(node)


def _value(node: ast.expr) -> Any:
    if isinstance(node, ast.Constant):
        return node.value
    if isinstance(node, (ast.List, ast.Tuple, ast.Set)):
        kind = {ast.List: list, ast.Tuple: tuple, ast.Set: set}[type(node)]
        return kind(_value(item) for item in node.elts)
    if isinstance(node, ast.Dict):
        # None stands for `**other`.
        keys = [_value(key) for key in node.keys if key is not None]
        if len(keys) == len(node.values):
            return dict(zip(keys, map(_value, node.values)))
    if isinstance(node, ast.Call):
        return _call(node)
    if isinstance(node, ast.Name) and node.id in ('inf', 'nan'):
        return float(node.id)
    return _number(node)


def _call(node: ast.Call) -> Any:
    name = node.func.id if isinstance(node.func, ast.Name) else None
    named = {key.arg: _value(key.value) for key in node.keywords if key.arg}
    given = [_value(argument) for argument in node.args]
    # What they are made of stands there, item by item: a range is a few letters that
    # could fill all memory.
    made_of = _MADE_OF.get(name, object)
    if not all(isinstance(value, made_of) for value in given):
        raise _unexpected(node)
    if name == 'dict' and len(named) == len(node.keywords):
        return dict(*given, **named)
    if name in _KINDS and not node.keywords:
        return _KINDS[name](*given)
    raise _unexpected(node)


def _number(node: ast.expr) -> complex:
    """A number with a sign, or a complex one, which is written as a sum."""
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, (ast.UAdd, ast.USub)):
        value = _value(node.operand)
        if isinstance(value, (int, float, complex)):
            return -value if isinstance(node.op, ast.USub) else value
    if isinstance(node, ast.BinOp) and isinstance(node.op, (ast.Add, ast.Sub)):
        left, right = _value(node.left), _value(node.right)
        if isinstance(left, (int, float)) and isinstance(right, complex):
            return left - right if isinstance(node.op, ast.Sub) else left + right
    raise _unexpected(node)


def _unexpected(node: ast.AST) -> ValueError:
    found = ast.unparse(node)
    found = found if len(found) <= 60 else f'{found[:60]}...'
    line = getattr(node, 'lineno', '?')
    return ValueError(f'line {line} has {found!r}')
