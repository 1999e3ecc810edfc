# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""What was meant, where MMEngine's registries only say that something is wrong.

MMEngine tells that a type is not registered, or Python that an argument is unknown,
without a word of the names that there are, and a data set that its reader failed,
without a word of the file. What users make of that is read in
https://github.com/open-mmlab/mmdetection/issues/11762
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from functools import wraps
from importlib import import_module
from importlib.util import find_spec
from inspect import Parameter, isclass, signature
from typing import Any

from mmfakd.messages import near_names, quoted

from .how_to_install import how_to_install
from .retold import retold

# Scopes whose registries are asked for near names, where they are installed.
_PACKAGES = ('mmfakd', 'mmrazor', 'mmpretrain', 'mmdet', 'mmseg')
# Arguments of a data set that say where its images come from.
_PLACES = ('ann_file', 'data_root', 'data_prefix', 'filter_cfg', 'indices', 'split')
# What mmrazor writes behind the types of a recorder and of a delivery.
_ENDINGS = ('Recorder', 'Delivery')
# Python 3.13 goes on with its own guess.
_UNKNOWN_ARGUMENT = re.compile(
    r"\(\) got an unexpected keyword argument '(\w+)'(\. Did you mean '\w+'\?)?$"
)
_MISSING_ARGUMENTS = re.compile(r'\(\) missing \d+ required .*arguments?: (.*)$')
# MMEngine takes the key out of a dict only where it meets another one.
_NOTHING_TO_DELETE = (
    '`_delete_=True` replaces what a `_base_` has under the same name, and there is '
    'nothing: leave `_delete_` out.'
)
_UNKNOWN_TYPE = re.compile(r'(\S+) is not in the \S+::.* registry\. ')


def explain_build_errors() -> None:
    """Let MMEngine's registries say in their errors what may have been meant.

    The errors stay what they are, with another text; only what fails within a data
    set becomes one that names it. Calling it again changes nothing.
    """
    from mmengine.registry import Registry

    if not hasattr(Registry.build, 'explains'):
        Registry.build = _explaining(Registry.build)


def unknown_type(registry: Any, kind: str) -> str:
    """Say that a type is not registered, and which names are near.

    Args:
        registry (Registry): Where it was looked for.
        kind (str): The name, with its scope if it was given.

    Returns:
        str: The message.
    """
    scope, _, name = kind.rpartition('.')
    written = kind
    for ending in _ENDINGS:
        if registry.name == 'task util' and kind.endswith(ending):
            written = kind[: -len(ending)]
    said = f'type={written!r} is not registered among the {registry.name}s.'
    if scope in _PACKAGES and find_spec(scope) is None:
        return f'{said} {scope} is not installed: {how_to_install(scope)}.'
    # Names without scopes, as a scope may be what is missing or wrong.
    known: dict[str, list[str]] = {}
    for prefix, registered in _registered(registry):
        known.setdefault(registered, []).append(f'{prefix}{registered}')
    near = [full for one in near_names(name, known) for full in known[one]]
    for ending in _ENDINGS:
        if written + ending == kind:
            near = [n[: -len(ending)] for n in near if n.endswith(ending)]
    if scope and scope not in registry.root.children:
        packages = quoted(near_names(scope, _PACKAGES))
        said += f' There are no {registry.name}s of {scope!r}; packages: {packages}.'
    return (
        f'{said} Near names: {quoted(near[:8])}. Give one of them, its package before '
        'it; a class of your own is imported by `custom_imports` of the config.'
    )


def _explaining(build: Callable) -> Callable:
    @wraps(build)
    def explained(self: Any, cfg: Any, *args: Any, **kwargs: Any) -> Any:
        try:
            return build(self, cfg, *args, **kwargs)
        except Exception as error:
            # Told where it happened, in the innermost of nested builds.
            if not hasattr(error, 'explained'):
                message = _explain(error, self, cfg)
                if message is not None:
                    error.args = (message,)
                elif self.name == 'dataset' and isinstance(cfg, Mapping):
                    _explain_data(error, cfg)
                error.explained = True  # type: ignore[attr-defined]
            raise

    explained.explains = True  # type: ignore[attr-defined]
    return explained


def _explain(error: Exception, registry: Any, cfg: Any) -> str | None:
    """What to say in place of an error of one build, None for the error itself."""
    text = str(error.args[0]) if len(error.args) == 1 else ''
    if text.startswith('cfg should be a dict'):
        return (
            f'got {cfg!r} for what is built from a config (a {registry.name}); '
            "expected dict(type='package.Name', ...)."
        )
    if text.startswith('`cfg` or `default_args` must contain the key "type"'):
        return (
            f'a config of a {registry.name} has no `type`: it has {quoted(cfg)}. '
            "Expected dict(type='package.Name', ...)."
        )
    unknown = _UNKNOWN_TYPE.match(text)
    if unknown and isinstance(error, KeyError):
        return unknown_type(registry, unknown[1])
    if isinstance(error, TypeError) and isinstance(cfg, Mapping) and 'type' in cfg:
        return _explain_arguments(text, registry, cfg)
    return None


def _explain_arguments(text: str, registry: Any, cfg: Mapping) -> str | None:
    """What to say of arguments that a class does not have, or lacks."""
    kind: Any = cfg['type']
    if isinstance(kind, str):
        with registry.switch_scope_and_registry(cfg.get('_scope_')) as found:
            kind = found.get(kind)
    takes = _arguments(kind)
    unknown = _UNKNOWN_ARGUMENT.search(text)
    missing = _MISSING_ARGUMENTS.search(text)
    if unknown and unknown[1] in cfg and unknown[1] not in takes:
        problem = f'got an unexpected keyword argument {unknown[1]!r}'
        advice = f'Near names: {quoted(near_names(unknown[1], takes))}.'
        if unknown[1] == '_delete_':
            advice = _NOTHING_TO_DELETE
    elif missing and set(re.findall(r"'(\w+)'", missing[1])) <= set(takes) - set(cfg):
        problem = f'needs {missing[1]}, which the config does not give'
        advice = f'It gives {quoted(key for key in cfg if key != "type")}.'
    else:
        return None
    return f'type={cfg["type"]!r} {problem}. {advice} It takes {quoted(takes)}.'


def _explain_data(error: Exception, cfg: Mapping) -> None:
    """Raise an error that names the data set, unless this one has its own words."""
    kind = cfg.get('type')
    given = ', '.join(f'{key}={cfg[key]!r}' for key in _PLACES if cfg.get(key))
    named = f'The data set type={kind!r} ({given or "no ann_file, no data_root"})'
    told: Any
    if 'need at least one array to concatenate' in str(error):
        meta = cfg.get('metainfo')
        named_too = isinstance(meta, Mapping) and meta.get('classes')
        names = ', and that the names in `metainfo=dict(classes=...)` stand in the file'
        told = ValueError(
            f'{named} has no images; expected at least one. Check that the annotations '
            f'list some, and that `filter_cfg` and `indices` leave some'
            f'{names if named_too else ""}.'
        )
    elif 'mmfakd.' in str(kind) or isinstance(error, ImportError):
        # Ours say it themselves, and a library that is missing is no fault of a file.
        return
    else:
        why = f'{type(error).__name__}: {error}'
        told = retold(
            error,
            f'{named} cannot be read: {why}. Check `ann_file`, `data_root` and '
            '`data_prefix`, and that the files are whole and of the format that this '
            'data set reads.',
        )
    told.explained = True
    raise told from error


def _arguments(kind: Any) -> list[str]:
    """Names of the arguments of a class, those that it hands up included."""
    classes = (
        [c for c in kind.__mro__ if '__init__' in vars(c)] if isclass(kind) else []
    )
    named = (Parameter.POSITIONAL_OR_KEYWORD, Parameter.KEYWORD_ONLY)
    names: dict[str, None] = {}
    for one in [vars(c)['__init__'] for c in classes] or [kind]:
        with suppress(TypeError, ValueError):
            parameters = signature(one).parameters.values()
            names.update((p.name, None) for p in parameters if p.kind in named)
            # What a class does not hand up, it does not take.
            if all(p.kind != Parameter.VAR_KEYWORD for p in parameters):
                break
    names.pop('self', None)
    return list(names)


def _registered(registry: Any) -> Iterator[tuple[str, str]]:
    """All names of a kind, each with what stands before it in a config."""
    root = registry.root
    for package in _PACKAGES:
        # A package that is broken has no names to offer.
        with suppress(Exception):
            import_module(f'{package}.registry')
            if package in root.children:
                root.children[package].import_from_location()
    for name in root.module_dict:
        yield '', name
    for scope, child in root.children.items():
        for name in child.module_dict:
            yield f'{scope}.', name
