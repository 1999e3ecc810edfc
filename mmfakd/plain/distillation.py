# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""The distillation loss of two models in a training loop of one's own."""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import nullcontext
from textwrap import indent
from typing import Any

import torch
import torch.distributed as dist
from mmengine.dist import get_rank
from mmengine.logging import print_log
from mmrazor.models.distillers import ConfigurableDistiller
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.nn.utils import convert_conv2d_weight_memory_format

from mmfakd.messages import aligned
from mmfakd.models.algorithms.first_step import FirstStep
from mmfakd.models.algorithms.run_mode import evaluation
from mmfakd.models.algorithms.tell_choices import tell_choices
from mmfakd.models.connectors import ReviewLevel
from mmfakd.models.distillers import BalancedWeights
from mmfakd.models.distillers.any_distiller import clear_records
from mmfakd.ops.compiling import is_compiling
from mmfakd.ops.maps import as_map

from .autocast import autocast_dtype
from .call_warmup import CallWarmup
from .inputs import Arguments, moved
from .logits import by_position, check_logits
from .moves import Moves
from .own_loss import check_own_loss, tell_if_without_graph
from .plain_look import PlainLook, counts_backward, may_run_backward
from .watched_model import WITHOUT_GRAPH, MapInfo, WatchedModel


class Distillation(nn.Module):
    r"""What :func:`mmfakd.distill` returns: a loss between two models, and its weights.

    .. math::
        \mathcal{L} = w \sum_l \lambda_l \, d\big(\hat{F}^T_l(F^S), F^T_l\big)
        + \lambda_{kd} \, \mathrm{KL}

    The student's layers are recorded by hooks while it is called; :meth:`loss` runs the
    teacher and compares. Neither model is part of this module: ``parameters()`` and
    ``state_dict()`` are those of the connectors, and the student's state dict is as
    without distillation.

    Args:
        student (WatchedModel): The student.
        teacher (WatchedModel): The teacher.
        distiller (ConfigurableDistiller): Connectors and losses.
        any_size (bool): Whether inputs may have other sizes than the example.
        report (bool): Whether the first call examines what it distils.

    Attributes:
        losses (dict[str, Tensor]): The losses of the last call, weighted, without
            graph, for a log.
        first_step (FirstStep, optional): What the first call found.
    """

    def __init__(
        self,
        student: WatchedModel,
        teacher: WatchedModel,
        distiller: ConfigurableDistiller,
        any_size: bool = False,
        report: bool = True,
    ) -> None:
        super().__init__()
        self.distiller = distiller
        self.any_size = any_size
        self.losses: dict[str, Tensor] = {}
        self.first_step: FirstStep | None = None
        self._looks, self._started = report, False
        self._moves = Moves()
        # Outside of the module tree; copies of this module have none.
        self._sides: tuple[WatchedModel, WatchedModel] | None = (student, teacher)
        if not teacher.is_taught:
            teacher.core.eval()
        self._frozen_told = False
        student.recorder.recording = True

    @property
    def student(self) -> nn.Module:
        """nn.Module: The student, as it was given."""
        return self._both()[0].model

    @property
    def teacher(self) -> nn.Module:
        """nn.Module: The teacher, as it was given."""
        return self._both()[1].model

    def load_state_dict(self, *args: Any, **kwargs: Any) -> Any:
        """Load the connectors of an earlier distillation.

        Args:
            *args (Any): As for :class:`torch.nn.Module`.
            **kwargs (Any): Likewise.

        Returns:
            Any: Keys that are missing, and those that were not expected.

        Raises:
            RuntimeError: If they are those of other layers or of another method.
        """
        try:
            return super().load_state_dict(*args, **kwargs)
        except RuntimeError as error:
            raise RuntimeError(
                f'{error}\n\tIs it of the same layers and method? Where mmfakd.distill '
                "was given none, older versions took method='fakd-review'."
            ) from None

    def _load_from_state_dict(self, state_dict: dict, prefix: str, *args: Any) -> None:
        # Also of what holds this module, as its wrapper for several processes.
        ours = [key for key in state_dict if key.startswith(f'{prefix}distiller.')]
        if ours:
            self._tell_measured(any('.loss_weight.' in key for key in ours))
        super()._load_from_state_dict(state_dict, prefix, *args)

    def _tell_measured(self, before: bool) -> None:
        """Warn where weights were measured and are given now, or the other way."""
        now = isinstance(getattr(self.distiller, 'loss_weight', None), BalancedWeights)
        if before != now:
            kinds = ('numbers', "measured (loss_weight='balance')")
            print_log(
                'Distillation.load_state_dict: the weights of the levels were '
                f'{kinds[before]} before and are {kinds[now]} now, so that the loss is '
                'another. To go on as before, give mmfakd.distill the earlier '
                '`loss_weight`.',
                logger='current',
                level=logging.WARNING,
            )

    def forward(self, *inputs: Any, own: Tensor | None = None, **kwargs: Any) -> Tensor:
        """Compute the loss, see :meth:`loss`; what parallel wrappers call.

        Args:
            *inputs (Any): The teacher's positional arguments.
            own (Tensor, optional): The student's own loss.
            **kwargs (Any): The teacher's keyword arguments.

        Returns:
            Tensor: The loss, a scalar.
        """
        return self.loss(*inputs, own=own, **kwargs)

    def loss(self, *inputs: Any, own: Tensor | None = None, **kwargs: Any) -> Tensor:
        """Run the teacher and compare it with the student's last forward pass.

        Call it once after each forward pass of the student, before the backward pass.

        Args:
            *inputs (Any): What the teacher is called with. Without any arguments it is
                what the student was called with.
            own (Tensor, optional): The student's own loss, one value with its graph. It
                is needed where weights are measured (``loss_weight='balance'``), and
                the report compares with it. It is not part of the loss that comes back.
            **kwargs (Any): Further arguments of the teacher.

        Returns:
            Tensor: The weighted sum of all distillation losses, a scalar with graph.

        Raises:
            RuntimeError: If the student has not run since the last call, or ran without
                gradients; if this module is in evaluation mode, closed or a copy; if a
                loss can teach nothing (first call).
            ValueError: If features of student and teacher do not go together, or
                ``own`` is no tensor of one value.
        """
        student, teacher = self._both()
        if own is not None:
            check_own_loss(own)
        self._refuse_idle(student)
        arguments: Arguments = (inputs, kwargs)
        try:
            if not inputs and not kwargs:
                arguments = self._inputs_of(student)
            maps = student.read()
            self._warn_if_frozen(student, maps)
            with self._autocast(student, maps):
                self._run_teacher(teacher, arguments)
                self._fill(student, teacher, maps)
                return self._compute(arguments, own)
        finally:
            student.recorder.clear()
            teacher.recorder.clear()
            clear_records(self.distiller)

    def _compute(self, arguments: Arguments, own: Tensor | None) -> Tensor:
        student, teacher = self._both()
        distiller = self.distiller
        first, look = not self._started, None
        measures = getattr(distiller, 'measures', False)
        if first and (measures or self._looks):
            tell_if_without_graph(own)
        if measures:
            if own is None or counts_backward(own):
                raise RuntimeError(
                    "loss_weight='balance' measures the levels against the student's "
                    'own loss: give it, loss(own=loss), without static_graph=True of '
                    'its wrapper; or give weights as numbers.'
                )
            core = student.core
            models = may_run_backward(core, distiller)
            distiller.take_own_loss(own, core.parameters(), models)
        self._warn_if_left_out(student)
        if first:
            self._warn_if_apart()
        if first and self._looks:
            look = PlainLook(student, teacher, distiller)
            look.look_at_features(arguments)
        losses = distiller.compute_distill_losses()
        tell_choices()
        if look is not None:
            full = getattr(distiller, 'full_losses', None) or losses
            apart = own is None or counts_backward(own)
            ours = {} if apart else {'loss': own}
            self.first_step = look.at_losses(ours, full, losses.get('warmup'))
            # All processes have found the same.
            if get_rank() == 0:
                self.first_step.log()
        warmup = getattr(distiller, 'warmup', None)
        if isinstance(warmup, CallWarmup):
            warmup.advance()
        # What was refused is looked at again: a notebook's cell is run twice.
        self._started = True
        self.losses = {name: value.detach() for name, value in losses.items()}
        parts = [value for name, value in losses.items() if 'loss' in name]
        return sum(parts[1:], parts[0])

    def report(self) -> str:
        """Tell what the first call found: levels, shapes, losses, gradients.

        Returns:
            str: A table, and what is to be said. :attr:`first_step` has the numbers.

        Raises:
            RuntimeError: If there was no such call.
        """
        if self.first_step is None:
            raise RuntimeError(
                'Distillation.report: the first call of loss makes the report, unless '
                'mmfakd.distill got report=False.'
            )
        return self.first_step.text()

    def _refuse_idle(self, student: WatchedModel) -> None:
        """Raise where there is nothing to compare with."""
        recorder = student.recorder
        if any(recorder.records.values()) and torch.is_grad_enabled():
            return
        if not self.training:
            why = 'it is in evaluation mode, in which nothing is recorded: call train()'
        elif not torch.is_grad_enabled():
            why = 'it is called under torch.no_grad, and could teach nothing'
        elif recorder.without_graph:
            why = f"the student's layers ran {WITHOUT_GRAPH}"
        else:
            why = (
                'the student has not run since the last call, or since this object was '
                'made. Call the student once before each call of loss'
                + student.compiled_advice
            )
        raise RuntimeError(f'Distillation.loss: {why}.')

    def _inputs_of(self, student: WatchedModel) -> Arguments:
        recorder = student.recorder
        if recorder.inputs is None:
            raise RuntimeError(
                'Distillation.loss: the student was not called as a whole, so its '
                'inputs are not known. Give them: loss(images).'
            )
        if recorder.inputs_changed:
            raise RuntimeError(
                'Distillation.loss: what the student was called with was changed in '
                'place since, by the student or after it, so that the teacher would '
                'see something else. Give the teacher a copy: loss(images).'
            )
        return recorder.inputs

    def _autocast(self, student: WatchedModel, maps: list[Tensor]) -> Any:
        """The student's autocast, if that is over."""
        dtype = student.recorder.autocast
        kind = maps[0].device.type if maps else student.output().device.type
        half = [x.dtype for x in maps if x.dtype in (torch.float16, torch.bfloat16)]
        dtype = dtype or (half[0] if half else None)
        if dtype is None or autocast_dtype(kind) is not None:
            return nullcontext()
        return torch.autocast(kind, dtype=dtype)

    def _run_teacher(self, teacher: WatchedModel, arguments: Arguments) -> None:
        # Where each teaches the other, it goes on to train.
        mode: Any = nullcontext()
        if teacher.is_taught:
            mode = evaluation(teacher.core)
        elif any(module.training for module in teacher.core.modules()):
            teacher.core.eval()
        teacher.recorder.recording = True
        recorder = self._both()[0].recorder
        before = recorder.inputs_changed
        try:
            with torch.no_grad(), mode:
                teacher.run(arguments)
        finally:
            teacher.recorder.recording = False
        if recorder.inputs_changed and not before:
            raise RuntimeError(
                'Distillation.loss: the teacher changes its inputs in place, which the '
                "student's backward pass still needs. Give it a copy, "
                'loss(images.clone()), or mend the teacher: inplace=False in its '
                'transforms and first layers.'
            )

    def _fill(
        self, student: WatchedModel, teacher: WatchedModel, maps: list[Tensor]
    ) -> None:
        """Hand what was recorded to the distiller."""
        ours, theirs = maps, teacher.read()
        weight = next(self.distiller.parameters(), None)
        if weight is not None and weight.device != maps[0].device:
            raise RuntimeError(
                f'The student is on {maps[0].device}, the distillation on '
                f"{weight.device}. Move it, too: distillation.to('{maps[0].device}')."
            )
        self._check_sizes(student, teacher, ours, theirs)
        if student.with_output:
            predictions = [student.output(), teacher.output()]
            check_logits(*predictions)
            if student.classes_last or teacher.classes_last:
                predictions = [by_position(logits) for logits in predictions]
            ours, theirs = [*ours, predictions[0]], [*theirs, predictions[1]]
        theirs = [_as_precise(target, own) for target, own in zip(theirs, ours)]
        for role, features in (('student', ours), ('teacher', theirs)):
            recorders = getattr(self.distiller, f'{role}_recorders').recorders
            for recorder, feature in zip(recorders.values(), features):
                recorder.data_buffer.append(feature)

    def _check_sizes(
        self,
        student: WatchedModel,
        teacher: WatchedModel,
        maps: list[Tensor],
        targets: list[Tensor],
    ) -> None:
        """Compare with the example; with any size, predictions get the target's."""
        connectors = getattr(self.distiller, 'connectors', nn.ModuleDict())
        levels = [m for m in connectors.modules() if isinstance(m, ReviewLevel)]
        for i, (ours, theirs) in enumerate(zip(maps, targets)):
            size = tuple(as_map(theirs).shape[2:])
            names = (student.maps[i].layer.title, teacher.maps[i].layer.title)
            if len(ours) != len(theirs):
                raise ValueError(
                    f'{names[0]!r} of the student has {len(ours)} images, {names[1]!r} '
                    f'of the teacher {len(theirs)}: call loss with the batch that the '
                    'student had.'
                )
            if self.any_size:
                levels[i].size = size  # type: ignore[assignment]
            elif size != teacher.maps[i].size:
                was = 'x'.join(map(str, teacher.maps[i].size))
                raise ValueError(
                    f'{names[1]!r} of the teacher has {"x".join(map(str, size))} '
                    f'pixels; {was} on the example input, for which the filters were '
                    'made. Give mmfakd.distill an example of the size that is trained '
                    'with, or any_size=True.'
                )

    def _warn_if_apart(self) -> None:
        """Warn where each process would train connectors of its own."""
        parallel = dist.is_available() and dist.is_initialized()
        wrapped = getattr(DistributedDataParallel, '_active_ddp_module', None)
        learns = any(p.requires_grad for p in self.parameters())
        if parallel and dist.get_world_size() > 1 and wrapped is None and learns:
            print_log(
                f'{dist.get_world_size()} processes train, but the distillation is not '
                'wrapped: its connectors would differ from process to process, unless '
                'you average their gradients yourself. Wrap and call it: distillation '
                '= DistributedDataParallel(distillation); loss = distillation().',
                logger='current',
                level=logging.WARNING,
            )

    def _warn_if_frozen(self, student: WatchedModel, maps: list[Tensor]) -> None:
        """Warn once of features without a graph, where the first look does not."""
        if self._frozen_told or (self._looks and not self._started):
            return
        features = maps or [student.output()]
        if not any(feature.requires_grad for feature in features):
            self._frozen_told = True
            print_log(
                'NOTHING IS TAUGHT: no parameter of the student that its layers depend '
                'on requires a gradient (requires_grad=False), so that connectors '
                'learn at most. If that is not meant, let it learn: '
                'student.requires_grad_().',
                logger='current',
                level=logging.WARNING,
            )

    def _warn_if_left_out(self, student: WatchedModel) -> None:
        """Warn if the optimizer moves the student, and no connector."""
        warmup = getattr(self.distiller, 'warmup', None)
        if isinstance(warmup, CallWarmup) and not warmup.factor():
            # Connectors get no gradient yet.
            return
        if self._moves.left_out(student.core, self):
            print_log(
                'The student has learned in the last calls, the connectors of the '
                'distillation have not: they are at random, and so is what it '
                'imitates. Give the optimizer both: '
                '[*student.parameters(), *distillation.parameters()].',
                logger='current',
                level=logging.WARNING,
            )

    def __setattr__(self, name: str, value: Any) -> None:
        """Record while in training mode, whoever sets it: Lightning assigns it."""
        super().__setattr__(name, value)
        sides = self.__dict__.get('_sides')
        if name == 'training' and sides is not None:
            recorder = sides[0].recorder
            recorder.recording = value
            if not value:
                recorder.clear()

    def to(self, *args: Any, **kwargs: Any) -> Distillation:
        """Move or cast the connectors and the teacher, as ``nn.Module.to`` does.

        Args:
            *args (Any): Device, dtype or tensor.
            **kwargs (Any): The same by name; ``memory_format`` is for convolutions, as
                filters have more dimensions.

        Returns:
            Distillation: Itself.
        """
        memory_format = kwargs.pop('memory_format', None)
        if args or kwargs:
            super().to(*args, **kwargs)
        if memory_format is not None:
            models = [self, *([self._both()[1].core] if self._sides else [])]
            for model in models:
                convert_conv2d_weight_memory_format(model, memory_format)
        return self

    def _apply(self, fn: Callable, recurse: bool = True) -> Distillation:
        super()._apply(fn, recurse)
        if self._sides is not None:
            self._sides[1].core._apply(fn)
        return self

    def close(self) -> None:
        """Take all hooks off student and teacher; the loss is of no use afterwards."""
        if self._sides is not None:
            for side in self._sides:
                side.recorder.close()
        self._sides = None

    def __enter__(self) -> Distillation:
        """Begin a context at whose end :meth:`close` is called."""
        return self

    def __exit__(self, *error: object) -> None:
        """End it."""
        self.close()

    def __getstate__(self) -> dict[str, Any]:
        """State of a copy or pickle, which is attached to no models."""
        return {**self.__dict__, '_sides': None, 'losses': {}}

    def _both(self) -> tuple[WatchedModel, WatchedModel]:
        if self._sides is None:
            raise RuntimeError(
                'This distillation is closed, or a copy, and records no models: make '
                'one by mmfakd.distill, and load its state dict there.'
            )
        return self._sides

    def __repr__(self) -> str:
        """Describe the pairs of layers, rather than all modules."""
        weights = sum(p.numel() for p in self.parameters())
        if self._sides is None:
            return f'Distillation(closed, {weights:,} weights)'
        ours, theirs = (side.maps for side in self._sides)
        rows = [[*_row(s), *_row(t)] for s, t in zip(ours, theirs)]
        table = aligned([['student', 'shape', 'teacher', 'shape'], *rows])
        levels = f'\n{indent(table, "  ")}\n  ' if rows else 'predictions; '
        return f'Distillation({levels}{weights:,} weights)'


def _row(info: MapInfo) -> list[str]:
    return [info.layer.title, ' x '.join(map(str, (info.channels, *info.size)))]


def _as_precise(target: Tensor, feature: Tensor) -> Tensor:
    """A teacher's feature where the student's is, and not coarser than that."""
    wide = torch.promote_types(target.dtype, feature.dtype)
    target = moved(target, feature.device, wide)
    # Under `torch.inference_mode` it could not be kept for the backward pass.
    return target if is_compiling() or not target.is_inference() else target.clone()
