# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""What the layers of a model yield, found by running it on a dummy image."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Union

import torch
from mmengine.model import BaseModel
from torch import Tensor, nn

# Of mmcv, where an operator has no implementation for a device.
_NO_KERNEL = 'for device cpu not found'


@dataclass
class Call:
    """One call of one layer.

    Args:
        name (str): Name of the layer in ``model.named_modules()``.
        kind (str): Its class.
        index (int): How many calls of this layer came before, mmrazor's
            ``record_idx``.
        order (int): How many calls of any layer ended before.
        path (tuple[str, ...]): The layers in whose calls it took place, from the
            outermost in.
        weights (int): How many convolutions and linear layers the layer has in it.
        is_leaf (bool): Whether the layer has no layers in it.
        output (Any): What it returned, with a :class:`TensorInfo` for each tensor.
    """

    name: str
    kind: str
    index: int
    order: int
    path: tuple[str, ...]
    weights: int
    is_leaf: bool
    output: Any = None


@dataclass(frozen=True)
class TensorInfo:
    """What is known of a recorded tensor.

    Args:
        shape (tuple[int, ...]): Its shape.
        non_negative (bool): Whether it has no negative value, as after a ReLU.
        id (int): Number of a tensor (N, C), which layers that hand it on share; -1 for
            others.
        has_graph (bool): Whether gradients flow back from it.
    """

    shape: tuple[int, ...]
    non_negative: bool
    id: int
    has_graph: bool = False


@dataclass
class Probe:
    """What a model's layers yielded.

    Args:
        input_shape (tuple[int, ...]): Shape (N, C, H, W) of the dummy batch.
        calls (list[Call]): The calls of all layers, in the order in which they ended.
        tokens (dict[int, tuple[int, int]]): Length of a sequence of tokens -> numbers
            of tokens before and after those of the image's patches, where they could
            be measured.
        output (Any): What the model itself returned, with ``TensorInfo``.
        note (str): What could not be run, if anything.
    """

    input_shape: tuple[int, ...]
    calls: list[Call] = field(default_factory=list)
    tokens: dict[int, tuple[int, int]] = field(default_factory=dict)
    output: Any = None
    note: str = ''


@torch.no_grad()
def probe_features(
    model: BaseModel,
    input_size: tuple[int, int],
    heads: bool = True,
    batch_size: int = 2,
) -> Probe:
    """Run a model on a dummy batch and record what every layer yields.

    Args:
        model (BaseModel): An mmpretrain classifier or mmdet detector.
        input_size (tuple[int, int]): Height and width of the images.
        heads (bool): Whether to run the heads, too. Where a detector's heads cannot
            run on a dummy batch, the probe has a ``note``. Defaults to True.
        batch_size (int): Number of images. Defaults to 2, so that the dimension of the
            batch can be told from others.

    Returns:
        Probe: The calls of all layers.

    Raises:
        ValueError: If backbone and neck cannot take images of that size.
    """
    training = model.training
    model.eval()
    try:
        errors: list[Exception] = []
        for device in ('cpu', 'cuda')[: 1 + torch.cuda.is_available()]:
            for channels in input_channels(model):
                generator = torch.Generator().manual_seed(0)
                shape = (batch_size, channels, *input_size)
                inputs = torch.randn(shape, generator=generator).to(device)
                try:
                    return _probe(model.to(device), inputs, heads)
                except Exception as error:
                    errors.append(error)
            if not any(_NO_KERNEL in str(error) for error in errors):
                break
        size = 'x'.join(map(str, input_size))
        reason = f'{type(errors[0]).__name__}: {str(errors[0]).strip(" .")}'
        if _NO_KERNEL in reason:
            reason += '; a part of it runs on GPUs only, so try it where there is one'
        raise ValueError(
            f'the {type(model).__name__} fails on images of {size} pixels: {reason}.'
        ) from errors[0]
    finally:
        model.to('cpu').train(training)


def _probe(model: BaseModel, inputs: Tensor, heads: bool) -> Probe:
    probe = Probe(tuple(inputs.shape))
    number = TensorNumbers()
    with record_calls(model, probe, number) as firsts:
        try:
            probe.output = _describe(_run(model, inputs, heads), number)
        except Exception as error:
            if not heads or not is_detector(model):
                raise
            probe.note = f'{type(error).__name__}: {error}'
    if probe.note:
        # Heads of detectors may want more than a dummy batch has.
        probe.calls.clear()
        with record_calls(model, probe, number) as firsts:
            _run(model, inputs, heads=False)
    probe.tokens = _measure_tokens(model, inputs, firsts)
    return probe


def input_channels(model: BaseModel) -> list[int]:
    """Tell how many channels the images of a model may have.

    Args:
        model (BaseModel): The model.

    Returns:
        list[int]: What is to be tried: as many as the means that are subtracted from
        images; those of the first convolution; three (a first convolution may work on
        images that are cut into pieces).
    """
    mean = getattr(getattr(model, 'data_preprocessor', None), 'mean', None)
    tried = [mean.numel()] if isinstance(mean, Tensor) and mean.numel() > 1 else []
    convolutions = (m for m in model.modules() if isinstance(m, nn.Conv2d))
    first = next(convolutions, None)
    if first is not None:
        tried.append(first.in_channels)
    return list(dict.fromkeys([*tried, 3]))


def _run(model: BaseModel, inputs: Tensor, heads: bool) -> Any:
    if not heads:
        return model.extract_feat(inputs)
    if is_detector(model):
        return model(inputs, _samples(inputs), mode='tensor')
    return model(inputs, mode='tensor')


def is_detector(model: BaseModel) -> bool:
    """Tell whether a model is one of mmdet's detectors.

    Args:
        model (BaseModel): The model.

    Returns:
        bool: Whether it is.
    """
    return _has_base(model, 'mmdet.models.detectors.base', 'BaseDetector')


def is_classifier(model: BaseModel) -> bool:
    """Tell whether a model is one of mmpretrain's classifiers.

    Args:
        model (BaseModel): The model.

    Returns:
        bool: Whether it is.
    """
    return _has_base(model, 'mmpretrain.models.classifiers.base', 'BaseClassifier')


def _has_base(model: BaseModel, module: str, name: str) -> bool:
    """Whether a model has a base class, of a library that need not be there."""
    bases = type(model).__mro__
    return any((base.__module__, base.__name__) == (module, name) for base in bases)


def _samples(inputs: Tensor) -> list:
    """Data samples of a dummy batch for a detector's heads."""
    from mmdet.structures import DetDataSample

    size = tuple(inputs.shape[-2:])
    info = dict(
        img_shape=size,
        ori_shape=size,
        pad_shape=size,
        batch_input_shape=size,
        scale_factor=(1.0, 1.0),
    )
    return [DetDataSample(metainfo=info) for _ in inputs]


class TensorNumbers:
    """Numbers tensors (N, C), which it keeps, so that none takes another's place."""

    def __init__(self) -> None:
        self.known: dict[int, tuple[Tensor, int]] = {}

    def __call__(self, tensor: Tensor) -> int:
        """Number a tensor.

        Args:
            tensor (Tensor): Any tensor.

        Returns:
            int: Its number, the same for the same tensor; -1 unless it is (N, C).
        """
        if tensor.dim() != 2:
            return -1
        return self.known.setdefault(id(tensor), (tensor, len(self.known)))[1]


def _describe(value: Any, number: TensorNumbers) -> Any:
    """Replace the tensors in what a layer returned by what is known of them."""
    if isinstance(value, Tensor):
        non_negative = value.is_floating_point() and bool((value >= 0).all())
        has_graph = value.grad_fn is not None
        return TensorInfo(tuple(value.shape), non_negative, number(value), has_graph)
    if isinstance(value, Mapping):
        return {str(key): _describe(item, number) for key, item in value.items()}
    if isinstance(value, (tuple, list)):
        return tuple(_describe(item, number) for item in value)
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    return type(value).__name__


_Firsts = dict  # Length of a sequence -> (name, index, is_input, tensor).


@contextmanager
def record_calls(
    model: BaseModel, probe: Probe, number: TensorNumbers | None = None
) -> Iterator[_Firsts]:
    """Record the calls of all layers into a probe.

    Args:
        model (BaseModel): The model, to be called within the context.
        probe (Probe): It gets the calls.
        number (TensorNumbers, optional): Numbers the tensors.

    Yields:
        dict: The first sequence of tokens of each length that goes into or out of a
        layer.
    """
    number = number or TensorNumbers()
    stack: list[str] = []
    counts: dict[str, int] = {}
    firsts: _Firsts = {}
    batch = probe.input_shape[0]
    handles = []

    def note(name: str, is_input: bool, value: Any) -> None:
        for tensor in _tensors(value):
            if tensor.dim() == 3 and len(tensor) == batch:
                place = (name, counts.get(name, 0), is_input, tensor)
                firsts.setdefault(tensor.shape[1], place)

    def before(name: str, args: tuple) -> None:
        stack.append(name)
        note(name, True, args)

    def after(name: str, module: nn.Module, output: Any) -> None:
        stack.pop()
        note(name, False, output)
        index = counts.get(name, 0)
        counts[name] = index + 1
        described = _describe(output, number)
        probe.calls.append(
            Call(
                name,
                type(module).__name__,
                index,
                len(probe.calls),
                tuple(stack),
                sum(_has_weight(part) for part in module.modules()),
                next(module.children(), None) is None,
                described,
            )
        )

    for name, module in model.named_modules():
        if not name:
            continue
        handles += [
            module.register_forward_pre_hook(
                lambda module, args, name=name: before(name, args)
            ),
            module.register_forward_hook(
                lambda module, args, output, name=name: after(name, module, output)
            ),
        ]
    try:
        yield firsts
    finally:
        for handle in handles:
            handle.remove()


def _has_weight(module: nn.Module) -> bool:
    """Whether a module is a convolution or linear layer, or the like."""
    return any(p.dim() > 1 for p in module.parameters(recurse=False))


def _tensors(value: Any) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, (tuple, list)):
        for item in value:
            yield from _tensors(item)


def _measure_tokens(
    model: BaseModel, inputs: Tensor, firsts: _Firsts
) -> dict[int, tuple[int, int]]:
    """Find out which tokens stand for patches of the image.

    Two opposite corners of the image are changed. Where a sequence of tokens first
    appears, before attention mixes them, only those of the corners' patches change:
    what stands before the first and behind the last of them is no patch.
    """
    if not firsts:
        return {}
    changed = inputs.clone()
    changed[..., 0, 0] += 1
    changed[..., -1, -1] += 1
    again = Probe(tuple(inputs.shape))
    with record_calls(model, again) as second:
        _run(model, changed, heads=False)
    measured = {}
    for length, (name, index, is_input, tensor) in firsts.items():
        other = second.get(length)
        if other is None or other[:3] != (name, index, is_input):
            continue
        if other[3].shape != tensor.shape:
            continue
        moved = (tensor != other[3]).any(dim=2).any(dim=0).nonzero().flatten()
        if len(moved) and len(moved) < length:
            prefix, suffix = int(moved[0]), length - 1 - int(moved[-1])
            measured[length] = (prefix, suffix)
    return measured


# Where a tensor stands in what a layer returned: mmrazor's `data_idx`.
DataIdx = Union[None, int, tuple[int, ...]]


def tensors_of(output: Any) -> list[tuple[DataIdx, TensorInfo]]:
    """List the tensors that a level can take out of what a layer returned.

    Args:
        output (Any): ``Call.output``.

    Returns:
        list[tuple[DataIdx, TensorInfo]]: ``data_idx`` and tensor: None for a layer
        that returned just one, a number for a part of a tuple, numbers for a part of a
        part.
    """
    return [
        (path[0] if len(path) == 1 else path or None, info)
        for path, info in _walk(output, ())
    ]


def _walk(
    output: Any, path: tuple[int, ...]
) -> Iterator[tuple[tuple[int, ...], TensorInfo]]:
    if isinstance(output, TensorInfo):
        yield path, output
    elif isinstance(output, tuple):
        for i, part in enumerate(output):
            yield from _walk(part, (*path, i))
