# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""A layer whose feature is distilled, and how what it returns becomes a map."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass, replace
from typing import Any, Union

from torch import Tensor, nn

from mmfakd.models.distillers.level import to_feature
from mmfakd.models.distillers.token_map import TokenMap
from mmfakd.pairing.probe import attributes_of

# As users give a layer.
LayerLike = Union[str, nn.Module, Mapping[str, Any]]
Key = Union[int, str]

LAYOUTS = ('NCHW', 'NHWC', 'NLC', 'NCL')
_FIELDS = ('name', 'index', 'call', 'layout', 'tokens', 'copy')
_EXPECTED = (
    'expected dict(name=..., index=None, call=None, layout=None, tokens=None, '
    'copy=False): `index` a number, key or attribute of a part of the output, or '
    'several from the outside in, `call` a number, `layout` one of '
    f'{", ".join(map(repr, LAYOUTS))}, or `tokens` in its place.'
)
_CHANNELS_LAST = TokenMap({'channels_last': True})


@dataclass(frozen=True)
class Layer:
    """A layer, and how its output becomes a map (N, C, H, W).

    Args:
        name (str): Its name; ``''`` is the model itself.
        index (tuple[int | str, ...], optional): Which part of its output, from the
            outside in. None: to be found.
        call (int, optional): Which of its calls in a forward pass. None: to be found.
        layout (str, optional): One of :data:`LAYOUTS`; ``'NLC'`` and ``'NCL'`` are
            sequences, which become maps of height 1. ``'NCHW'`` stands for vectors
            (N, C), too. None: to be found.
        tokens (TokenMap, optional): How tokens (N, L, C) become a map, in place of a
            layout.
        copy (bool): Whether a copy is recorded, for what is changed in place later on.
    """

    name: str
    index: tuple[Key, ...] | None = None
    call: int | None = None
    layout: str | None = None
    tokens: TokenMap | None = None
    copy: bool = False

    @classmethod
    def parse(cls, given: LayerLike, name: str, role: str) -> Layer:
        """Parse a layer as it was given.

        Args:
            given (str | nn.Module | Mapping): A name, a module of the model, or
                ``dict(name=..., index=..., call=..., layout=..., tokens=...,
                copy=...)``.
            name (str): The name that was found for it.
            role (str): ``'student'`` or ``'teacher'``, for messages.

        Returns:
            Layer: The layer.

        Raises:
            ValueError: For other keys or values.
        """
        if not isinstance(given, Mapping):
            return cls(name)
        index, call, layout = (given.get(key) for key in _FIELDS[1:4])
        if isinstance(index, (int, str)):
            index = (index,)
        path = index is None or isinstance(index, (tuple, list))
        if (
            set(given) - set(_FIELDS)
            or not path
            or not all(isinstance(key, (int, str)) for key in index or ())
            or not (call is None or isinstance(call, int))
            or layout not in (None, *LAYOUTS)
            or (layout and given.get('tokens') is not None)
        ):
            raise ValueError(f'{role}_layers: got {dict(given)}; {_EXPECTED}')
        tokens = given.get('tokens')
        try:
            tokens = None if tokens is None else TokenMap(tokens)
        except ValueError as error:
            raise ValueError(f'{role}_layers, {name!r}: {error}') from error
        index = None if index is None else tuple(index)
        return cls(name, index, call, layout, tokens, bool(given.get('copy')))

    @property
    def title(self) -> str:
        """str: The name in messages and tables."""
        keys = ''.join(f'[{key!r}]' for key in self.index or ())
        call = f' (call {self.call})' if self.call else ''
        return f'{self.name or "output"}{keys}{call}'

    def part(self, output: Any) -> Any:
        """Take the part that counts out of what the layer returned.

        Args:
            output (Any): What it returned.

        Returns:
            Any: A tensor, or tokens with their grid.

        Raises:
            ValueError: If there is no such part.
        """
        for key in self.index or ():
            try:
                output = item_of(output, key)
            except (KeyError, IndexError, TypeError) as error:
                raise ValueError(
                    f'{self.title} finds no part {key!r} in {describe(output)}.'
                ) from error
        return output

    def to_map(self, part: Any) -> Tensor:
        """Turn the part into a map.

        Args:
            part (Any): What :meth:`part` took.

        Returns:
            Tensor: (N, C, H, W), or (N, C).

        Raises:
            ValueError: If it makes none.
        """
        tokens = _CHANNELS_LAST if self.layout == 'NHWC' else self.tokens
        try:
            if self.layout in ('NLC', 'NCL'):
                if not isinstance(part, Tensor) or part.dim() != 3:
                    raise ValueError(
                        f'layout={self.layout!r} expects a tensor of three dimensions, '
                        f'got {describe(part)}'
                    )
                part = part.transpose(1, 2) if self.layout == 'NLC' else part
                return part.unsqueeze(2).contiguous()
            feature = to_feature(part, None, tokens)
        except ValueError as error:
            raise ValueError(f'{self.title}: {error}') from error
        if not isinstance(feature, Tensor) or feature.dim() not in (2, 4):
            raise ValueError(
                f'{self.title} is {describe(part)}; expected maps (N, C, H, W), '
                'vectors (N, C) or tokens (N, L, C). Choose a part with dict(name=..., '
                'index=...), or say with `layout` or `tokens` what the dimensions are.'
            )
        return feature


def item_of(value: Any, key: Key) -> Any:
    """Take one part out of what a layer returned.

    Args:
        value (Any): What it returned, or a part of that.
        key (int | str): A number, a key, or the name of an attribute of a data class.

    Returns:
        Any: The part.

    Raises:
        KeyError: If there is none, or ``IndexError`` or ``TypeError``.
    """
    named = attributes_of(value)
    return named[key] if key in named else value[key]  # type: ignore[index]


def tensors_in(
    value: Any, path: tuple[Key, ...] = (), within: tuple[int, ...] = ()
) -> Iterator[tuple[tuple, Tensor]]:
    """Walk the tensors in what a layer returned.

    Args:
        value (Any): A tensor, or tuples, lists, mappings and data classes of them.
        path (tuple[int | str, ...]): Where the value stands.
        within (tuple[int, ...]): Ids of the data classes that it stands in, which may
            refer back to each other.

    Yields:
        tuple[tuple, Tensor]: Keys that lead to a tensor, and the tensor.
    """
    if isinstance(value, Tensor):
        yield path, value
    elif isinstance(value, Mapping):
        for key, item in value.items():
            yield from tensors_in(item, (*path, key), within)
    elif isinstance(value, (tuple, list)):
        for i, item in enumerate(value):
            yield from tensors_in(item, (*path, i), within)
    elif id(value) not in within:
        for name, item in attributes_of(value).items():
            yield from tensors_in(item, (*path, name), (*within, id(value)))


def copied(value: Any) -> Any:
    """Copy the tensors in a part, for what is about to be changed in place.

    Args:
        value (Any): A tensor, or tuples, named ones too, lists, mappings and data
            classes of them.

    Returns:
        Any: The same with copies, through which gradients flow; what has names for its
        parts keeps them.
    """
    if isinstance(value, Tensor):
        return value.clone()
    if is_dataclass(value) and not isinstance(value, type):
        parts = [field.name for field in fields(value) if field.init]
        return replace(value, **{key: copied(getattr(value, key)) for key in parts})
    if isinstance(value, Mapping):
        return {key: copied(item) for key, item in value.items()}
    if isinstance(value, tuple) and hasattr(value, '_fields'):
        return type(value)(*(copied(item) for item in value))
    if isinstance(value, (tuple, list)):
        return tuple(copied(item) for item in value)
    return value


def describe(value: Any) -> str:
    """What a layer returned in short, for messages.

    Args:
        value (Any): It.

    Returns:
        str: Kind and shapes.
    """
    if isinstance(value, Tensor):
        return f'a tensor of shape {tuple(value.shape)}'
    listed = isinstance(value, (Mapping, Sequence)) and not isinstance(value, str)
    if listed or attributes_of(value):
        parts = ', '.join(
            ''.join(f'[{key!r}]' for key in path) + f' {tuple(tensor.shape)}'
            for path, tensor in tensors_in(value)
        )
        return f'a {type(value).__name__} with {parts or "no tensors"}'
    return f'a {type(value).__name__}'
