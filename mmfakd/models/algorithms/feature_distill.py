# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""Teacher and student as one trainable model."""

from __future__ import annotations

import logging
import math
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import Any

import torch
from mmengine.logging import print_log
from mmengine.model import BaseModel
from mmrazor.models.algorithms import BaseAlgorithm, SingleTeacherDistill
from mmrazor.models.utils import add_prefix
from torch import Tensor, nn
from torch.nn.utils import convert_conv2d_weight_memory_format

from mmfakd.checkpoints.inherit import check_inherited, inherit_weights
from mmfakd.checkpoints.load import load_weights
from mmfakd.checkpoints.student import take_student
from mmfakd.compat.running_loop import (
    distillation_stop,
    iterations_done,
    message_hub,
    running_loop,
)
from mmfakd.models.distillers.any_distiller import clear_records, hook_of
from mmfakd.models.distillers.attach_recorders import (
    attach_recorders,
    refuse_missing_records,
)
from mmfakd.models.distillers.changed_records import tell_changed_records
from mmfakd.models.distillers.check_layer_names import check_layer_names
from mmfakd.models.distillers.valid_area import note_stale
from mmfakd.ops.compiling import is_compiling
from mmfakd.ops.determinism import prepare_cublas
from mmfakd.registry import MODELS

from .built_models import build_model, check_ckpt, drop_pretrained
from .check_batches import check_batches, refuse_channels
from .check_class_counts import check_class_counts, warn_of_softmax
from .check_correspondence import check_correspondence
from .check_counters import check_counters
from .check_distiller import build_distiller, check_balance, freeze_student
from .check_mean_teacher import check_mean_teacher
from .check_one_class import check_later_mixing, check_one_class
from .check_stop import STOPPED_AT_ONCE, check_stop, refuse_stopped
from .first_look import FirstLook
from .first_step import FirstStep
from .idle_parameters import keep_idle, name_whole
from .loaded_weights import keep_loaded
from .margin_head import warn_of_margin
from .plain_order import plain_order
from .teacher import Teacher
from .teacher_input import TeacherInput
from .tell_choices import tell_choices
from .unlabelled_run import UnlabelledRun, mark_unlabelled, refuse_unlabelled


@MODELS.register_module()
class FeatureDistill(SingleTeacherDistill):
    r"""A frozen teacher, a student and a distiller.

    The loss is the student's own plus the distiller's,

    .. math::
        \mathcal{L} = \mathcal{L}_{task}(S(x), y) + \mathcal{L}_{distill}(S(x), T(x)).

    It differs from mmrazor's ``SingleTeacherDistill`` in these points:

    - The teacher is wholly in evaluation mode (dropout and drop path too), runs no
      deeper than the recorded layers, and stands outside the module tree: it is not
      in checkpoints, optimizers, averaged models or DDP buckets, yet follows
      ``.to()`` and the like.
    - Weights are loaded in :meth:`init_weights`. A teacher whose checkpoint lacks
      what is recorded, or is of a deeper network, is refused; a trained student is
      evaluated without the teacher's file.
    - The student's own data preprocessor makes the batch, its batch augments
      included; the teacher sees that same batch, re-normalised where its mean and
      std differ (:class:`TeacherInput`).
    - ``cfg_path`` models take overrides.
    - The first training step is looked at: levels that teach nothing, a teacher that
      has nothing to say and losses out of proportion are told (:class:`FirstStep`).

    Source: *Frequency Attention for Knowledge Distillation* (arXiv 2403.05894) for
    the loss; mmrazor 1.0.0 for the interface; the implementation of *Focal and Global
    Knowledge Distillation for Detectors* (arXiv 2111.11837), whose students can start
    with all of the teacher but its backbone, for ``inherit``.

    Args:
        architecture (dict | BaseModel): The student: a config, or
            ``dict(cfg_path='mmpretrain::...', **overrides)``, or a built model.
        teacher (dict | BaseModel): The teacher, likewise. With ``cfg_path``,
            ``pretrained=True`` takes the weights of its metafile. A built model is
            taken to hold its weights.
        distiller (dict): Config of the distiller, for example
            ``mmfakd.ReviewDistiller`` or ``mmrazor.ConfigurableDistiller``.
        teacher_ckpt (str, optional): The teacher's weights: a path, URL or model-zoo
            name. Defaults to None.
        student_ckpt (str, optional): Weights that the student starts from, likewise.
            They make the download of pretrained backbones unnecessary.
        inherit (str | Sequence[str], optional): Names of the student's modules that
            start as copies of the teacher's modules of the same names, for example
            ``['neck', 'bbox_head']`` or ``'roi_head.bbox_head'``: the "inheriting
            strategy" of detectors' distillation. Defaults to None.
        teacher_mode (str): How deep the teacher runs: ``'backbone'``, ``'neck'``
            (``extract_feat``), ``'tensor'`` or ``'loss'``. ``'auto'`` takes the
            shallowest that feeds every recorder and delivery.
        teacher_preprocessor (dict, optional): ``mean``, ``std`` and ``to_rgb`` that
            the teacher was trained with, where its config does not say so. An empty
            dict: the teacher gets the student's batch unchanged. ``channels``: which
            channels of the batch it gets, as indices in its order: ``[0, 1, 2]`` of a
            four-channel student's, ``[0, 0, 0]`` of grey images.
        data_preprocessor (dict, optional): The one at the top level of the student's
            config, which the runner hands in; it moves into the student.
        calculate_student_loss (bool): Whether the student's own loss counts. False
            is distillation alone: images need no labels, and what no distillation
            loss reaches, the head in general, stays as it is; a warning names it.
        student_trainable (bool): Whether the student learns, which pre-training of
            connectors switches off: then all its parameters are frozen.
        channels_last (bool): Whether the convolutions of student, teacher and
            distiller have weights, and so features, with the channels of a pixel
            side by side, as tensor cores of GPUs read them. Defaults to False.
        compile_networks (bool | dict): Whether to compile backbone and neck of student
            and teacher, or with which arguments of ``torch.compile``. MMEngine's own
            ``compile`` takes the whole training step, the distiller included, whose
            layers are then not the hand-written ones. Defaults to False.
        report (bool): Whether the first training step is looked at. Its report is
            ``first_step``, in the log and, by ``FirstStepHook``, in the work dir. It
            costs a backward pass for each loss, once. Defaults to True.
        teacher_trainable (bool): Only False, kept for mmrazor's configs.
        teacher_norm_eval (bool): Only True, kept for mmrazor's configs.
        init_cfg (dict, optional): MMEngine's initialisation config.

    Shapes:
        Inputs are batches (N, C, H, W) as the student's preprocessor makes them.

    Raises:
        TypeError: If a model is neither a config nor a ``BaseModel``, or the distiller
            no config of one.
        ValueError: For a config without a type, a loss weight below zero or a
            temperature that is not above it, an unknown ``teacher_mode``, a
            trainable teacher, a recorded layer that does not exist (near names are
            listed), a student that is not to learn under a distiller without
            parameters, a loss that compares predictions of student and teacher although
            their classes differ, a loss of one class an image beside batch augments
            that mix classes, or a module to ``inherit`` that one of them lacks or that
            differs.
    """

    def __init__(
        self,
        architecture: dict | BaseModel,
        teacher: dict | BaseModel,
        distiller: dict,
        teacher_ckpt: str | None = None,
        student_ckpt: str | None = None,
        inherit: str | Sequence[str] | None = None,
        teacher_mode: str = 'auto',
        teacher_preprocessor: dict | None = None,
        data_preprocessor: dict | None = None,
        calculate_student_loss: bool = True,
        student_trainable: bool = True,
        channels_last: bool = False,
        compile_networks: bool | dict = False,
        report: bool = True,
        teacher_trainable: bool = False,
        teacher_norm_eval: bool = True,
        init_cfg: dict | None = None,
    ) -> None:
        _check_frozen(teacher_trainable, teacher_norm_eval)
        prepare_cublas()
        student, zoo_ckpt = build_model(architecture, 'architecture', data_preprocessor)
        # BaseAlgorithm, not SingleTeacherDistill, whose __init__ loads weights, puts
        # the teacher into the module tree and misses most in-place activations.
        BaseAlgorithm.__init__(
            self, architecture=student, init_cfg=init_cfg, module_inplace=True
        )
        check_batches(student, 'student')
        self._teacher = Teacher(
            teacher, student, teacher_ckpt, teacher_mode, teacher_preprocessor
        )
        self._started = self._stop_told = False
        self._prepare_looks(report)
        check_ckpt(student_ckpt, 'student_ckpt')
        self.student_ckpt = student_ckpt or zoo_ckpt
        self.teacher_ckpt = self._teacher.ckpt
        self.teacher_mode = teacher_mode
        self.inherit = check_inherited(inherit, student, self.teacher)
        self.teacher_trainable, self.teacher_norm_eval = False, True
        self.calculate_student_loss = calculate_student_loss
        self.student_trainable = student_trainable
        self._unlabelled = UnlabelledRun()
        if not calculate_student_loss:
            mark_unlabelled(student.data_preprocessor)
        # Set by mmrazor's StopDistillHook.
        self.distillation_stopped = False

        self.distiller = build_distiller(distiller)
        if getattr(self.distiller, 'ignore_padding', False):
            note_stale(student.data_preprocessor)
        check_one_class(self.distiller, student)
        check_balance(self.distiller, calculate_student_loss, student_trainable)
        if not student_trainable:
            freeze_student(student, self.distiller)
        self._prepare_recorders()
        self._prepare_networks(channels_last, compile_networks)
        self.train()

    @property
    def distillation_stopped(self) -> bool:
        """bool: whether distillation has ended; mmrazor's StopDistillHook sets it."""
        return self._stopped

    @distillation_stopped.setter
    def distillation_stopped(self, stopped: bool) -> None:
        """Stop it, or let it go on."""
        self._stopped = stopped
        # What looks at batches there asks for it.
        self.data_preprocessor.distillation_stopped = stopped

    def _prepare_looks(self, report: bool) -> None:
        self.report = report
        self.first_step: FirstStep | None = None
        self._looked = False
        # What `measure_next_step` asked for, once that step is done.
        self.measured: FirstStep | None = None
        self._measures_next = False
        # Identities of the parameters that the optimizer moves, where it is known.
        self._optimized: set[int] | None = None

    def _prepare_recorders(self) -> None:
        models = dict(student=self.architecture, teacher=self.teacher)
        for role, model in models.items():
            manager = getattr(self.distiller, f'{role}_recorders')
            check_layer_names(manager.recorders, model, role)
            getattr(self.distiller, f'prepare_from_{role}')(model)
        pair = self.architecture, self.teacher
        check_class_counts(self.distiller, *pair, recorded=False)
        warn_of_softmax(self.distiller, *pair)
        if self.calculate_student_loss:
            warn_of_margin(self.distiller, self.architecture)
        check_correspondence(self.distiller, *pair)

    def _prepare_networks(
        self, channels_last: bool, compile_networks: bool | dict
    ) -> None:
        if channels_last:
            # Their outputs, and with them all features, have the weights' format.
            for model in (self, self.teacher):
                convert_conv2d_weight_memory_format(model, torch.channels_last)
        if compile_networks is False:
            return
        options = {} if compile_networks is True else compile_networks
        for model in (self.architecture, self.teacher):
            for name, part in model.named_children():
                if name in ('backbone', 'neck'):
                    part.compile(**options)

    @property
    def teacher(self) -> BaseModel:
        """BaseModel: the teacher, which is no submodule."""
        return self._teacher.model

    @property
    def teacher_input(self) -> TeacherInput:
        """TeacherInput: what makes the teacher's batch of the student's."""
        return self._teacher.input

    @property
    def detector(self) -> BaseModel:
        """BaseModel: the student, under the name that mmdet's hooks look for."""
        return self.architecture

    def teacher_val_step(self, data: dict) -> Any:
        """Let the teacher predict, as ``val_step`` lets the student.

        mmrazor's ``SingleTeacherDistillValLoop`` scores the teacher by it.

        Args:
            data (dict): A batch of a data loader.

        Returns:
            Any: The teacher's predictions on what it sees in the distillation.
        """
        return self._teacher.predict(**self.data_preprocessor(data, False))

    def __getattr__(self, name: str) -> Any:
        """Fall back to the student, as stock hooks reach into ``runner.model``."""
        try:
            return super().__getattr__(name)
        except AttributeError:
            student = self.__dict__.get('_modules', {}).get('architecture')
            if student is None or not hasattr(student, name):
                raise
            return getattr(student, name)

    def __setattr__(self, name: str, value: Any) -> None:
        """Hand on to the student what stock hooks set and only the student has.

        As mmpretrain's ``SwitchRecipeHook`` sets ``runner.model.loss_module``, and its
        ``DenseCLHook`` a number in every iteration.
        """
        # What a subclass sets while it is built is its own.
        student = self.architecture if self.__dict__.get('_is_init') else None
        if student is not None and not self._has(name) and hasattr(student, name):
            setattr(student, name, value)
            if isinstance(value, nn.Module):
                print_log(
                    f'{name!r} of the student is replaced, by way of the distillation.',
                    logger='current',
                )
            return
        super().__setattr__(name, value)

    def _has(self, name: str) -> bool:
        """Whether an attribute is the distillation's own, or nobody else's business."""
        places = (self.__dict__, self._modules, self._parameters, self._buffers)
        own = any(name in place for place in places)
        return own or name.startswith('_') or hasattr(type(self), name)

    def train(self, mode: bool = True) -> FeatureDistill:
        """Set the mode of student and distiller; the teacher stays in evaluation.

        Args:
            mode (bool): Training mode or not.

        Returns:
            FeatureDistill: The model itself.
        """
        # mmrazor's returns nothing.
        return nn.Module.train(self, mode)

    def init_weights(self) -> None:
        """Initialise the student and load all given weights.

        The student's own initialisation comes first, then ``student_ckpt``, then what
        is inherited. A checkpoint that training is resumed from goes over all.

        Raises:
            FileNotFoundError: If a checkpoint is neither a file nor a known name.
            ValueError: If a checkpoint does not fit its model, ``inherit`` names
                modules that the teacher has no weights for, or ``student_ckpt`` holds
                weights of a module to inherit.
        """
        with plain_order(self, self.teacher):
            self._draw_weights()
        if self.student_ckpt is not None:
            loaded = load_weights(
                self.architecture,
                self.student_ckpt,
                'student',
                required=None,
                option='--student-ckpt',
            )
            starts = {name: f'{name}.' for name in self.inherit}
            twice = [n for n in starts if any(k.startswith(starts[n]) for k in loaded)]
            if twice:
                raise ValueError(
                    f'student_ckpt={self.student_ckpt!r} holds weights of {twice}, '
                    'which `inherit` takes from the teacher. Leave out one of the two, '
                    'or give a checkpoint without these modules.'
                )
        inherit_weights(self.inherit, self.architecture, self.teacher)

    def _draw_weights(self) -> None:
        """Fill the teacher, and the student with what it has before a checkpoint."""
        needed = self._teacher.needed_weights(self.distiller)
        self._teacher.fill([*needed, *(f'{name}.' for name in self.inherit)])
        if self.inherit and not self._teacher.has_weights:
            raise ValueError(
                f'inherit={self.inherit}: the teacher has no weights to inherit. Give '
                '`teacher_ckpt` (`mmfakd train --teacher-ckpt`), or leave out '
                '`inherit`.'
            )
        if self.student_ckpt is not None:
            drop_pretrained(self.architecture)
        with keep_loaded(self.architecture):
            super().init_weights()

    def _load_from_state_dict(
        self, state_dict: dict[str, Any], prefix: str, *args: Any
    ) -> None:
        """Load weights of a distillation, or of a plain student (``load_from``)."""
        take_student(state_dict, prefix, self)
        super()._load_from_state_dict(state_dict, prefix, *args)

    def parse_losses(self, losses: dict[str, Any]) -> tuple[Tensor, dict[str, Tensor]]:
        """Add up the losses; MMEngine's takes two operations for each of them.

        Args:
            losses (dict): Losses and other values for the log, tensors or lists of
                them.

        Returns:
            tuple[Tensor, dict[str, Tensor]]: The sum of all whose name says that they
            are losses, and what is logged: this sum as ``loss``, and all values.
        """
        summands = [value for name, value in losses.items() if 'loss' in name]
        scalars = all(isinstance(v, Tensor) and v.dim() == 0 for v in losses.values())
        if len(summands) < 2 or not scalars:
            return super().parse_losses(losses)
        total = torch.stack(summands).sum()
        return total, OrderedDict([('loss', total), *losses.items()])

    def loss(
        self, batch_inputs: Tensor, data_samples: list | None = None
    ) -> dict[str, Tensor]:
        """Compute the student's and the distillation losses.

        Args:
            batch_inputs (Tensor): The student's batch, (N, C, H, W).
            data_samples (list, optional): Its N data samples.

        Returns:
            dict[str, Tensor]: ``student.*`` and ``distill.*`` losses.

        Raises:
            RuntimeError: If no mode of the teacher feeds all recorders, training is
                resumed with a teacher that has no weights, or the teacher cannot take
                a batch of the student's size.
            ValueError: If a loss compares predictions of different classes,
                student or teacher take images of other channels, or the teacher's
                checkpoint lacks weights of a function that is recorded; in the first
                step of training if a level reaches no weight of the student, or the
                teacher's feature is not finite, constant or zero.
        """
        try:
            losses = self._losses(batch_inputs, data_samples)
        except RuntimeError as error:
            refuse_channels(error, 'student', batch_inputs)
            raise
        finally:
            clear_records(self.distiller)
        tell_choices()
        return losses

    def _losses(self, inputs: Tensor, data_samples: list | None) -> dict[str, Tensor]:
        losses: dict[str, Tensor] = {}
        if self.distillation_stopped:
            return self._stopped_losses(inputs, data_samples)

        distiller = self.distiller
        first = not self._started
        if first:
            self._begin()
        student_recorders = distiller.student_recorders.recorders
        attach_recorders(student_recorders, self.architecture, 'student')
        hook_of(distiller, 'begin_step')(inputs, data_samples)
        distiller.set_deliveries_override(False)
        with self._watch_records('teacher', first):
            self._teacher.record(distiller, inputs, data_samples)
        look = self._first_look()
        if look is not None:
            look.at_teacher(inputs, data_samples)
        distiller.set_deliveries_override(True)
        learn = self.student_trainable and torch.is_grad_enabled()
        gradients = torch.enable_grad() if learn else torch.no_grad()
        watch = self._watch_records('student', first)
        with distiller.student_recorders, distiller.deliveries, gradients, watch:
            losses.update(self._run_student(inputs, data_samples))
        if first:
            refuse_missing_records(distiller)
            check_class_counts(distiller, self.architecture, self.teacher, True)
        if look is not None:
            again = partial(self._run_student, inputs, data_samples)
            look.at_features(inputs, data_samples, again)
        losses.update(add_prefix(self._distil(losses, look), 'distill'))
        if not self.calculate_student_loss and learn:
            self._keep_idle(losses, tell=first)
        # What was refused is looked at again: a notebook's cell is run twice.
        self._started = True
        self._looked = self._looked or look is not None
        return losses

    def _stopped_losses(
        self, inputs: Tensor, data_samples: list | None
    ) -> dict[str, Tensor]:
        """Compute the student's own losses alone."""
        if setting := self._taught_by_nothing():
            refuse_stopped(setting)
        self._tell_stopped()
        losses = add_prefix(
            self.architecture(inputs, data_samples, mode='loss'), 'student'
        )
        # DDP waits for a gradient of every parameter.
        parameters = [p for p in self.distiller.parameters() if p.requires_grad]
        if parameters:
            losses['distill.loss_stopped'] = 0 * sum(p.sum() for p in parameters)
        # What was logged last would stay in the log, as if it went on.
        for tag in message_hub().log_scalars:
            name = tag.partition('train/')[2]
            shown = 'loss' in name or name == 'distill.warmup'
            if name.startswith('distill.') and shown and name not in losses:
                losses[name] = inputs.new_zeros((), dtype=torch.float)
        return losses

    def _taught_by_nothing(self) -> str:
        """Name the setting by which a student learns nothing without distillation."""
        settings = ('student_trainable', 'calculate_student_loss')
        return ', '.join(
            f'{name}=False' for name in settings if not getattr(self, name)
        )

    def _begin(self) -> None:
        """Check what only shows once a training runs."""
        loop = running_loop()
        hooks = getattr(getattr(loop, 'runner', None), 'hooks', ())
        check_mean_teacher(hooks)
        check_later_mixing(self.distiller, hooks, getattr(loop, 'max_epochs', None))
        check_counters(loop)
        if setting := self._taught_by_nothing():
            length = getattr(loop, 'max_epochs', math.inf)
            check_stop(distillation_stop(loop), length, setting)
        self._teacher.refuse_resume_without_weights()
        # mmrazor's OFD takes its margins from the teacher's weights.
        hook_of(self.distiller, 'teacher_loaded', 'init_ofd_connectors')(self.teacher)

    def _watch_records(self, role: str, first: bool) -> AbstractContextManager:
        """Let the first step tell of records that change after they were taken."""
        # What is compiled is not to be cut into more graphs.
        if not first or is_compiling():
            return nullcontext()
        recorders = getattr(self.distiller, f'{role}_recorders').recorders
        model = self.architecture if role == 'student' else self.teacher
        return tell_changed_records(recorders, model, role)

    def _distil(
        self, losses: dict[str, Tensor], look: FirstLook | None
    ) -> dict[str, Tensor]:
        """Compute the distillation losses, beside the student's own."""
        distiller = self.distiller
        if getattr(distiller, 'measures', False):
            own = self.parse_losses(losses)[0]
            models = (self.architecture, distiller)
            distiller.take_own_loss(own, self.architecture.parameters(), models)
        try:
            distilled = distiller.compute_distill_losses()
        except (AssertionError, IndexError):
            refuse_missing_records(distiller)
            raise
        measures = not is_compiling() and self._measures_next and self.training
        if look is None and not measures:
            return distilled
        full = getattr(distiller, 'full_losses', None) or distilled
        if look is not None:
            look.at_losses(losses, full, distilled.get('warmup')).log()
        if measures:
            self._measures_next = False
            known = None if look is None else look.step
            self.measured = known or self._new_look().measure(losses, full)
        return distilled

    def _first_look(self) -> FirstLook | None:
        """Prepare the look at the first step, if this is one."""
        looks = self.report and not self._looked and self.training
        # A compiled step is not to be cut into more graphs.
        if not looks or not torch.is_grad_enabled() or is_compiling():
            return None
        # A training that goes on has been looked at, but not one that distils late.
        if not self._stop_told and iterations_done() > 0:
            # Nor is the loop to be sought in every step.
            self._looked = True
            return None
        look = self._new_look()
        self.first_step = look.step
        return look

    def _new_look(self) -> FirstLook:
        learning = {id(p) for p in self.architecture.parameters() if p.requires_grad}
        still: dict[str, Tensor] = {}
        if self._optimized is not None:
            learning &= self._optimized
            still = {
                name: p
                for name, p in self.distiller.named_parameters()
                if p.requires_grad and id(p) not in self._optimized
            }
        models = (self.architecture, self._teacher, self.distiller)
        return FirstLook(*models, learning, self.student_trainable, still)

    def measure_next_step(self) -> None:
        """Let the next training step measure its losses and their gradients.

        The numbers are ``measured`` after it: those of the report of the first step, in
        any step. All processes ask for it together. It costs a backward pass for each
        loss; training goes on as without. A step within ``torch.compile`` measures
        nothing.
        """
        self.measured, self._measures_next = None, True

    def note_optimized(self, parameters: Iterable[nn.Parameter]) -> None:
        """Take which parameters the optimizer moves, for the look at the first step.

        Args:
            parameters (Iterable[nn.Parameter]): Those with a learning rate above 0.
        """
        self._optimized = {id(p) for p in parameters}

    def _tell_stopped(self) -> None:
        """Say once if distillation was stopped before it began."""
        if self._started or self._stop_told:
            return
        # A training may be resumed after its distillation has ended.
        if iterations_done() == 0:
            self._stop_told = True
            print_log(STOPPED_AT_ONCE, logger='current', level=logging.WARNING)

    def _run_student(
        self, inputs: Tensor, data_samples: list | None
    ) -> dict[str, Tensor]:
        """Record the student's features; its own losses, if they count."""
        if not self.calculate_student_loss:
            batch = inputs, data_samples
            self._unlabelled(self.architecture, self.distiller, *batch)
            return {}
        try:
            losses = self.architecture(inputs, data_samples, mode='loss')
        except (AttributeError, AssertionError, KeyError, TypeError) as error:
            refuse_unlabelled(error, data_samples)
            raise
        return add_prefix(losses, 'student')

    def _keep_idle(self, losses: dict[str, Tensor], tell: bool) -> None:
        """Leave alone what no loss reaches, and say so once."""
        idle = keep_idle(losses, self.architecture)
        if idle and tell:
            names = name_whole(self.architecture, idle)
            print_log(
                f'NEVER TRAINED: {", ".join(names)} of the student '
                f'({sum(p.numel() for p in idle):,} weights). With '
                'calculate_student_loss=False no loss reaches them, and they stay as '
                'they are. If they are not trained yet, give them by `student_ckpt` or '
                '`inherit`, add a loss on what they predict, or train the student on '
                'labelled images afterwards.',
                logger='current',
                level=logging.WARNING,
            )


def _check_frozen(teacher_trainable: bool, teacher_norm_eval: bool) -> None:
    if teacher_trainable or not teacher_norm_eval:
        raise ValueError(
            f'teacher_trainable={teacher_trainable}, teacher_norm_eval='
            f'{teacher_norm_eval}: FeatureDistill keeps its teacher frozen and in '
            'evaluation mode; use mmrazor.SingleTeacherDistill to train it.'
        )
