# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""What the layers of a model returned in its last forward pass."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.dropout import _DropoutNd

from mmfakd.ops.compiling import is_compiling

from .autocast import autocast_dtype
from .layer import copied, tensors_in
from .layer_hook import LayerHook, PassHook
from .logits import logits_in
from .unwrap import in_data_parallel, layer_name

# In a backward pass checkpointed layers run again.
_in_backward = getattr(torch._C, '_current_graph_task_id', lambda: -1)


class Recorder:
    """Records layers of a model by forward hooks.

    A forward pass of the model begins the records anew, so that those of the last one
    count. Nothing is recorded in the second run of checkpointed layers.

    Args:
        model (nn.Module): The unwrapped model.
        names (Iterable[str]): Names of the layers; ``''`` is the model itself.
        with_graph (bool): Whether only what has a graph is recorded: a student's.

    Attributes:
        recording (bool): Whether it records; False at first.
        with_graph (bool): See above.
        records (dict[str, list]): Layer -> what its calls returned.
        inputs (tuple[tuple, dict], optional): Arguments of the model's last pass.
        without_graph (bool): Whether a layer ran without a graph in the meantime.
        autocast (dtype, optional): Autocast's type in the last call that was recorded.
        changes_inputs (bool): Whether the model is known to change its inputs in place.
        copy (set[str]): Layers whose outputs are changed in place later on, so that
            copies are recorded.
        logits_alone (bool): Whether of what the model itself returns a copy of the
            logits is recorded, and nothing else.
        calls (dict[str, int]): Layer -> its calls in a pass, where that is known. No
            more are kept of passes whose begin is not seen, as the model itself is
            not called.
    """

    def __init__(
        self, model: nn.Module, names: Iterable[str], with_graph: bool
    ) -> None:
        self.recording = False
        self.records: dict[str, list] = {name: [] for name in names}
        self.inputs: tuple[tuple, dict] | None = None
        self.without_graph = False
        self.autocast: torch.dtype | None = None
        self.changes_inputs = False
        self.copy: set[str] = set()
        self.logits_alone = False
        self.calls: dict[str, int] = {}
        self.with_graph = with_graph
        self._given: list[tuple[Tensor, int]] = []
        # Layer -> of each record its tensors and their versions.
        self._taken: dict[str, list[list[tuple[Tensor, int]]]] = {}
        self._model = model
        # What they change in place cannot be seen while a graph is compiled.
        self._drops_in_place = with_graph and any(
            isinstance(m, _DropoutNd) and m.inplace and m.p for m in model.modules()
        )
        self._begins = model.register_forward_pre_hook(
            PassHook(self, ''), with_kwargs=True
        )
        # Layer -> the module that has the hook, and its handle.
        self._hooked: dict[str, tuple[nn.Module, Any]] = {}
        self._attach()

    def _attach(self) -> None:
        """Hook the layers, anew where one was replaced, as by SyncBN's conversion."""
        for name in self.records:
            hooked, handle = self._hooked.get(name, (None, None))
            module = self._find(name, hooked)
            if module is hooked:
                continue
            if handle is not None:
                handle.remove()
            handle = module.register_forward_hook(LayerHook(self, name))
            self._hooked[name] = (module, handle)

    def _find(self, name: str, hooked: nn.Module | None) -> nn.Module:
        """Find a layer, within a wrapper that hides its name if it is still in it."""
        try:
            return self._model.get_submodule(name)
        except AttributeError:
            if any(module is hooked for module in self._model.modules()):
                return hooked  # type: ignore[return-value]
            # A wrapper's own part of the name, or an error that lists near ones.
            role = 'student' if self.with_graph else 'teacher'
            return self._model.get_submodule(layer_name(self._model, name, role))

    def begin(self, model: nn.Module, args: tuple, kwargs: dict) -> None:
        """Begin a forward pass of the model.

        Args:
            model (nn.Module): The model that runs.
            args (tuple): Its positional arguments.
            kwargs (dict): Its keyword arguments.

        Raises:
            TypeError: If it is a copy that ``DataParallel`` made.
        """
        if not self._records_now(model):
            return
        self.clear()
        self.inputs = (args, dict(kwargs))
        if not is_compiling():
            self._attach()
            self._given = _versions((args, kwargs))

    def take(self, name: str, layer: nn.Module, output: Any) -> None:
        """Record a call of a layer.

        Args:
            name (str): Name of the layer.
            layer (nn.Module): The layer that ran.
            output (Any): What it returned.

        Raises:
            TypeError: If it is part of a copy that ``DataParallel`` made.
        """
        if not self._records_now(layer):
            return
        if not name and self.logits_alone:
            output = _logits_alone(output)
        elif name in self.copy or (self._drops_in_place and is_compiling()):
            output = copied(output)
        self._keep(self.records[name], output, name)
        if is_compiling():
            return
        found = _versions(output)
        self._keep(self._taken.setdefault(name, []), found, name)
        for tensor, _ in found[:1]:
            self.autocast = autocast_dtype(tensor.device.type)

    def _keep(self, kept: list, value: Any, name: str) -> None:
        kept.append(value)
        most = self.calls.get(name, 0) if self.inputs is None else 0
        # An older pass, whose graph would stay until somebody asks for the loss.
        while 0 < most < len(kept):
            kept.pop(0)

    def _records_now(self, module: nn.Module) -> bool:
        if not self.recording:
            return False
        # What traces runs the model on its own, and no step follows.
        if not is_compiling() and (_in_backward() != -1 or torch.jit.is_tracing()):
            return False
        if self.with_graph and not torch.is_grad_enabled():
            if not is_compiling():
                self.without_graph = True
            return False
        # Copies share these hooks, and each has a part of the batch.
        if getattr(module, '_is_replica', False):
            raise TypeError(in_data_parallel('student' if self.with_graph else 'model'))
        return True

    @property
    def inputs_changed(self) -> bool:
        """bool: Whether the inputs of the last pass were changed in place since.

        Compiled passes do not tell; of these it is what is known of the model.
        """
        if not self._given:
            return self.inputs is not None and self.changes_inputs
        return any(tensor._version != before for tensor, before in self._given)

    @property
    def changed(self) -> set[str]:
        """set[str]: Layers whose outputs were changed in place since."""
        return {
            name
            for name, records in self._taken.items()
            if any(x._version != version for found in records for x, version in found)
        }

    def clear(self) -> None:
        """Forget all, so that no graph outlives its step."""
        for records in self.records.values():
            records.clear()
        self.inputs, self._given, self._taken = None, [], {}
        self.without_graph = False

    def close(self) -> None:
        """Take the hooks off the model."""
        self._begins.remove()
        for _, handle in self._hooked.values():
            handle.remove()
        self.recording = False
        self.clear()


def _logits_alone(output: Any) -> Any:
    """Predictions as the model returned them, whatever a loop does to them then.

    Class priors are added and temperatures divided by in place, which within a compiled
    pass could not be seen.
    """
    logits = logits_in(output)
    return output if logits is None else logits.clone()


def _versions(value: Any) -> list[tuple[Tensor, int]]:
    """Tensors, and how often each has been changed in place."""
    tensors = (tensor for _, tensor in tensors_in(value))
    return [(x, x._version) for x in tensors if not x.is_inference()]
