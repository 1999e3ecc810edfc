# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""Teacher and student as one trainable model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from mmengine.model import BaseModel
from mmrazor.models.algorithms import BaseAlgorithm, SingleTeacherDistill
from mmrazor.models.utils import add_prefix
from torch import Tensor, nn
from torch.nn.utils import convert_conv2d_weight_memory_format

from mmfakd.checkpoints.inherit import check_inherited, inherit_weights
from mmfakd.checkpoints.load import load_weights
from mmfakd.models.distillers.any_distiller import clear_records, hook_of
from mmfakd.models.distillers.check_layer_names import check_layer_names
from mmfakd.registry import MODELS

from .built_models import build_model, check_ckpt, drop_pretrained
from .check_batches import check_batches, refuse_channels
from .check_class_counts import check_class_counts
from .check_distiller import build_distiller
from .teacher import Teacher
from .teacher_input import TeacherInput


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
    - Weights are loaded in :meth:`init_weights`, strictly; a trained student is
      evaluated without the teacher's file.
    - The student's own data preprocessor makes the batch, its batch augments
      included; the teacher sees that same batch, re-normalised where its mean and
      std differ (:class:`TeacherInput`).
    - ``cfg_path`` models take overrides.

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
            dict: the teacher gets the student's batch unchanged.
        data_preprocessor (dict, optional): The one at the top level of the student's
            config, which the runner hands in; it moves into the student.
        calculate_student_loss (bool): Whether the student's own loss counts.
        student_trainable (bool): Whether the student learns, which pre-training of
            connectors switches off.
        channels_last (bool): Whether the convolutions of student, teacher and
            distiller have weights, and so features, with the channels of a pixel
            side by side, as tensor cores of GPUs read them. Defaults to False.
        compile_networks (bool | dict): Whether to compile backbone and neck of student
            and teacher, or with which arguments of ``torch.compile``. MMEngine's own
            ``compile`` takes the whole training step, the distiller included, whose
            layers are then not the hand-written ones. Defaults to False.
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
            listed), a loss that compares predictions of student and teacher although
            their classes differ, or a module to ``inherit`` that one of them lacks or
            that differs.
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
        teacher_trainable: bool = False,
        teacher_norm_eval: bool = True,
        init_cfg: dict | None = None,
    ) -> None:
        if teacher_trainable or not teacher_norm_eval:
            raise ValueError(
                f'teacher_trainable={teacher_trainable}, teacher_norm_eval='
                f'{teacher_norm_eval}: FeatureDistill keeps its teacher frozen and in '
                'evaluation mode; use mmrazor.SingleTeacherDistill to train it.'
            )
        student, zoo_student_ckpt = build_model(
            architecture, 'architecture', data_preprocessor
        )
        # BaseAlgorithm, not SingleTeacherDistill, whose __init__ loads weights, puts
        # the teacher into the module tree and misses most in-place activations.
        BaseAlgorithm.__init__(
            self, architecture=student, init_cfg=init_cfg, module_inplace=True
        )
        check_batches(student, 'student')
        self._teacher = Teacher(
            teacher, student, teacher_ckpt, teacher_mode, teacher_preprocessor
        )
        self._started = False
        check_ckpt(student_ckpt, 'student_ckpt')
        self.student_ckpt = student_ckpt or zoo_student_ckpt
        self.teacher_ckpt = self._teacher.ckpt
        self.teacher_mode = teacher_mode
        self.inherit = check_inherited(inherit, student, self.teacher)
        self.teacher_trainable, self.teacher_norm_eval = False, True
        self.calculate_student_loss = calculate_student_loss
        self.student_trainable = student_trainable
        # Set by mmrazor's StopDistillHook.
        self.distillation_stopped = False

        self.distiller = build_distiller(distiller)
        self._prepare_recorders()
        check_class_counts(self.distiller, student, self.teacher, recorded=False)
        if channels_last:
            # Their outputs, and with them all features, have the weights' format.
            for model in (self, self.teacher):
                convert_conv2d_weight_memory_format(model, torch.channels_last)
        if compile_networks is not False:
            self._compile_networks({} if compile_networks is True else compile_networks)
        self.train()

    def _prepare_recorders(self) -> None:
        models = dict(student=self.architecture, teacher=self.teacher)
        for role, model in models.items():
            manager = getattr(self.distiller, f'{role}_recorders')
            check_layer_names(manager.recorders, model, role)
            getattr(self.distiller, f'prepare_from_{role}')(model)

    def _compile_networks(self, options: dict) -> None:
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

    def __getattr__(self, name: str) -> Any:
        """Fall back to the student, as stock hooks reach into ``runner.model``."""
        try:
            return super().__getattr__(name)
        except AttributeError:
            student = self.__dict__.get('_modules', {}).get('architecture')
            if student is None or not hasattr(student, name):
                raise
            return getattr(student, name)

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
        super().init_weights()
        if self.student_ckpt is not None:
            loaded = load_weights(self.architecture, self.student_ckpt, 'student', None)
            starts = {name: f'{name}.' for name in self.inherit}
            twice = [n for n in starts if any(k.startswith(starts[n]) for k in loaded)]
            if twice:
                raise ValueError(
                    f'student_ckpt={self.student_ckpt!r} holds weights of {twice}, '
                    'which `inherit` takes from the teacher. Leave out one of the two, '
                    'or give a checkpoint without these modules.'
                )
        inherit_weights(self.inherit, self.architecture, self.teacher)

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
            ValueError: If a loss compares predictions of different classes, or
                student or teacher take images of other channels.
        """
        try:
            return self._losses(batch_inputs, data_samples)
        except RuntimeError as error:
            refuse_channels(error, 'student', batch_inputs)
            raise
        finally:
            clear_records(self.distiller)

    def _losses(self, inputs: Tensor, data_samples: list | None) -> dict[str, Tensor]:
        losses: dict[str, Tensor] = {}
        if self.distillation_stopped:
            student_losses = self.architecture(inputs, data_samples, mode='loss')
            losses.update(add_prefix(student_losses, 'student'))
            # DDP waits for a gradient of every parameter.
            parameters = [p for p in self.distiller.parameters() if p.requires_grad]
            if parameters:
                losses['distill.loss_stopped'] = 0 * sum(p.sum() for p in parameters)
            return losses

        distiller = self.distiller
        first, self._started = not self._started, True
        if first:
            self._teacher.refuse_resume_without_weights()
            # mmrazor's OFD takes its margins from the teacher's weights.
            loaded = hook_of(distiller, 'teacher_loaded', 'init_ofd_connectors')
            loaded(self.teacher)
        hook_of(distiller, 'begin_step')(inputs, data_samples)
        distiller.set_deliveries_override(False)
        self._teacher.record(distiller, inputs, data_samples)
        distiller.set_deliveries_override(True)
        learn = self.student_trainable and torch.is_grad_enabled()
        gradients = torch.enable_grad() if learn else torch.no_grad()
        with distiller.student_recorders, distiller.deliveries, gradients:
            student_losses = self.architecture(inputs, data_samples, mode='loss')
        if self.calculate_student_loss:
            losses.update(add_prefix(student_losses, 'student'))
        if first:
            check_class_counts(distiller, self.architecture, self.teacher, True)
        losses.update(add_prefix(distiller.compute_distill_losses(), 'distill'))
        return losses
