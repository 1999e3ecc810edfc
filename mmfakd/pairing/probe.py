# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""What the layers of a model yield, found by running it on a dummy image."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields, is_dataclass
from functools import partial
from itertools import count
from typing import Any, Union
from weakref import ref

import torch
from mmengine.model import BaseModel
from torch import Tensor, nn

from mmfakd.models.algorithms.run_mode import run_model

from .gradient_paths import GradientPaths

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
        entered (tuple[int, ...]): ``TensorInfo.id`` of the tensors (N, C) that it got.
    """

    name: str
    kind: str
    index: int
    order: int
    path: tuple[str, ...]
    weights: int
    is_leaf: bool
    output: Any = None
    entered: tuple[int, ...] = ()


@dataclass(frozen=True)
class TensorInfo:
    """What is known of a recorded tensor.

    Args:
        shape (tuple[int, ...]): Its shape.
        non_negative (bool): Whether it has no negative value, as after a ReLU.
        id (int): Number of a tensor (N, C), or of a map in a decode head, which layers
            that hand it on share; -1 for others.
        has_graph (bool): Whether gradients flow back from it to a parameter that
            learns.
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
        model (BaseModel): An mmpretrain classifier, mmdet detector or mmseg segmentor.
        input_size (tuple[int, int]): Height and width of the images.
        heads (bool): Whether to run the heads, too. Where those of a detector or
            segmentor cannot run on a dummy batch, the probe has a ``note``. Defaults
            to True.
        batch_size (int): Number of images. Defaults to 2, so that the dimension of the
            batch can be told from those of one position or parameter.

    Returns:
        Probe: The calls of all layers.

    Raises:
        ValueError: If backbone and neck cannot take images of that size.
    """
    training = model.training
    model.eval()
    errors: list[Exception] = []
    try:
        for device in ('cpu', 'cuda')[: 1 + torch.cuda.is_available()]:
            for channels in channels_to_try(model):
                inputs = dummy_images((batch_size, channels, *input_size))
                try:
                    return _probe(model.to(device), inputs.to(device), heads)
                except Exception as error:
                    errors.append(error)
            if not any(_NO_KERNEL in str(error) for error in errors):
                break
    finally:
        model.to('cpu').train(training)
    size = 'x'.join(map(str, input_size))
    reason = f'{type(errors[0]).__name__}: {str(errors[0]).strip(" .")}'
    if _NO_KERNEL in reason:
        reason += '; a part of it runs on GPUs only, so try it where there is one'
    raise ValueError(
        f'the {type(model).__name__} fails on images of {size} pixels: {reason}.'
    ) from errors[0]


def dummy_images(shape: tuple[int, ...]) -> Tensor:
    """Draw images of noise, the same each time.

    Args:
        shape (tuple[int, ...]): Shape of the batch.

    Returns:
        Tensor: The batch.
    """
    generator = torch.Generator().manual_seed(0)
    return torch.randn(shape, generator=generator, device='cpu')


def _probe(model: BaseModel, inputs: Tensor, heads: bool) -> Probe:
    probe = Probe(tuple(inputs.shape))
    with CallRecorder(model, probe) as recorder:
        try:
            probe.output = recorder.describe(_run(model, inputs, heads), maps=True)
        except Exception as error:
            if not heads or is_classifier(model):
                raise
            probe.note = f'{type(error).__name__}: {error}'
    if probe.note:
        # Heads may want more than a dummy batch has.
        probe.calls.clear()
        with CallRecorder(model, probe) as recorder:
            _run(model, inputs, heads=False)
    probe.tokens = _measure_tokens(model, inputs, recorder.firsts)
    return probe


def channels_to_try(model: BaseModel) -> list[int]:
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
    first = next((convolution.in_channels for convolution in convolutions), 3)
    return list(dict.fromkeys([*tried, first, 3]))


def _run(model: BaseModel, inputs: Tensor, heads: bool) -> Any:
    if not heads:
        return model.extract_feat(inputs)
    samples = _samples(inputs) if is_detector(model) else None
    return run_model(model, 'tensor', inputs, samples)


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


def is_segmentor(model: BaseModel) -> bool:
    """Tell whether a model is one of mmseg's segmentors.

    Args:
        model (BaseModel): The model.

    Returns:
        bool: Whether it is.
    """
    return _has_base(model, 'mmseg.models.segmentors.base', 'BaseSegmentor')


def _has_base(model: BaseModel, module: str, name: str) -> bool:
    """Whether a model has a base class, of a library that need not be there."""
    bases = type(model).__mro__
    return any((base.__module__, base.__name__) == (module, name) for base in bases)


def _samples(inputs: Tensor) -> list:
    """Data samples of a dummy batch for a detector's heads."""
    # An optional library.
    from mmdet.structures import DetDataSample

    keys = ('img_shape', 'ori_shape', 'pad_shape', 'batch_input_shape')
    info = dict.fromkeys(keys, tuple(inputs.shape[-2:]))
    return [DetDataSample(metainfo=dict(info, scale_factor=(1.0, 1.0))) for _ in inputs]


class CallRecorder:
    """Records the calls of all layers of a model within its context.

    Args:
        model (BaseModel): The model.
        probe (Probe): It gets the calls.
        paths (GradientPaths, optional): Tells which tensors of a training step learn.

    Attributes:
        firsts (dict[int, tuple]): Length of a sequence of tokens -> where it first goes
            into or out of a layer: its name, the index of the call, whether into it,
            and the tensor.
    """

    def __init__(
        self, model: BaseModel, probe: Probe, paths: GradientPaths | None = None
    ) -> None:
        self.model, self.probe, self.paths = model, probe, paths
        self.firsts: dict[int, tuple[str, int, bool, Tensor]] = {}
        self._stack: list[str] = []
        # Ids of the data classes that are being described.
        self._within: set[int] = set()
        self._entered: list[tuple[int, ...]] = []
        self._counts: Counter[str] = Counter()
        # A tensor that is gone may leave its place, and its identity, to another.
        self._numbered: dict[int, tuple[ref[Tensor], int]] = {}
        self._numbers = count()
        self._handles: list[Any] = []

    def __enter__(self) -> CallRecorder:
        """Begin to record."""
        for name, module in self.model.named_modules():
            if name:
                weights = sum(_has_weight(part) for part in module.modules())
                after = partial(self._after, name, weights)
                self._handles += [
                    module.register_forward_pre_hook(partial(self._before, name)),
                    module.register_forward_hook(after),
                ]
        return self

    def __exit__(self, *error: object) -> None:
        """Leave the model as it was."""
        for handle in self._handles:
            handle.remove()

    def describe(self, value: Any, maps: bool = False) -> Any:
        """Replace the tensors in what a layer returned by what is known of them.

        Args:
            value (Any): What it returned.
            maps (bool): Whether maps are numbered, too. Defaults to False.

        Returns:
            Any: The same with a :class:`TensorInfo` for each tensor.
        """
        if isinstance(value, Tensor):
            # One pass over the values, where a comparison would take two.
            non_negative = value.is_floating_point() and bool(
                not value.numel() or value.min() >= 0
            )
            has_graph = self.paths is not None and self.paths.reach(value)
            shape, number = tuple(value.shape), self._number(value, maps)
            return TensorInfo(shape, non_negative, number, has_graph)
        if isinstance(value, Mapping):
            return {str(k): self.describe(item, maps) for k, item in value.items()}
        if isinstance(value, (tuple, list)):
            return tuple(self.describe(item, maps) for item in value)
        named = attributes_of(value)
        # They may refer back to each other.
        if named and id(value) not in self._within:
            self._within.add(id(value))
            told = {key: self.describe(item, maps) for key, item in named.items()}
            self._within.discard(id(value))
            return told
        if value is None or isinstance(value, (bool, int, float, str)):
            return value
        return type(value).__name__

    def _number(self, tensor: Tensor, maps: bool = False) -> int:
        if tensor.dim() != 2 and not (maps and tensor.dim() == 4):
            return -1
        known = self._numbered.get(id(tensor))
        if known is None or known[0]() is not tensor:
            known = ref(tensor), next(self._numbers)
            self._numbered[id(tensor)] = known
        return known[1]

    def _before(self, name: str, module: nn.Module, args: tuple) -> None:
        self._stack.append(name)
        self._entered.append(tuple({self._number(t) for t in _tensors(args)} - {-1}))
        self._note_tokens(name, True, args)

    def _after(
        self, name: str, weights: int, module: nn.Module, args: tuple, output: Any
    ) -> None:
        self._stack.pop()
        self._note_tokens(name, False, output)
        index, order = self._counts[name], len(self.probe.calls)
        self._counts[name] += 1
        kind, is_leaf = type(module).__name__, next(module.children(), None) is None
        path = tuple(self._stack)
        value = self.describe(output, maps=name.startswith('decode_head.'))
        entered = self._entered.pop()
        call = Call(name, kind, index, order, path, weights, is_leaf, value, entered)
        self.probe.calls.append(call)

    def _note_tokens(self, name: str, is_input: bool, value: Any) -> None:
        for tensor in _tensors(value):
            if tensor.dim() == 3 and len(tensor) == self.probe.input_shape[0]:
                place = (name, self._counts[name], is_input, tensor)
                self.firsts.setdefault(tensor.shape[1], place)


def attributes_of(value: Any) -> dict[str, Any]:
    """List the attributes of a data class.

    Args:
        value (Any): Anything.

    Returns:
        dict[str, Any]: Name -> attribute, as far as they are set. Empty for what is no
        instance of a data class, and for mappings, which have keys.
    """
    if not is_dataclass(value) or isinstance(value, (type, Mapping)):
        return {}
    names = [one.name for one in fields(value)]
    return {name: getattr(value, name) for name in names if hasattr(value, name)}


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
    model: BaseModel, inputs: Tensor, firsts: dict[int, tuple[str, int, bool, Tensor]]
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
    with CallRecorder(model, Probe(tuple(inputs.shape))) as second:
        _run(model, changed, heads=False)
    measured = {}
    for length, (*place, tensor) in firsts.items():
        *other_place, other = second.firsts.get(length, (None, tensor))
        if other_place != place or other.shape != tensor.shape:
            continue
        moved = (tensor != other).any(dim=2).any(dim=0).nonzero().flatten()
        if len(moved) and len(moved) < length:
            measured[length] = (int(moved[0]), length - 1 - int(moved[-1]))
    return measured


# Where a tensor stands in what a layer returned: mmrazor's `data_idx`.
DataIdx = Union[None, int, tuple[int, ...]]


def tensors_of(
    output: Any, path: tuple[int, ...] = ()
) -> list[tuple[DataIdx, TensorInfo]]:
    """List the tensors that a level can take out of what a layer returned.

    Args:
        output (Any): ``Call.output``, or a part of it.
        path (tuple[int, ...]): Where the part stands.

    Returns:
        list[tuple[DataIdx, TensorInfo]]: ``data_idx`` and tensor: None for a layer
        that returned just one, a number for a part of a tuple, numbers for a part of a
        part.
    """
    if isinstance(output, TensorInfo):
        return [(path[0] if len(path) == 1 else path or None, output)]
    parts = enumerate(output if isinstance(output, tuple) else ())
    return [found for i, part in parts for found in tensors_of(part, (*path, i))]
