# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""Teacher and student as one trainable model."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

import torch
from mmengine.logging import MessageHub, print_log
from mmengine.model import BaseModel
from mmengine.registry import MODELS as ROOT_MODELS
from mmrazor.models.algorithms import BaseAlgorithm, SingleTeacherDistill
from mmrazor.models.distillers import OFDDistiller
from mmrazor.models.utils import add_prefix
from torch import Tensor, nn
from torch.nn.utils import convert_conv2d_weight_memory_format

from mmfakd.checkpoints.inherit import check_inherited, inherit_weights
from mmfakd.checkpoints.load import load_weights
from mmfakd.model_zoo.resolve import resolve_model_cfg
from mmfakd.models.distillers import ReviewDistiller
from mmfakd.models.distillers.check_layer_names import check_layer_names
from mmfakd.registry import MODELS

from .check_class_counts import check_class_counts
from .teacher_input import TeacherInput

_MODES = ('backbone', 'neck', 'tensor', 'loss')


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
        TypeError: If a model is neither a config nor a ``BaseModel``.
        ValueError: For an unknown ``teacher_mode``, a trainable teacher, a recorded
            layer that does not exist (near names are listed), a loss that compares
            predictions of student and teacher although their classes differ, or a
            module to ``inherit`` that one of them lacks or that differs.
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
        if teacher_mode not in ('auto', *_MODES):
            raise ValueError(
                f"teacher_mode={teacher_mode!r}; expected 'auto' or one of {_MODES}."
            )
        student, zoo_student_ckpt = _build_model(
            architecture, 'architecture', data_preprocessor
        )
        # BaseAlgorithm, not SingleTeacherDistill, whose __init__ loads weights, puts
        # the teacher into the module tree and misses most in-place activations.
        BaseAlgorithm.__init__(
            self, architecture=student, init_cfg=init_cfg, module_inplace=True
        )
        built_teacher, zoo_teacher_ckpt = _build_model(teacher, 'teacher')
        built_teacher.requires_grad_(False)
        for model in (student, built_teacher):
            _disable_inplace(model)
        # A plain attribute would be copied by every deepcopy (of EMA, for example).
        self._teacher_holder = _SharedModule(built_teacher)
        self._teacher_has_weights = isinstance(teacher, BaseModel)
        self._started = False

        self.student_ckpt = student_ckpt or zoo_student_ckpt
        self.teacher_ckpt = teacher_ckpt or zoo_teacher_ckpt
        self.inherit = check_inherited(inherit, student, built_teacher)
        self.teacher_trainable = False
        self.teacher_norm_eval = True
        self.calculate_student_loss = calculate_student_loss
        self.student_trainable = student_trainable
        # Set by mmrazor's StopDistillHook.
        self.distillation_stopped = False

        if teacher_preprocessor is None:
            teacher_preprocessor = built_teacher.data_preprocessor
        self.teacher_input = TeacherInput(self.data_preprocessor, teacher_preprocessor)
        if not self.teacher_input.is_identity:
            print_log(
                "The teacher gets the student's batch re-normalised: "
                f'{self.teacher_input}',
                logger='current',
            )

        self.distiller = ROOT_MODELS.build(distiller)
        for role, model in (('student', student), ('teacher', built_teacher)):
            manager = getattr(self.distiller, f'{role}_recorders')
            check_layer_names(manager.recorders, model, role)
        self.distiller.prepare_from_student(student)
        self.distiller.prepare_from_teacher(built_teacher)
        check_class_counts(self.distiller, student, built_teacher, recorded=False)
        self.teacher_mode = teacher_mode
        self._mode = None if teacher_mode == 'auto' else teacher_mode
        if channels_last:
            # Their outputs, and with them all features, have the weights' format.
            for model in (self, built_teacher):
                convert_conv2d_weight_memory_format(model, torch.channels_last)
        if compile_networks is not False:
            options = {} if compile_networks is True else compile_networks
            for model in (student, built_teacher):
                for name in ('backbone', 'neck'):
                    part = getattr(model, name, None)
                    if isinstance(part, nn.Module):
                        part.compile(**options)
        self.train()

    @property
    def teacher(self) -> BaseModel:
        """BaseModel: the teacher, which is no submodule."""
        return self._teacher_holder.module

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

    def _apply(self, *args: Any, **kwargs: Any) -> FeatureDistill:
        super()._apply(*args, **kwargs)
        self.teacher._apply(*args, **kwargs)
        return self

    def train(self, mode: bool = True) -> FeatureDistill:
        """Set the mode of student and distiller; the teacher stays in evaluation.

        Args:
            mode (bool): Training mode or not.

        Returns:
            FeatureDistill: The model itself.
        """
        nn.Module.train(self, mode)
        self.teacher.eval()
        return self

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
        self._init_teacher()
        if self.inherit and not self._teacher_has_weights:
            raise ValueError(
                f'inherit={self.inherit}: the teacher has no weights to inherit. Give '
                '`teacher_ckpt` (in tools/train.py `--teacher-ckpt`), or leave out '
                '`inherit`.'
            )
        if self.student_ckpt is not None:
            _drop_pretrained(self.architecture)
        super().init_weights()
        if self.student_ckpt is not None:
            loaded = load_weights(self.architecture, self.student_ckpt, 'student', None)
            twice = [
                name
                for name in self.inherit
                if any(key.startswith(f'{name}.') for key in loaded)
            ]
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
            ValueError: If a loss compares predictions of different classes.
        """
        try:
            return self._losses(batch_inputs, data_samples)
        finally:
            # Graph tensors left in a recorder cannot be deep-copied.
            self._clear_records()

    def _losses(
        self, batch_inputs: Tensor, data_samples: list | None
    ) -> dict[str, Tensor]:
        losses: dict[str, Tensor] = {}
        if self.distillation_stopped:
            student_losses = self.architecture(batch_inputs, data_samples, mode='loss')
            losses.update(add_prefix(student_losses, 'student'))
            # DDP waits for a gradient of every parameter.
            parameters = [p for p in self.distiller.parameters() if p.requires_grad]
            if parameters:
                losses['distill.loss_stopped'] = 0 * sum(p.sum() for p in parameters)
            return losses

        distiller = self.distiller
        first = not self._started
        distiller.set_deliveries_override(False)
        self._run_teacher(self.teacher_input(batch_inputs, data_samples), data_samples)
        distiller.set_deliveries_override(True)
        learn = self.student_trainable and torch.is_grad_enabled()
        with (
            distiller.student_recorders,
            distiller.deliveries,
            torch.set_grad_enabled(learn),
        ):
            student_losses = self.architecture(batch_inputs, data_samples, mode='loss')
        if self.calculate_student_loss:
            losses.update(add_prefix(student_losses, 'student'))
        if first:
            check_class_counts(
                distiller, self.architecture, self.teacher, recorded=True
            )
        if isinstance(distiller, ReviewDistiller):
            distiller.see_batch(batch_inputs, data_samples)
        losses.update(add_prefix(distiller.compute_distill_losses(), 'distill'))
        return losses

    def _run_teacher(self, inputs: Tensor, data_samples: list | None) -> None:
        """Run the teacher as deep as needed, recorders on."""
        if not self._started:
            self._refuse_resume_without_weights()
            if isinstance(self.distiller, OFDDistiller):
                # Its margins follow from the teacher's weights, loaded by now.
                self.distiller.init_ofd_connectors(self.teacher)
            self._started = True
        if self._mode is not None:
            self._forward_teacher(self._mode, inputs, data_samples)
            return
        tried: list[str] = []
        for mode in _MODES[_MODES.index(self._shallowest_mode()) :]:
            self._clear_records()
            try:
                self._forward_teacher(mode, inputs, data_samples)
            except (AttributeError, NotImplementedError, TypeError) as error:
                # A model without `backbone`, or without a 'tensor' mode.
                tried.append(f'{mode}: {type(error).__name__}: {error}')
                continue
            hungry = self._unfed()
            if not hungry:
                self._mode = mode
                print_log(f'The teacher runs in mode {mode!r}.', logger='current')
                return
            tried.append(f'{mode}: no record for {hungry}')
        raise RuntimeError(
            "teacher_mode='auto': no mode of the teacher feeds every recorder and "
            f'delivery ({"; ".join(tried)}). Record layers that its forward pass '
            'reaches, with a `record_idx` below the number of their calls.'
        )

    @torch.no_grad()
    def _forward_teacher(
        self, mode: str, inputs: Tensor, data_samples: list | None
    ) -> None:
        teacher = self.teacher
        with self.distiller.teacher_recorders, self.distiller.deliveries:
            try:
                if mode == 'backbone':
                    teacher.backbone(inputs)
                elif mode == 'neck':
                    teacher.extract_feat(inputs)
                else:
                    teacher(inputs, data_samples, mode=mode)
            except torch.cuda.OutOfMemoryError:
                raise
            except RuntimeError as error:
                self._explain_size(inputs, error)
                raise

    def _explain_size(self, inputs: Tensor, error: RuntimeError) -> None:
        """Say so if the teacher failed on a size that it never gets otherwise.

        Its own preprocessor may pad further than the student's. Then its features
        would not cover the student's, so it gets the batch as it is.
        """
        divisor = getattr(self.teacher.data_preprocessor, 'pad_size_divisor', 1)
        height, width = inputs.shape[-2:]
        if height % divisor == width % divisor == 0:
            return
        raise RuntimeError(
            f'The teacher failed on a batch of {height} x {width} pixels ({error}). It '
            f'is used to multiples of {divisor}: set `pad_size_divisor={divisor}` in '
            "the student's `data_preprocessor`."
        ) from error

    def _shallowest_mode(self) -> str:
        """The least mode that may do, by the names of the recorded layers."""
        depth = 0
        for recorder in self.distiller.teacher_recorders.recorders.values():
            part = recorder.source.partition('.')[0]
            if part != 'backbone' and part in dict(self.teacher.named_children()):
                depth = max(depth, 1 if part == 'neck' else 2)
        return _MODES[depth]

    def _unfed(self) -> list[str]:
        """Names of the teacher's recorders and deliveries without their data."""
        distiller = self.distiller
        records = [
            record
            for mapping in distiller.loss_forward_mappings.values()
            for record in mapping.values()
            if not record.get('from_student', True)
        ] + list(getattr(distiller, 'teacher_levels', []))
        recorders = distiller.teacher_recorders.recorders
        needed = dict.fromkeys(recorders, 1)
        for record in records:
            name = record['recorder']
            needed[name] = max(needed[name], record.get('record_idx', 0) + 1)
        hungry = [n for n, r in recorders.items() if len(r.data_buffer) < needed[n]]
        deliveries = distiller.deliveries.deliveries
        return hungry + [n for n, d in deliveries.items() if not d.data_queue]

    def _clear_records(self) -> None:
        distiller = self.distiller
        for manager in (distiller.student_recorders, distiller.teacher_recorders):
            for recorder in manager.recorders.values():
                recorder.reset_data_buffer()
        for delivery in distiller.deliveries.deliveries.values():
            delivery.data_queue.clear()

    def _init_teacher(self) -> None:
        """Give the teacher its weights, or warn that it has none."""
        depth = _MODES.index(self._mode or self._shallowest_mode())
        parts = [('backbone.',), ('backbone.', 'neck.'), ('',), ('',)][depth]
        if parts != ('',):
            parts += tuple(f'{name}.' for name in self.inherit)
        if self.teacher_ckpt is not None:
            load_weights(self.teacher, self.teacher_ckpt, 'teacher', parts)
            self._teacher_has_weights = True
        if self._teacher_has_weights:
            return
        self.teacher.init_weights()
        filled = [name for name, m in self.teacher.named_modules() if _pretrained(m)]
        self._teacher_has_weights = all(
            any(f'{part}.'.startswith(f'{name}.' if name else '') for name in filled)
            for part in (prefix.rstrip('.') for prefix in parts)
        )
        if not self._teacher_has_weights:
            having = f'only {filled} has' if filled else 'nothing in it has'
            print_log(
                f'{"!" * 20} THE TEACHER HAS NO WEIGHTS {"!" * 20} '
                f'({having} pretrained weights): the student learns to imitate random '
                'features. Give `teacher_ckpt` (in tools/train.py `--teacher-ckpt`).',
                logger='current',
                level=logging.WARNING,
            )

    def _refuse_resume_without_weights(self) -> None:
        iteration = MessageHub.get_current_instance().runtime_info.get('iter', 0)
        if iteration > 0 and not self._teacher_has_weights:
            raise RuntimeError(
                f'Training is resumed at iteration {iteration}, but the teacher has no '
                'weights: checkpoints hold no teacher, and a random one is not the one '
                'that training began with. Give `teacher_ckpt` (in tools/train.py '
                '`--teacher-ckpt`).'
            )


class _SharedModule:
    """Holds a module outside the module tree; copies share it."""

    def __init__(self, module: BaseModel) -> None:
        self.module = module

    def __deepcopy__(self, memo: dict) -> _SharedModule:
        return self


def _build_model(
    model: dict | BaseModel,
    name: str,
    data_preprocessor: dict | None = None,
) -> tuple[BaseModel, str | None]:
    weights = None
    if isinstance(model, dict):
        model, weights = resolve_model_cfg(model, data_preprocessor)
        model = ROOT_MODELS.build(model)
    if not isinstance(model, BaseModel):
        raise TypeError(
            f'{name}: got {type(model).__name__}; expected a model config, '
            "dict(cfg_path='package::folder/config.py') or an mmengine BaseModel."
        )
    return model, weights


def _disable_inplace(model: nn.Module) -> None:
    """Keep recorded features from being overwritten by the activation behind."""
    for module in model.modules():
        if getattr(module, 'inplace', False) is True:
            module.inplace = False  # type: ignore[assignment]


def _init_cfgs(module: nn.Module) -> Sequence[dict]:
    cfgs = getattr(module, 'init_cfg', None) or []
    return [cfgs] if isinstance(cfgs, dict) else cfgs


def _is_pretrained(cfg: dict) -> bool:
    kind = cfg.get('type')
    # mmdet's PVT configs give a checkpoint without a type.
    pretrained = ('Pretrained', 'PretrainedInit', None)
    return 'checkpoint' in cfg and getattr(kind, '__name__', kind) in pretrained


def _pretrained(module: nn.Module) -> bool:
    return any(_is_pretrained(cfg) for cfg in _init_cfgs(module))


def _drop_pretrained(model: nn.Module) -> None:
    for module in model.modules():
        if _pretrained(module):
            kept = [cfg for cfg in _init_cfgs(module) if not _is_pretrained(cfg)]
            module.init_cfg = kept or None  # type: ignore[assignment]
        # DetectoRS's backbones read an attribute.
        if isinstance(getattr(module, 'pretrained', None), str):
            module.pretrained = None  # type: ignore[assignment]


__all__ = ['FeatureDistill']
