# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""A page for everything that a config can name, and for what Python code calls."""

from __future__ import annotations

import inspect
import re
from functools import cache
from pkgutil import resolve_name

from mmengine.registry import Registry

from mmfakd import registry, utils
from mmfakd.messages import markdown

# Folder of the package -> what its classes are, in the order of the page.
KINDS = {
    'models.algorithms': 'Algorithms',
    'models.distillers': 'Distillers',
    'models.connectors': 'Connectors',
    'models.layers': 'Layers',
    'models.losses': 'Losses',
    'models.backbones': 'Backbones',
    'datasets': 'Data sets',
    'engine.hooks': 'Hooks',
    'engine.optim_wrappers': 'Optimizer wrappers',
}
FROM_PYTHON = (
    'mmfakd.distill',
    'mmfakd.Distillation',
    'mmfakd.models.losses.fft_feature_loss',
    *(f'mmfakd.utils.{name}' for name in utils.__all__ if name.islower()),
)
INTRODUCTION = """\
# API

One page for every class that a config can name. `type='mmfakd.Name'` builds it from any
scope, without `custom_imports`. [A config, part by part](../../user_guide.md) shows how
they are put together.
"""


@cache
def registered() -> dict[str, tuple[str, type]]:
    """Find what is registered.

    Returns:
        dict[str, tuple[str, type]]: Name -> name of the registry, and class.
    """
    found = {}
    for place, value in vars(registry).items():
        if isinstance(value, Registry):
            value.import_from_location()
            found.update(
                {name: (place, cls) for name, cls in value.module_dict.items()}
            )
    return found


def class_of(path: str) -> str | None:
    """Find what a file of the package registers.

    Args:
        path (str): Path in the repository.

    Returns:
        str | None: The name, if there is one.
    """
    module = path.removesuffix('.py').replace('/', '.')
    names = (
        name for name, (_, cls) in registered().items() if cls.__module__ == module
    )
    return next(names, None)


def pages() -> dict[str, str]:
    """Write the pages.

    Returns:
        dict[str, str]: File name -> text.

    Raises:
        KeyError: If a class lies in a folder that has no heading here.
    """
    classes = registered()
    texts = {
        f'{name}.rst': _class_page(name, place, cls)
        for name, (place, cls) in classes.items()
    }
    sections: dict[str, dict[str, str]] = {kind: {} for kind in KINDS.values()}
    for name, (_, cls) in sorted(classes.items()):
        sections[_kind_of(cls)][name] = _summary(cls)
    for path in FROM_PYTHON:
        texts[f'{path}.rst'] = _object_page(path)
        called = sections.setdefault('From Python', {})
        called[path] = _summary(resolve_name(path))
    texts['index.md'] = '\n'.join([INTRODUCTION, *_listing(sections)])
    return texts


def _kind_of(cls: type) -> str:
    folder = cls.__module__.removeprefix('mmfakd.')
    for known, kind in KINDS.items():
        if folder.startswith(f'{known}.'):
            return kind
    raise KeyError(f'{cls.__module__}: no heading for this folder in KINDS')


def _summary(thing: object) -> str:
    text = (inspect.getdoc(thing) or '').partition('\n\n')[0].replace('\n', ' ')
    return re.sub(r':\w+:`~?([^`]+)`', r'`\1`', text)


def _listing(sections: dict[str, dict[str, str]]) -> list[str]:
    lines = []
    for kind, summaries in sections.items():
        rows = [['name', 'what it is']]
        rows += [[f'[{name}]({name}.rst)', text] for name, text in summaries.items()]
        tree = ['```{toctree}', ':hidden:', f':caption: {kind}', '', *summaries, '```']
        lines += [f'## {kind}', '', *markdown(rows), '', *tree, '']
    return lines


def _class_page(name: str, place: str, cls: type) -> str:
    return '\n'.join(
        [
            *_title(name),
            f"``type='mmfakd.{name}'``, in the registry ``{place}``.",
            '',
            _directive(f'{cls.__module__}.{name}', cls),
            '',
        ]
    )


def _object_page(path: str) -> str:
    return '\n'.join([*_title(path), _directive(path, resolve_name(path)), ''])


def _directive(path: str, thing: object) -> str:
    kind = 'class' if inspect.isclass(thing) else 'function'
    return f'.. auto{kind}:: {path}'


def _title(name: str) -> list[str]:
    return [name, '=' * len(name), '']
