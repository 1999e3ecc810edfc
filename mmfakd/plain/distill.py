# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""Distillation between two modules."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Union

import torch
from torch import nn

from mmfakd.messages import quoted
from mmfakd.models.distillers.full_precision import compute_all_in_full
from mmfakd.models.distillers.level_order import refuse_reversed

from .distillation import Distillation
from .inputs import arguments_of
from .layer import LayerLike
from .logits import check_logits
from .methods import LossWeight, Method
from .unwrap import unwrap
from .watched_model import Forward, WatchedModel

Layers = Union[str, Sequence[LayerLike], Mapping[str, LayerLike]]


def distill(
    student: nn.Module,
    teacher: nn.Module,
    student_layers: Layers = (),
    teacher_layers: str | Sequence[LayerLike] | None = None,
    example_input: Any = None,
    *,
    method: str = 'fakd-layer',
    loss_weight: LossWeight = 1.0,
    level_loss: nn.Module | None = None,
    kd_weight: float = 0.0,
    tau: float = 1.0,
    warmup: int | Mapping[str, float] | None = None,
    any_size: bool = False,
    connector: Mapping[str, Any] | None = None,
    forward: Forward | None = None,
    report: bool = True,
) -> Distillation:
    r"""Make the distillation loss of two models, for a training loop of one's own.

    .. math::
        \mathcal{L} = w \sum_l \lambda_l \, d\big(\hat{F}^T_l(F^S), F^T_l\big)
        + \lambda_{kd} \, \mathrm{KL}

    Both models run once on the example input, in evaluation mode and without a trace;
    this tells the shapes of their features, for which connectors are built. From then
    on hooks record the student's layers whenever it runs with gradients, and
    ``distillation.loss()`` runs the teacher, in evaluation mode and without gradients,
    and compares.

    Source: *Frequency Attention for Knowledge Distillation* (arXiv 2403.05894) for the
    default.

    Args:
        student (nn.Module): The student; wrapped by ``DistributedDataParallel`` or
            ``torch.compile``, or not.
        teacher (nn.Module): The teacher with its weights. It is set to evaluation mode.
        student_layers (Sequence | Mapping): Names of its layers, shallow to deep; or
            ``{student's layer: teacher's layer}``. In the place of a name may stand the
            layer itself or ``dict(name=..., index=..., call=..., layout=...,
            tokens=..., copy=...)``: ``index`` is the number or key of the part of its
            output that counts, or an attribute of a data class, ``call`` which of
            several calls, ``layout`` one of ``'NCHW'``, ``'NHWC'``, ``'NLC'``,
            ``'NCL'``, ``tokens=dict(prefix=1, size=(h, w))`` how tokens lie on a grid,
            ``copy`` whether it is changed in place. What is left out is found from the
            example.
        teacher_layers (Sequence, optional): The teacher's, likewise. Defaults to None:
            the student's names.
        example_input (Any): What the models are called with: a tensor; a tuple of
            arguments; a mapping of keyword arguments. Its size counts, its values do
            not, nor does the number of images, from which is told where the batch is.
        method (str): ``'fakd-layer'``, ``'fakd-review'``, ``'reviewkd'``,
            ``'fitnet'``, ``'fft'`` or ``'kd'``, which compares the predictions alone,
            (N, classes, ...) or, of sequences, (N, L, classes).
        loss_weight (float | Sequence[float] | str | Mapping): Weight of the levels, or
            one for each; or ``'balance'``, by which the first steps find them, see
            :class:`BalancedWeights`.
        level_loss (nn.Module, optional): Called with the prediction and the teacher's
            feature, each (N, C, H, W). Defaults to None: the method's.
        kd_weight (float): Weight of the divergence of the predictions, beside the
            levels. Defaults to 0, for none. Of ``'kd'`` it is ``loss_weight``. It is
            a mean over samples, of sequences over all positions; what else there is,
            such as the pixels of an image, is summed.
        tau (float): Its temperature.
        warmup (int | Mapping, optional): Number of calls over which the weight of the
            levels grows from zero; or ``dict(begin=..., end=...)``. Defaults to None.
        any_size (bool): Whether inputs may have other sizes than the example. Filters
            are then of the lowest frequencies. Defaults to False.
        connector (Mapping, optional): Arguments of :class:`ReviewConnector` or
            :class:`LayerwiseConnector` that are to be others than those planned.
        forward (Callable, optional): How to run a model, if not by calling it:
            ``forward(model, *inputs, **kwargs)``, for example ``lambda model, x:
            model.forward_features(x)``.
        report (bool): Whether the first call of the loss examines what it distils.
            Several processes do so together: all have the same value, and the first
            one prints.

    Returns:
        Distillation: It has ``loss()`` and ``parameters()``.

    Raises:
        TypeError: For what is no module, or cannot be recorded.
        ValueError: For layers that do not exist (near names are listed), do not run on
            the example or yield no features; lists of different lengths; levels that
            run deep to shallow; an ``index`` that takes one sample of the batch;
            sequences whose batch stands second; predictions that cannot be compared, or
            of a single class; models that share weights; and bad arguments.

    Examples:
        >>> import mmfakd, torch, torchvision
        >>> student = torchvision.models.resnet18(num_classes=10)
        >>> teacher = torchvision.models.resnet18(num_classes=10)
        >>> images = torch.zeros(1, 3, 64, 64)
        >>> distillation = mmfakd.distill(
        ...     student, teacher, ['layer3', 'layer4'], None, images, report=False
        ... )
        >>> logits = student(torch.rand(2, 3, 64, 64))
        >>> distillation.loss().requires_grad
        True
    """
    plan = Method(
        method, loss_weight, level_loss, kd_weight, tau, warmup, any_size, connector
    )
    _refuse_shared(student, teacher)
    ours, theirs = _pairs(student_layers, teacher_layers, plan.by_level)
    if example_input is None:
        raise ValueError(
            'example_input: expected what the models are called with, such as '
            'torch.zeros(1, 3, 224, 224), a tuple of arguments or a dict of keyword '
            'arguments.'
        )
    sides: list[WatchedModel] = []
    try:
        for model, layers, role in (
            (student, ours, 'student'),
            (teacher, theirs, 'teacher'),
        ):
            side = WatchedModel(model, layers, role, forward, plan.kd > 0)
            sides.append(side)
            side.examine(arguments_of(example_input))
        for side in sides:
            _check_order(side)
        predictions = [side.logits for side in sides if side.logits is not None]
        if predictions:
            check_logits(*predictions)
        distiller = plan.build(sides[0].maps, sides[1].maps)
        compute_all_in_full(distiller)
        made = Distillation(sides[0], sides[1], distiller, any_size, report)
    except BaseException:
        for side in sides:
            side.recorder.close()
        raise
    weight = next(sides[0].core.parameters(), None)
    if weight is not None:
        # Half precision learns under autocast, from weights in full precision.
        dtype = torch.promote_types(weight.dtype, torch.float32)
        distiller.to(weight.device, dtype)
    return made


def _check_order(side: WatchedModel) -> None:
    """Raise for levels from deep to shallow."""
    if side.maps:
        refuse_reversed(
            f'{side.role}_layers',
            [one.layer.title for one in side.maps],
            [one.size for one in side.maps],
            'Turn both lists round.',
        )


def _pairs(
    student: Any, teacher: Any, by_level: bool
) -> tuple[list[LayerLike], list[LayerLike]]:
    """The two lists of layers."""
    if isinstance(student, Mapping) and 'name' not in student:
        if teacher is not None:
            raise ValueError(
                'teacher_layers: got them beside `student_layers` that name pairs of '
                'layers; expected one of the two, and `example_input` by its name.'
            )
        student, teacher = list(student), list(student.values())
    ours = _listed(student)
    theirs = ours if teacher is None else _listed(teacher)
    if not by_level:
        if ours or theirs:
            raise ValueError(
                "method='kd' compares predictions alone: leave out the layers, or "
                'choose another method with `kd_weight`.'
            )
        return [], []
    if len(ours) != len(theirs) or not ours:
        raise ValueError(
            f'student_layers: {len(ours)} of the student stand against {len(theirs)} '
            'of the teacher; expected as many of both, at least one, shallow to deep.'
        )
    return ours, theirs


def _listed(layers: Any) -> list[LayerLike]:
    if isinstance(layers, (Sequence, nn.ModuleList)):
        return [layers] if isinstance(layers, str) else list(layers)
    if isinstance(layers, (nn.Module, Mapping)):
        return [layers]
    raise ValueError(
        f'student_layers, teacher_layers: got a {type(layers).__name__}; expected '
        'lists of names, shallow to deep. Give the example by its name: '
        'example_input=...'
    )


def _refuse_shared(student: nn.Module, teacher: nn.Module) -> None:
    """Raise where freezing the teacher would freeze the student."""
    ours = {id(m): n for n, m in unwrap(student, 'student').named_modules()}
    shared = [n for n, m in unwrap(teacher, 'teacher').named_modules() if id(m) in ours]
    own = {id(p) for p in student.parameters()}
    weights = [n for n, p in teacher.named_parameters() if id(p) in own]
    if shared or weights:
        names = quoted([n or 'the model itself' for n in (shared or weights)[:3]])
        raise ValueError(
            f'student and teacher share layers or weights ({names}): the teacher would '
            'hold the student in evaluation mode. Give a copy: copy.deepcopy(model).'
        )
