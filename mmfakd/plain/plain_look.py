# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""The look at the first step of a training loop of one's own."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import torch.distributed as dist
from torch import Tensor, nn

from mmfakd.models.algorithms.first_look import FirstLook
from mmfakd.models.algorithms.first_step import FirstStep
from mmfakd.models.algorithms.input_statistics import RAW, input_statistics
from mmfakd.models.distillers.graph_nodes import graph_nodes
from mmfakd.models.distillers.loss_gradients import LossGradient, loss_gradients

from .inputs import Arguments
from .layer import tensors_in
from .watched_model import WatchedModel

_ALONE = 'the student has no loss of its own here'
_AT_ZERO = 'a head that begins at zero'
_CLOSING = (
    'Nothing has been trained. `report=False` of mmfakd.distill skips this check.'
)


@dataclass
class _Given:
    """A teacher of which nothing is known but that it was given."""

    model: nn.Module
    source: str = 'those of the module that was given'
    has_weights: bool = True
    told_input: bool = True
    unfilled: Any = ()
    input: Any = field(default_factory=lambda: SimpleNamespace(is_identity=True))


class PlainLook(FirstLook):
    """A first look at two modules, in the words of :func:`mmfakd.distill`.

    Args:
        student (WatchedModel): The student, after its forward pass.
        teacher (WatchedModel): The teacher, likewise.
        distiller (ConfigurableDistiller): The distiller, with all records.
    """

    def __init__(
        self, student: WatchedModel, teacher: WatchedModel, distiller: Any
    ) -> None:
        learning = {id(p) for p in student.core.parameters() if p.requires_grad}
        given: Any = _Given(teacher.core)
        core: Any = student.core
        # Whether connectors learn, `Distillation` sees at its second call.
        super().__init__(core, given, distiller, learning, trainable=True, still={})
        self._watched = student

    def look_at_features(self, arguments: Arguments) -> None:
        """Look at the inputs and at what has been recorded.

        Args:
            arguments (tuple[tuple, dict]): What the models were called with.

        Raises:
            ValueError: If a level reaches nothing of the student, or the teacher's
                feature is void.
        """
        inputs = [x for _, x in tensors_in(arguments)]
        student = self._watched
        recorder = student.recorder

        def run() -> None:
            recorder.recording = False
            try:
                student.run(arguments)
            finally:
                recorder.recording = True

        images: Any = next((x for x in inputs if x.dim() == 4), inputs[:1])
        self.at_features(images, None, run)

    def at_losses(self, own: Any, losses: Any, warmup: Any = None) -> FirstStep:
        """Look at the losses and their gradients, see :class:`FirstLook`.

        Args:
            own (Mapping): The student's own loss, if it is known.
            losses (Mapping): Distillation losses at full weight.
            warmup (Tensor, optional): The factor that they have been scaled by.

        Returns:
            FirstStep: The report.
        """
        step = super().at_losses(own, losses, warmup)
        step.warnings = [_in_own_words(text) for text in step.warnings]
        step.notes = [_in_own_words(text) for text in step.notes]
        if not any(loss.requires_grad for loss in own.values()):
            # A loss without a graph has been told already.
            step.notes = [text for text in step.notes if _AT_ZERO not in text]
        if not own:
            step.notes = [text for text in step.notes if _ALONE not in text]
            step.notes.append(
                "the student's own loss was not given, or its wrapper has "
                'static_graph=True, so the gradients are not compared with its: '
                'loss(own=loss) does.'
            )
        return step

    def _gradients(
        self, own: Tensor | None, losses: Mapping[str, Tensor]
    ) -> dict[str, LossGradient]:
        models = may_run_backward(self.student, self.distiller)
        return loss_gradients(own, losses, self.weights, models)

    def _look_at_inputs(self, inputs: Tensor, data_samples: list | None) -> None:
        found = input_statistics(inputs, None)
        if found is None:
            return
        self.step.inputs['student'] = dict(found.as_dict(), differs=found.differs)
        if found.least >= -1 and found.most > RAW:
            self.step.warnings.append(
                f'The batch has values from {found.least:.3g} to {found.most:.3g}: it '
                'has not been normalised, as student and teacher are used to, unless '
                'they do so themselves.'
            )

    def _blame_teacher(self, name: str, layer: str, reason: str) -> str:
        return (
            f"{name}: the teacher's feature {layer!r} {reason}, so there is nothing to "
            'learn from it. Look at the weights that were loaded into it, at its '
            'inputs and, in half precision, at their range.'
        )

    def _refuse(self) -> None:
        if self.step.errors:
            self.step.log()
            errors = [_in_own_words(error) for error in self.step.errors]
            raise ValueError('\n'.join([*errors, _CLOSING]))


def may_run_backward(*models: nn.Module) -> list[nn.Module]:
    """Choose models through whose graph a backward pass of its own may be run.

    Re-entrant checkpoints need one. A parallel wrapper of the student waits for
    gradients by now, and would take these for the training's.

    Args:
        *models (nn.Module): Those in the graph.

    Returns:
        list[nn.Module]: They, or none where there is more than one process.
    """
    parallel = dist.is_available() and dist.is_initialized()
    return [] if parallel else list(models)


def counts_backward(loss: Tensor) -> bool:
    """Tell whether a loss comes out of a wrapper that counts its backward passes.

    ``DistributedDataParallel`` with ``static_graph=True`` does, and would take a look
    at the gradients for the first pass of the training.

    Args:
        loss (Tensor): The loss.

    Returns:
        bool: Whether it does.
    """
    for node in graph_nodes([loss]):
        wrapper: Any = getattr(node, 'ddp_weakref', lambda: None)()
        if getattr(wrapper, 'static_graph', False):
            return True
    return False


def _in_own_words(text: str) -> str:
    """A message without what configs alone have."""
    text = re.sub(r', that is --cfg-options .*', '.', text, flags=re.S)
    return text.replace(' in `model.distiller`', ' of mmfakd.distill')
