# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""A model of the user's whose layers are recorded."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor, nn

from mmfakd.messages import quoted
from mmfakd.models.distillers.token_map import TokenMap
from mmfakd.ops.compiling import is_compiled
from mmfakd.ops.maps import as_map
from mmfakd.pairing.features import Feature, find_features
from mmfakd.pairing.probe import Call, CallRecorder, Probe, attributes_of

from .inputs import Arguments, fitted, left_alone, telling
from .layer import Layer, LayerLike, describe, item_of, tensors_in
from .layer_hook import PassHook
from .logits import has_classes_last, logits_of
from .recorder import Recorder
from .unwrap import layer_name, unwrap

# For messages.
WITHOUT_GRAPH = (
    'without gradients: under torch.no_grad, or inside a re-entrant checkpoint. '
    'Let it have gradients (use_reentrant=False), or record layers behind that'
)
# How a model is run: called with it and its arguments.
Forward = Callable[..., Any]


@dataclass(frozen=True)
class MapInfo:
    """What is known of a layer's map from the example input.

    Args:
        layer (Layer): The layer.
        channels (int): Its channels C.
        size (tuple[int, int]): Its height and width, (1, 1) for a vector.
        non_negative (bool): Whether it has no negative value, as after a ReLU.
    """

    layer: Layer
    channels: int
    size: tuple[int, int]
    non_negative: bool


class WatchedModel:
    """A student or teacher, recorded by hooks.

    Args:
        model (nn.Module): The model, in wrappers or not.
        layers (Sequence[str | nn.Module | Mapping]): Its layers.
        role (str): ``'student'`` or ``'teacher'``.
        forward (Callable, optional): How to run it, if not by calling it.
        with_output (bool): Whether its own output is recorded, too.

    Attributes:
        maps (list[MapInfo]): What the example input showed, a level each.
        calls (dict[str, int]): How often each layer ran in a pass.
        logits (Tensor, optional): Its logits for the example input, (N, classes, ...),
            if its output is recorded.
        classes_last (bool): Whether it yields those of a sequence, (N, L, classes).

    Raises:
        TypeError: If it is no module that hooks run in.
        ValueError: For layers that it does not have.
    """

    def __init__(
        self,
        model: nn.Module,
        layers: Sequence[LayerLike],
        role: str,
        forward: Forward | None = None,
        with_output: bool = False,
    ) -> None:
        self.model, self.role = model, role
        self.core = unwrap(model, role)
        self.layers = []
        for given in layers:
            name: Any = given.get('name') if isinstance(given, Mapping) else given
            if not isinstance(name, (str, nn.Module)):
                raise ValueError(
                    f'{role}_layers: got {given!r}; expected the name of a layer, or '
                    'dict(name=..., ...).'
                )
            found = layer_name(self.core, name, role)
            self.layers.append(Layer.parse(given, found, role))
        self.forward = forward
        self.with_output = with_output
        names = dict.fromkeys(layer.name for layer in self.layers)
        names.update(dict.fromkeys([''] if with_output else []))
        self.recorder = Recorder(self.core, names, with_graph=role == 'student')
        self.recorder.copy = {layer.name for layer in self.layers if layer.copy}
        self.maps: list[MapInfo] = []
        self.calls: dict[str, int] = {}
        # Layers of which it was said which call counts.
        self._chosen: set[str] = set()
        self.logits: Tensor | None = None
        self.classes_last = False

    def run(self, arguments: Arguments) -> Any:
        """Run the model.

        Args:
            arguments (tuple[tuple, dict]): Its arguments, on any device.

        Returns:
            Any: Its output.
        """
        args, kwargs = fitted(arguments, self.core)
        if self.forward is not None:
            return self.forward(self.model, *args, **kwargs)
        return self.model(*args, **kwargs)

    def examine(self, arguments: Arguments) -> None:
        """Find out what the layers yield, by one run that leaves no trace.

        Args:
            arguments (tuple[tuple, dict]): The example input.

        Raises:
            ValueError: If the model fails on it, or a layer does not run or yields no
                feature.
        """
        arguments = telling(arguments)
        images = [x for _, x in tensors_in(arguments) if x.dim() == 4]
        probe = Probe(tuple(images[0].shape) if images else (-1,))
        records = self._run_example(arguments, probe)
        if self.recorder.changed:
            # What they were before needs a copy.
            self.recorder.copy |= self.recorder.changed
            records = self._run_example(arguments, Probe(probe.input_shape))
        self.recorder.changes_inputs = self.recorder.inputs_changed
        self.recorder.logits_alone = all(layer.name for layer in self.layers)
        self.recorder.clear()
        inputs = [x for _, x in tensors_in(arguments)]
        sequences = any(x.dim() == 2 and not x.is_floating_point() for x in inputs)
        if self.with_output:
            logits = logits_of(records[''], self.role)
            self.classes_last = has_classes_last(logits, inputs, self.role)
            self.logits = self._classes_first(logits)
        self.calls = {name: len(calls) for name, calls in records.items()}
        self.recorder.calls = self.calls
        self._chosen = {layer.name for layer in self.layers if layer.call is not None}
        features = _by_place(probe) if images else None
        given = self.layers
        self.layers = [
            self._complete(layer, records[layer.name], features, sequences)
            for layer in self.layers
        ]
        for before, layer in zip(given, self.layers):
            record = records[layer.name][layer.call or 0]
            owner = f'{self.role}_layers, {layer.title!r}'
            _refuse_one_sample(layer, record, _batch_of(inputs), owner)
            if before.layout is None and layer.layout == 'NLC':
                _refuse_batch_second(layer.part(record), _batch_of(inputs), owner)
        self.maps = [
            self._info(layer, records[layer.name][layer.call or 0])
            for layer in self.layers
        ]

    def _run_example(self, arguments: Arguments, probe: Probe) -> dict[str, list]:
        """What the layers return."""
        recorder = self.recorder
        recorder.clear()
        recorder.recording, recorder.with_graph = True, False
        try:
            # The unwrapped model, since nothing is to be compiled for one image.
            with left_alone(self.core), CallRecorder(self.core, probe) as calls_of:
                args, kwargs = fitted(arguments, self.core)
                (self.forward or _call)(self.core, *args, **kwargs)
                for output in recorder.records.get('', []):
                    probe.calls.append(_whole(calls_of.describe(output)))
        except Exception as error:
            recorder.clear()
            raise ValueError(
                f'The {self.role} ({type(self.core).__name__}) fails on the example '
                f'input ({describe(arguments[0] or arguments[1])}): '
                f'{type(error).__name__}: {error}. Give what it takes: a tensor, a '
                'tuple of arguments or a dict of keyword arguments, or how to run it '
                'as `forward`.'
            ) from error
        finally:
            recorder.recording, recorder.with_graph = False, self.role == 'student'
        return {name: list(calls) for name, calls in recorder.records.items()}

    def _complete(
        self,
        layer: Layer,
        records: list,
        features: dict[tuple, Feature] | None,
        sequences: bool,
    ) -> Layer:
        """Fill in which part of the output counts, and how it becomes a map."""
        owner = f'{self.role}_layers, {layer.title!r}'
        if not records:
            raise ValueError(
                f'{owner}: the layer did not run on the example input. Record one that '
                "runs in the model's forward pass (layers in TorchScript, or whose "
                'weights alone are used, do not)'
                + ('.' if self.forward is None else ', or correct `forward`.')
            )
        calls = len(records)
        if layer.call is None and calls > 1:
            raise ValueError(
                f'{owner}: the layer runs {calls} times in a forward pass. Say which '
                f'call counts: dict(name={layer.name!r}, call=0), up to '
                f'call={calls - 1}, or record the layer around it.'
            )
        if not -calls <= (layer.call or 0) < calls:
            raise ValueError(
                f'{owner}: the layer runs {calls} time(s) in a forward pass; expected '
                f'`call` to be below {calls}.'
            )
        call = (layer.call or 0) % calls
        layer = replace(layer, call=call)
        if layer.index is None:
            layer = replace(layer, index=_only_part(records[call], owner))
        try:
            layer.part(records[call])
        except ValueError as error:
            raise ValueError(f'{self.role}_layers: {error}') from error
        if layer.layout is None and layer.tokens is None:
            place = _positions(records[call], layer.index or ())
            if features is None:
                return _arranged(layer, records[call], sequences, owner)
            feature = features.get((layer.name, call, place))
            if feature is None and place[-1:] == (0,):
                feature = features.get((layer.name, call, place[:-1]))
            if feature is None:
                raise _unknown(layer, records[call], owner)
            return _as_found(layer, records[call], feature)
        return layer

    def _info(self, layer: Layer, record: Any) -> MapInfo:
        try:
            feature = as_map(layer.to_map(layer.part(record)))
        except ValueError as error:
            raise ValueError(f'{self.role}_layers: {error}') from error
        height, width = feature.shape[2:]
        non_negative = bool(feature.min() >= 0)
        return MapInfo(layer, feature.shape[1], (height, width), non_negative)

    def read(self) -> list[Tensor]:
        """Read the maps of the last forward pass.

        Returns:
            list[Tensor]: (N, C, H, W) or (N, C) of each level.

        Raises:
            RuntimeError: If a layer did not run, or was changed in place.
            ValueError: If what it returned makes no map.
        """
        changed = self.recorder.changed - self.recorder.copy
        for layer in self.layers:
            if layer.name in changed:
                raise RuntimeError(
                    f"The output of the {self.role}'s layer {layer.name!r} was changed "
                    'in place after it had been recorded, by what runs in training '
                    'only, as an in-place dropout. Record a copy: '
                    f'dict(name={layer.name!r}, copy=True).'
                )
        return [layer.to_map(layer.part(self._record(layer))) for layer in self.layers]

    def _record(self, layer: Layer) -> Any:
        records = self.recorder.records[layer.name]
        if self.recorder.inputs is None:
            # Without a call of the model itself, several passes may be there.
            records = records[-self.calls[layer.name] :]
        elif layer.name not in self._chosen and len(records) > 1:
            raise RuntimeError(
                f"The {self.role}'s layer {layer.title!r} ran {len(records)} times in "
                'its last forward pass, and once on the example input. Say which call '
                f'counts: dict(name={layer.name!r}, call=0), or record the layer '
                'around it.'
            )
        last = records
        if (layer.call or 0) < len(last):
            return last[layer.call or 0]
        ran = [
            name or 'output' for name, calls in self.recorder.records.items() if calls
        ]
        instead = f' {quoted(ran)} did.' if ran else ''
        if self.recorder.without_graph:
            raise RuntimeError(
                f"The {self.role}'s layer {layer.title!r} ran {WITHOUT_GRAPH}.{instead}"
            )
        raise RuntimeError(
            f"The {self.role}'s layer {layer.title!r} did not run in its last forward "
            f'pass, as it did on the example input.{instead} Record a layer that runs '
            f'in each training step{self.compiled_advice}.'
        )

    @property
    def is_taught(self) -> bool:
        """bool: Whether a distillation teaches it, as where two teach each other."""
        hooks = self.core._forward_pre_hooks.values()
        return any(isinstance(h, PassHook) and h.records_a_student for h in hooks)

    @property
    def compiled_advice(self) -> str:
        """str: What to look at where a compiled model recorded nothing."""
        if not is_compiled(self.model):
            return ''
        return (
            '. If it was compiled and had run before mmfakd.distill was called, call '
            'torch.compiler.reset() after it, so that it is compiled with the hooks'
        )

    def output(self) -> Tensor:
        """Read the logits that the model returned in its last pass.

        Returns:
            Tensor: (N, classes, ...), also of a sequence.

        Raises:
            ValueError: If the model did not return any.
        """
        return self._classes_first(logits_of(self.recorder.records[''], self.role))

    def _classes_first(self, logits: Tensor) -> Tensor:
        return logits.movedim(-1, 1) if self.classes_last else logits


def _call(model: nn.Module, *args: Any, **kwargs: Any) -> Any:
    return model(*args, **kwargs)


def _only_part(record: Any, owner: str) -> tuple:
    """Where the one feature in a record stands."""
    parts = [(path, x) for path, x in tensors_in(record) if x.dim() > 1]
    if len(parts) == 1:
        return parts[0][0]
    raise ValueError(
        f'{owner}: the layer returned {describe(record)}; expected one tensor. Choose '
        'one: dict(name=..., index=...).'
    )


def _positions(record: Any, path: Sequence) -> tuple[int, ...]:
    """A path of keys as one of positions."""
    positions: list[int] = []
    for key in path:
        named = record if hasattr(record, 'keys') else attributes_of(record)
        names = list(named.keys())
        positions.append(names.index(key) if key in names else key % len(record))
        record = item_of(record, key)
    return tuple(positions)


def _by_place(probe: Probe) -> dict[tuple, Feature]:
    """Features by layer, call and place in what it returned."""
    for call in probe.calls:
        call.output = _without_keys(call.output)
    found = {}
    for feature in find_features(probe):
        at = feature.data_idx
        place = at if isinstance(at, tuple) else () if at is None else (at,)
        found[feature.call.name, feature.call.index, place] = feature
    return found


def _without_keys(output: Any) -> Any:
    if isinstance(output, dict):
        return tuple(_without_keys(item) for item in output.values())
    if isinstance(output, tuple):
        return tuple(_without_keys(item) for item in output)
    return output


def _whole(output: Any) -> Call:
    """The call of the model itself."""
    return Call('', '', 0, 0, (), 0, False, output)


def _as_found(layer: Layer, record: Any, feature: Feature) -> Layer:
    """A layer with the layout that was found among those of an image's features."""
    tokens = feature.tokens or {}
    if tokens.get('channels_last'):
        return replace(layer, layout='NHWC')
    if tokens:
        return replace(layer, tokens=TokenMap(tokens))
    part = layer.part(record)
    if isinstance(part, Tensor) and part.dim() == 3:
        # Their grid stands beside the tokens.
        return replace(layer, index=(layer.index or ())[:-1])
    return replace(layer, layout='NCHW')


def _arranged(layer: Layer, record: Any, sequences: bool, owner: str) -> Layer:
    """A layer with the layout that is likely where there are no images."""
    part = layer.part(record)
    dimensions = part.dim() if isinstance(part, Tensor) else 0
    if dimensions in (2, 4):
        return replace(layer, layout='NCHW')
    if dimensions == 3 and sequences:
        return replace(layer, layout='NLC')
    raise _unknown(layer, record, owner)


def _batch_of(inputs: Sequence[Tensor]) -> int | None:
    """How many samples the example has, if all images, tokens and vectors say so.

    Three dimensions may be one image in a list.
    """
    counts = {len(x) for x in inputs if x.dim() in (2, 4)}
    return counts.pop() if len(counts) == 1 else None


def _refuse_one_sample(
    layer: Layer, record: Any, batch: int | None, owner: str
) -> None:
    """Raise where `index` takes one sample for a part, and no other dimension fits."""
    for key in layer.index or ():
        if isinstance(record, Tensor):
            found = [i for i, n in enumerate(record.shape) if n == batch]
            if found == [0]:
                raise ValueError(
                    f'{owner}: `index` {key!r} of {describe(record)} is one sample of '
                    'the batch. Leave it out: it is for layers that return several '
                    'tensors. If the first dimension is not the batch, give an example '
                    'of another number of samples.'
                )
            return
        record = item_of(record, key)


def _refuse_batch_second(part: Tensor, batch: int | None, owner: str) -> None:
    """Raise where positions stand before the samples, and would be taken for them."""
    if part.shape[1] == batch != len(part):
        raise ValueError(
            f'{owner}: the batch of {batch} is the second dimension of '
            f'{describe(part)}, as with batch_first=False; expected (N, L, C). Record '
            'a layer that has it first, or let the model have it first '
            "(batch_first=True). If it is the first, say layout='NLC'."
        )


def _unknown(layer: Layer, record: Any, owner: str) -> ValueError:
    return ValueError(
        f'{owner}: cannot tell what the dimensions of {describe(layer.part(record))} '
        "are. Say it: dict(name=..., layout='NCHW'), 'NHWC', 'NLC' or 'NCL' "
        '(sequences), or, for tokens that stand for patches of an image, '
        'tokens=dict(prefix=0, suffix=0, size=(h, w)).'
    )
