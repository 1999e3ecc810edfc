# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""The text of a distillation config."""

from __future__ import annotations

import os.path as osp
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from .candidate import Candidate
from .features import Feature
from .filters import plan_dense, plan_modes

METHODS = {
    'fakd-review': 'FAM-KD in the review pyramid (arXiv 2403.05894)',
    'fakd-layer': 'FAM-KD layer to layer (arXiv 2403.05894)',
    'reviewkd': 'ReviewKD (arXiv 2104.09044)',
    'kd': 'KD (arXiv 1503.02531)',
}
_WIDTH = 88
_MOST_REVIEWKD_CHANNELS = 512


@dataclass
class Plan:
    """All that a config states.

    Args:
        method (str): A key of :data:`METHODS`.
        student (Candidate): The student.
        teacher (Candidate): The teacher.
        pairs (list[tuple[Feature, Feature]]): Matched levels, shallow to deep; for KD
            the layers of the logits.
        fixed (bool): Whether all images have the probed size.
        command (str): The command, for the comment on top.
        teacher_ckpt (str, optional): The teacher's weights.
        student_ckpt (str, optional): Weights that the student starts from.
        typical (tuple[int, int], optional): Short and long side of typical images,
            where they have many sizes.
        padding (int, optional): What sizes of batches are to be multiples of, where
            the student's own padding does not suit the teacher.
        inherit (Sequence[str]): Modules that start as copies of the teacher's.
    """

    method: str
    student: Candidate
    teacher: Candidate
    pairs: list[tuple[Feature, Feature]]
    fixed: bool
    command: str
    teacher_ckpt: str | None = None
    student_ckpt: str | None = None
    typical: tuple[int, int] | None = None
    padding: int | None = None
    inherit: Sequence[str] = ()


def write_config(plan: Plan, out: str) -> str:
    """Write a config as text.

    Args:
        plan (Plan): What it is to state.
        out (str): The path where it will stand, to which paths in it are relative.

    Returns:
        str: The text, the same for the same plan.
    """
    student, teacher = plan.student, plan.teacher
    folder = osp.dirname(osp.abspath(out))
    base = student.config
    if '::' not in base:
        base = _relative(base, folder)
    lines = [
        *_comment(
            f'{METHODS[plan.method]}: {teacher.title} teaches {student.title}. Data, '
            "schedule and runtime are the student's own. Written by"
        ),
        *_comment(plan.command, '  '),
        f"_base_ = '{base}'",
        '',
        *_level_lines(plan),
        'model = dict(',
        '    _delete_=True,',
        "    type='mmfakd.FeatureDistill',",
    ]
    if plan.padding is None:
        lines.append('    architecture={{_base_.model}},')
    else:
        lines += [
            "    # The student, whose maps and the teacher's have equal sizes so.",
            '    architecture=dict(',
            f'        cfg_path={_config_path(student.config, folder)},',
            f'        data_preprocessor=dict(pad_size_divisor={plan.padding}),',
            '    ),',
        ]
    teacher_line = f'    teacher=dict(cfg_path={_config_path(teacher.config, folder)}),'
    if len(teacher_line) > _WIDTH:
        path = teacher_line[len('    teacher=dict(') : -len('),')]
        lines += ['    teacher=dict(', f'        {path}', '    ),']
    else:
        lines.append(teacher_line)
    if plan.teacher_ckpt:
        lines.append(f'    teacher_ckpt={plan.teacher_ckpt!r},')
    else:
        lines.append('    teacher_ckpt=None,  # give it here or as --teacher-ckpt')
    if plan.student_ckpt:
        lines.append(f'    student_ckpt={plan.student_ckpt!r},')
    if plan.inherit:
        lines += ['    inherit=[', *(f'        {n!r},' for n in plan.inherit), '    ],']
    distiller = _kd if plan.method == 'kd' else _features
    lines += ['    distiller=dict(', *_indent(distiller(plan), 8), '    ),', ')']
    if student.cfg.get('load_from'):
        lines += [
            '# The student starts from `student_ckpt`; `load_from` is for checkpoints',
            '# of this training.',
            'load_from = None',
        ]
    return '\n'.join(lines) + '\n'


def _comment(text: str, indent: str = '') -> list[str]:
    return textwrap.wrap(
        text,
        _WIDTH,
        initial_indent=f'# {indent}',
        subsequent_indent=f'# {2 * indent}',
        break_long_words=False,
        break_on_hyphens=False,
    )


def _config_path(config: str, folder: str) -> str:
    """A ``cfg_path`` in quotes."""
    if '::' in config:
        return f"'{config}'"
    return f"'{{{{ fileDirname }}}}/{_relative(config, folder)}'"


def _relative(path: str, folder: str) -> str:
    return osp.relpath(osp.abspath(path), folder).replace('\\', '/')


def _level_lines(plan: Plan) -> list[str]:
    """The two lists of levels."""
    if plan.method == 'kd':
        return []
    lines = ['# Channels x height x width.'] if plan.fixed else []
    for role, features in zip(('student', 'teacher'), zip(*plan.pairs)):
        lines.append(f'{role}_levels = [')
        for feature in features:
            about = f'# {feature.channels} channels, stride {feature.stride}'
            if plan.fixed:
                about = '# {} x {} x {}'.format(feature.channels, *feature.size)
            text = f'    {level_text(feature)},'
            if len(text) + 2 + len(about) <= _WIDTH:
                lines.append(f'{text}  {about}')
            else:
                lines += [f'    {about}', text]
        lines.append(']')
    return lines


def level_text(feature: Feature) -> str:
    """Write a level as a distiller takes it.

    Args:
        feature (Feature): The level.

    Returns:
        str: A module name in quotes, or a dict with one as its recorder.
    """
    arguments = [f"recorder='{feature.call.name}'"]
    if feature.call.index:
        arguments.append(f'record_idx={feature.call.index}')
    if feature.data_idx is not None:
        arguments.append(f'data_idx={feature.data_idx}')
    if feature.tokens is not None:
        arguments.append(f'tokens={tokens_text(feature.tokens)}')
    if len(arguments) == 1:
        return f"'{feature.call.name}'"
    return f'dict({", ".join(arguments)})'


def tokens_text(tokens: dict[str, Any]) -> str:
    """Write the level key ``tokens``.

    Args:
        tokens (dict): Its value.

    Returns:
        str: The value as code.
    """
    return f'dict({", ".join(f"{key}={value}" for key, value in tokens.items())})'


def _features(plan: Plan) -> list[str]:
    """The distiller of the methods on features."""
    build = {
        'fakd-review': _fakd_review,
        'fakd-layer': _fakd_layer,
        'reviewkd': _reviewkd,
    }[plan.method]
    lines = [
        "type='mmfakd.ReviewDistiller',",
        'student_levels=student_levels,',
        'teacher_levels=teacher_levels,',
        *_weight(plan),
    ]
    if plan.method == 'reviewkd':
        lines.append("level_loss=dict(type='mmfakd.HierarchicalContextLoss'),")
    return [*lines, 'connector=dict(', *_indent(build(plan), 4), '),']


def _weight(plan: Plan) -> list[str]:
    if plan.student.kind == 'detector':
        return [
            '# 1 is the published weight of ReviewKD for detectors of equal width;',
            '# weak students had up to 2.',
            'loss_weight=1.0,',
        ]
    return [
        '# 1 is the published weight of R34-R18 on ImageNet. Others are 0.8 to 20, and',
        '# CIFAR-100 has warmup=dict(by_epoch=True, begin=0, end=20).',
        'loss_weight=1.0,',
    ]


def _channels(plan: Plan) -> list[str]:
    ours, theirs = zip(*plan.pairs)
    return [
        f'in_channels={[f.channels for f in ours]},',
        f'out_channels={[f.channels for f in theirs]},',
    ]


def _sizes(plan: Plan) -> list[str]:
    """``sizes``, or ``scales`` where maps have any size and the strides differ."""
    if plan.fixed:
        sizes = [_side(theirs.size) for _, theirs in plan.pairs]
        return [f"sizes={sizes},  # the teacher's"]
    scales = [ours.stride / theirs.stride for ours, theirs in plan.pairs]
    if set(scales) == {1}:
        return []
    scales = [int(s) if s == int(s) else s for s in scales]
    return [f"scales={scales},  # the teacher's size over the student's"]


def _side(size: Sequence[int]) -> Any:
    return size[0] if size[0] == size[1] else tuple(size)


def _mid_channels(plan: Plan) -> list[int]:
    """The student's channels, made even as local cross attention needs them."""
    return [ours.channels + ours.channels % 2 for ours, _ in plan.pairs]


def plan_filters(plan: Plan) -> list[dict]:
    """Plan the filter of each level.

    Args:
        plan (Plan): What the config is to state.

    Returns:
        list[dict]: ``modes`` and ``groups`` of each, where they are not the defaults;
        none for methods without frequency attention.
    """
    if not plan.method.startswith('fakd'):
        return []
    plans = []
    for mid, (_, theirs) in zip(_mid_channels(plan), plan.pairs):
        if plan.fixed:
            plans.append(plan_dense(mid, theirs.channels, theirs.size))
        else:
            side = min(theirs.size)
            if plan.typical is not None:
                side = min(plan.typical) // theirs.stride
            plans.append(plan_modes(mid, theirs.channels, side))
    return _unite(plan, plans) if plan.method == 'fakd-layer' else plans


def _unite(plan: Plan, plans: list[dict]) -> list[dict]:
    """One filter for all levels.

    It has as many groups as the largest needs and all channels divide into.
    """
    groups = max(p.get('groups', 1) for p in plans)
    counts = [feature.channels for pair in plan.pairs for feature in pair]
    while any(count % groups for count in counts):
        groups //= 2
    united = dict(groups=groups) if groups > 1 else {}
    if not plan.fixed:
        united['modes'] = max(p['modes'] for p in plans)
    return [united] * len(plans)


def _fakd_review(plan: Plan) -> list[str]:
    mid = _mid_channels(plan)
    lines = ["type='mmfakd.ReviewConnector',", *_channels(plan)]
    if mid != [ours.channels for ours, _ in plan.pairs]:
        lines.append(f'mid_channels={mid},  # even, for the cross attention')
    lines += _sizes(plan)
    filters = plan_filters(plan)
    name = "type='mmfakd.FrequencyAttention'"
    if all(f == filters[0] for f in filters):
        if filters[0]:
            lines.append(f'transform=dict({_arguments(name, filters[0])}),')
    else:
        lines.append('transform=[')
        lines += [f'    dict({_arguments(name, f)}),' for f in filters]
        lines.append('],')
    if not all(theirs.non_negative for _, theirs in plan.pairs):
        lines.append("act_cfg=None,  # the teacher's features have negative values")
    return lines


def _fakd_layer(plan: Plan) -> list[str]:
    # As published, without a high pass.
    arguments = dict(plan_filters(plan)[0], high_pass=0)
    name = "type='mmfakd.FrequencyAttentionConnector'"
    return [
        "type='mmfakd.LayerwiseConnector',",
        *_channels(plan),
        *_sizes(plan),
        'connector=dict(',
        f'    {_arguments(name, arguments)}',
        '),',
    ]


def _reviewkd(plan: Plan) -> list[str]:
    deepest = plan.pairs[-1][0].channels
    return [
        "type='mmfakd.ReviewConnector',",
        *_channels(plan),
        f'mid_channels={min(deepest, _MOST_REVIEWKD_CHANNELS)},',
        *_sizes(plan),
        "fusion=dict(type='mmfakd.AttentionBasedFusion'),",
        "transform=dict(type='mmfakd.ConvTransform'),",
        'always_match=True,',
        'match_act_cfg=None,',
        'act_cfg=None,',
    ]


def _arguments(first: str, others: dict) -> str:
    return ', '.join([first, *(f'{key}={value}' for key, value in others.items())])


def _kd(plan: Plan) -> list[str]:
    [(ours, theirs)] = plan.pairs
    lines = ["type='mmrazor.ConfigurableDistiller',"]
    for role, feature in (('student', ours), ('teacher', theirs)):
        lines += [
            f'{role}_recorders=dict(',
            "    logits=dict(type='mmrazor.ModuleOutputs', "
            f"source='{feature.call.name}')",
            '),',
        ]
    return [
        *lines,
        "# As much as the labels have, as in ImageNet's recipes at temperature 1;",
        '# those of CIFAR-100 have tau=4 and nine times as much.',
        'distill_losses=dict(',
        "    loss_kl=dict(type='mmrazor.KLDivergence', tau=1, loss_weight=1.0)",
        '),',
        'loss_forward_mappings=dict(',
        '    loss_kl=dict(',
        "        preds_S=dict(recorder='logits', from_student=True),",
        "        preds_T=dict(recorder='logits', from_student=False),",
        '    )',
        '),',
    ]


def _indent(lines: Sequence[str], columns: int) -> list[str]:
    return [' ' * columns + line for line in lines]


__all__ = [
    'METHODS',
    'Plan',
    'level_text',
    'plan_filters',
    'tokens_text',
    'write_config',
]
