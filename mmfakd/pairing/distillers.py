# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""The distiller of a config, method by method."""

from __future__ import annotations

from typing import Any

from .code import Name, as_code, block, comment, entries
from .features import Feature
from .filters import plan_filters
from .loss_weight import is_balanced
from .methods import METHODS, MOST_REVIEWKD_CHANNELS
from .overhaul import find_margin
from .plan import Plan

# The distiller stands in a model, eight columns to the right.
_WIDTH = 80
# Methods with 1x1 convolutions: at every level, with a norm, or where channels differ.
_NORMED, _PLAIN = ('fitnet', 'ofd'), ('pkd', 'cwd')
_LEVELS = dict(
    student_levels=Name('student_levels'), teacher_levels=Name('teacher_levels')
)
# As published, without a high pass.
_LAYER = dict(type='mmfakd.FrequencyAttentionConnector', high_pass=0)
_ABOUT_WEIGHT = {
    'classifier': '1 is the published weight of R34-R18 on ImageNet. Others are 0.8 to '
    '20, and CIFAR-100 has warmup=dict(by_epoch=True, begin=0, end=20).',
    'detector': '1 is the published weight of ReviewKD for detectors of equal width; '
    'weak students had up to 2.',
    'segmentor': '1 is the published weight of ReviewKD for detectors; none is for '
    'segmentors.',
}
_ABOUT_BALANCE = (
    "The first iterations measure the levels' gradients on the student, and weight "
    'them in this ratio to that of its own loss.'
)


def distiller_lines(plan: Plan) -> list[str]:
    """Write the distiller of a plan.

    Args:
        plan (Plan): The plan.

    Returns:
        list[str]: The arguments of its config, as lines of code.
    """
    write = dict(
        [
            ('fakd-review', _pyramid),
            ('fakd-layer', _pyramid),
            ('reviewkd', _pyramid),
            ('pkd', _level_by_level),
            ('cwd', _level_by_level),
            ('at', _level_by_level),
            ('fitnet', _level_by_level),
            ('ofd', _level_by_level),
        ]
    ).get(plan.method, _recorded)
    return (_logit_maps if plan.of_logit_maps else write)(plan)


def prelude(plan: Plan) -> list[str]:
    """Write what the distiller refers to.

    Args:
        plan (Plan): The plan.

    Returns:
        list[str]: Lines of code; none for most methods.
    """
    if plan.method == 'fakd-layer' and not _same(plan_filters(plan)):
        return [
            '# Of every level, whose filters differ.',
            f'connector = {as_code(_LAYER)}',
        ]
    if plan.method not in _NORMED + _PLAIN or not has_connectors(plan):
        return []
    conv: dict[str, Any] = dict(type='mmrazor.ConvModuleConnector')
    if plan.method in _PLAIN:
        # Both methods take the mean of a channel away: a bias would learn nothing.
        conv.update(bias=False, act_cfg=None)
    else:
        conv.update(norm_cfg=dict(type='BN'))
        if plan.method == 'ofd' or not plan.pairs[0][1].info.non_negative:
            conv.update(act_cfg=None)
    return [
        "# It brings the student's channels to the teacher's.",
        f'conv = {as_code(conv)}',
    ]


def has_connectors(plan: Plan) -> bool:
    """Tell whether a plan's distiller has weights of its own.

    Args:
        plan (Plan): The plan.

    Returns:
        bool: Whether it has.
    """
    if plan.method in _PLAIN:
        return any(ours.channels != theirs.channels for ours, theirs in plan.pairs)
    return plan.method not in ('kd', 'lskd', 'dkd', 'nkd', 'dist', 'at', 'rkd')


def _pyramid(plan: Plan) -> list[str]:
    ours, theirs = zip(*plan.pairs)
    lines = [
        *entries(dict(type='mmfakd.ReviewDistiller', **_LEVELS), _WIDTH),
        *_weight_lines(plan, _ABOUT_WEIGHT.get(plan.student.kind, '')),
    ]
    if plan.method == 'reviewkd':
        lines.append("level_loss=dict(type='mmfakd.HierarchicalContextLoss'),")
    kind, others = {
        'fakd-review': ('ReviewConnector', _fakd_review),
        'fakd-layer': ('LayerwiseConnector', _fakd_layer),
        'reviewkd': ('ReviewConnector', _reviewkd),
    }[plan.method]
    connector = [
        f"type='mmfakd.{kind}',",
        f'in_channels={[f.channels for f in ours]},',
        f'out_channels={[f.channels for f in theirs]},',
        *others(plan),
    ]
    return [*lines, *block('connector=dict(', connector)]


def _weight_lines(plan: Plan, about: str = '') -> list[str]:
    """The weight of the levels and its growth."""
    weight: Any = plan.weight
    if plan.method == 'ofd' and not is_balanced(weight):
        halves = [0.5**i for i in reversed(range(len(plan.pairs)))]
        factors = weight if isinstance(weight, list) else [weight] * len(halves)
        weight = [half * factor for half, factor in zip(halves, factors)]
    about = _ABOUT_BALANCE if is_balanced(weight) else about
    lines = comment(about, width=_WIDTH) if about else []
    lines.append(f'loss_weight={as_code(weight)},')
    if plan.warmup_cfg is not None:
        lines.append(f'warmup={as_code(plan.warmup_cfg)},')
    return lines


def _sizes(plan: Plan) -> list[str]:
    """``sizes``, or ``scales`` where maps have any size and the strides differ."""
    if plan.fixed:
        sizes = [f.size[0] if f.size[0] == f.size[1] else f.size for _, f in plan.pairs]
        return [f"sizes={sizes},  # the teacher's"]
    scales = [ours.stride / theirs.stride for ours, theirs in plan.pairs]
    if set(scales) == {1}:
        return []
    scales = [int(s) if s == int(s) else s for s in scales]
    return [f"scales={scales},  # the teacher's size over the student's"]


def _fakd_review(plan: Plan) -> list[str]:
    mid, lines = plan.mid_channels, []
    if mid != [ours.channels for ours, _ in plan.pairs]:
        lines.append(f'mid_channels={mid},  # even, for the cross attention')
    lines += _sizes(plan)
    filters, kind = plan_filters(plan), 'mmfakd.FrequencyAttention'
    if any(filters):
        transforms = [dict(type=kind, **planned) for planned in filters]
        # One config for all levels, or a list of one for each.
        value = transforms[0] if _same(transforms) else transforms
        lines += entries(dict(transform=value), _WIDTH - 4)
    if not all(theirs.info.non_negative for _, theirs in plan.pairs):
        lines.append("act_cfg=None,  # the teacher's features have negative values")
    return lines


def _fakd_layer(plan: Plan) -> list[str]:
    filters = plan_filters(plan)
    if _same(filters):
        connector: Any = dict(_LAYER, **filters[0])
        return [*_sizes(plan), *entries(dict(connector=connector), _WIDTH - 4)]
    levels = (
        ', '.join(['connector', *(f'{k}={v}' for k, v in f.items())]) for f in filters
    )
    return [
        *_sizes(plan),
        *block('connector=[', [f'dict({level}),' for level in levels]),
    ]


def _same(configs: list[dict]) -> bool:
    return all(config == configs[0] for config in configs)


def _reviewkd(plan: Plan) -> list[str]:
    deepest = plan.pairs[-1][0].channels
    return [
        f'mid_channels={min(deepest, MOST_REVIEWKD_CHANNELS)},',
        *_sizes(plan),
        "fusion=dict(type='mmfakd.AttentionBasedFusion'),",
        "transform=dict(type='mmfakd.ConvTransform'),",
        'always_match=True,',
        'match_act_cfg=None,',
        'act_cfg=None,',
    ]


def _level_by_level(plan: Plan) -> list[str]:
    """A loss for each level, with what brings its two maps to one shape."""
    kind = 'OverhaulDistiller' if plan.method == 'ofd' else 'LevelDistiller'
    head: dict[str, Any] = dict(type=f'mmfakd.{kind}', **_LEVELS)
    if plan.method == 'ofd':
        head['margins'] = [find_margin(plan.teacher, f) for _, f in plan.pairs]
    for role, rows in (
        ('student', [_student_row(plan, *pair) for pair in plan.pairs]),
        ('teacher', [_resized(plan, *reversed(pair)) for pair in plan.pairs]),
    ):
        if any(rows):
            single = [row[0] if len(row) == 1 else row or None for row in rows]
            same = all(row == single[0] for row in single)
            head[f'{role}_connectors'] = single[0] if same else single
    loss = dict(level_loss=_level_loss(plan))
    return [
        *entries(head, _WIDTH),
        *comment(METHODS[plan.method].about, width=_WIDTH),
        *entries(loss, _WIDTH),
        *_weight_lines(plan),
    ]


def _level_loss(plan: Plan) -> Any:
    small = plan.student.kind == 'classifier'
    return {
        'pkd': dict(type='mmrazor.PKDLoss', loss_weight=6, resize_stu=False),
        'cwd': dict(type='mmrazor.ChannelWiseDivergence', tau=1, loss_weight=10),
        'at': dict(type='mmrazor.ATLoss', loss_weight=1000),
        # Maps of detectors are not normalised.
        'fitnet': dict(
            type='mmrazor.L2Loss',
            loss_weight=100 if small else 1,
            normalize=False,
            div_element=True,
        ),
        'ofd': dict(type='mmrazor.OFDLoss'),
    }[plan.method]


def _student_row(plan: Plan, ours: Feature, theirs: Feature) -> list[Any]:
    """What the student's map passes: a pooling, and a 1x1 convolution."""
    row: list[Any] = _resized(plan, ours, theirs)
    if plan.method in _NORMED or (
        plan.method in _PLAIN and ours.channels != theirs.channels
    ):
        channels = f'in_channel={ours.channels}, out_channel={theirs.channels}'
        row.append(Name(f'dict(conv, {channels})'))
    return row


def _resized(plan: Plan, one: Feature, other: Feature) -> list[dict]:
    """What makes a map smaller that is larger than the one it is compared with."""
    arguments: dict[str, Any]
    if plan.fixed:
        size = tuple(map(min, one.size, other.size))
        if one.size == size:
            return []
        function, arguments = 'adaptive_avg_pool2d', dict(output_size=size)
    else:
        if one.stride >= other.stride:
            return []
        arguments = dict(kernel_size=other.stride // one.stride, ceil_mode=True)
        function = 'avg_pool2d'
    return [
        dict(
            type='mmrazor.TorchFunctionalConnector',
            function_name=function,
            func_args=arguments,
        )
    ]


def _logit_maps(plan: Plan) -> list[str]:
    """A loss on the logits of two segmentors, whose maps may differ in size."""
    (pair,) = plan.pairs
    head: dict[str, Any] = dict(type='mmfakd.LevelDistiller')
    for name, feature in zip(_LEVELS, pair):
        head[name] = _LEVELS[name] if METHODS[plan.method].by_level else feature.level
    loss = dict(type='mmrazor.ChannelWiseDivergence', tau=1, loss_weight=5)
    level_loss: dict[str, Any] = dict(type='mmfakd.LogitMapLoss', loss=loss)
    about = "Temperature and weight are those of mmrazor's PSPNet R101-R18."
    if plan.method == 'kd':
        level_loss = dict(level_loss, per_pixel=True)
        level_loss['loss'] = dict(type='mmrazor.KLDivergence', tau=1)
        about = 'A mean over all pixels, which counts as much as the labels.'
    return [
        *entries(head, _WIDTH),
        *comment(f"{about} Maps of other sizes get the teacher's.", width=_WIDTH),
        *entries(dict(level_loss=level_loss), _WIDTH),
        *_weight_lines(plan, ''),
    ]


def _recorded(plan: Plan) -> list[str]:
    """Losses on one recorded vector of each model."""
    ours, theirs = plan.pairs[0]
    name = 'logits' if METHODS[plan.method].compares == 'logits' else 'pooled'
    student = {name: dict(type='mmrazor.ModuleOutputs', source=ours.call.name)}
    teacher = {name: dict(type='mmrazor.ModuleOutputs', source=theirs.call.name)}
    sides = [
        dict(recorder=name, from_student=of_student, **_place(feature))
        for of_student, feature in ((True, ours), (False, theirs))
    ]
    losses, mappings, connectors = _losses(plan, *sides)
    if plan.method in ('dkd', 'nkd'):
        student['target'] = dict(type='mmrazor.ModuleInputs', source='head.loss_module')
    if plan.method == 'crd':
        student['inputs'] = dict(type='mmrazor.ModuleInputs', source='')
    kind = 'mmrazor.ConfigurableDistiller'
    head: dict[str, Any] = dict(type=kind)
    if plan.warmup_cfg is not None:
        head = dict(type='mmfakd.WarmupDistiller', warmup=plan.warmup_cfg)
    head.update(student_recorders=student, teacher_recorders=teacher, **connectors)
    return [
        *entries(head, _WIDTH),
        *comment(METHODS[plan.method].about, width=_WIDTH),
        *entries(dict(distill_losses=losses), _WIDTH),
        *entries(dict(loss_forward_mappings=mappings), _WIDTH),
    ]


def _place(feature: Feature) -> dict[str, Any]:
    """Which of a layer's calls and outputs a feature is."""
    level = feature.level
    keys = ('record_idx', 'data_idx') if isinstance(level, dict) else ()
    return {key: level[key] for key in keys if key in level}  # type: ignore[index]


def _losses(plan: Plan, ours: dict, theirs: dict) -> tuple[dict, dict, dict]:
    """Losses by name, what they get, and the connectors in between."""
    factor: Any = plan.weight
    both = dict(preds_S=ours, preds_T=theirs)
    if plan.method == 'kd':
        loss = dict(type='mmrazor.KLDivergence', tau=1, loss_weight=factor)
        return dict(loss_kl=loss), dict(loss_kl=both), {}
    if plan.method == 'lskd':
        inner = dict(type='mmrazor.KLDivergence', tau=2, loss_weight=9 * factor)
        loss = dict(type='mmfakd.StandardizedLogitsLoss', loss=inner)
        return dict(loss_kl=loss), dict(loss_kl=both), {}
    if plan.method in ('dkd', 'nkd'):
        numbers: dict[str, Any] = dict(tau=1, gamma=1.5)
        if plan.method == 'dkd':
            numbers = dict(tau=1, alpha=1, beta=0.5)
        package = {'dkd': 'mmrazor', 'nkd': 'mmfakd'}[plan.method]
        kind, name = f'{package}.{plan.method.upper()}Loss', f'loss_{plan.method}'
        labels = dict(recorder='target', from_student=True, data_idx=1)
        loss = dict(type=kind, **numbers, loss_weight=factor)
        return {name: loss}, {name: dict(both, gt_labels=labels)}, {}
    if plan.method == 'dist':
        loss = dict(type='mmrazor.DISTLoss', tau=1, loss_weight=2 * factor)
        logits = dict(logits_S=ours, logits_T=theirs)
        return dict(loss_dist=loss), dict(loss_dist=logits), {}
    if plan.method == 'rkd':
        losses = {
            f'loss_{kind.lower()}': dict(
                type=f'mmrazor.{kind}WiseRKD',
                loss_weight=weight * factor,
                with_l2_norm=False,
            )
            for kind, weight in (('Distance', 25), ('Angle', 50))
        }
        return losses, dict.fromkeys(losses, both), {}
    ours_channels, theirs_channels = (f.channels for f in plan.pairs[0])
    embedding = dict(type='mmrazor.CRDConnector', dim_out=128)
    connectors = dict(
        student=dict(embedding, dim_in=ours_channels),
        teacher=dict(embedding, dim_in=theirs_channels),
    )
    loss = dict(
        type='mmfakd.CRDLoss', loss_weight=0.8 * factor, sample_n=plan.training_images
    )
    mapping = dict(
        s_feats=dict(ours, connector='student'),
        t_feats=dict(theirs, connector='teacher'),
        data_samples=dict(recorder='inputs', from_student=True, data_idx=1),
    )
    return dict(loss_crd=loss), dict(loss_crd=mapping), dict(connectors=connectors)
