# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""The text of a distillation config."""

from __future__ import annotations

import os.path as osp
import textwrap
from collections.abc import Sequence
from typing import Any

from mmfakd.engine.safety import distillation_hooks

from .filters import plan_filters
from .plan import METHODS, Plan

_WIDTH = 88
_MOST_REVIEWKD_CHANNELS = 512
_LOSS_WEIGHTS = {
    'classifier': """\
# 1 is the published weight of R34-R18 on ImageNet. Others are 0.8 to 20, and
# CIFAR-100 has warmup=dict(by_epoch=True, begin=0, end=20).""",
    'detector': """\
# 1 is the published weight of ReviewKD for detectors of equal width;
# weak students had up to 2.""",
}
_KD = """\
type='mmrazor.ConfigurableDistiller',
student_recorders=dict(
    logits=dict(type='mmrazor.ModuleOutputs', source='{}')
),
teacher_recorders=dict(
    logits=dict(type='mmrazor.ModuleOutputs', source='{}')
),
# As much as the labels have, as in ImageNet's recipes at temperature 1;
# those of CIFAR-100 have tau=4 and nine times as much.
distill_losses=dict(
    loss_kl=dict(type='mmrazor.KLDivergence', tau=1, loss_weight=1.0)
),
loss_forward_mappings=dict(
    loss_kl=dict(
        preds_S=dict(recorder='logits', from_student=True),
        preds_T=dict(recorder='logits', from_student=False),
    )
),"""


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
    lines = [
        *_comment(
            f'{METHODS[plan.method]}: {teacher.title} teaches {student.title}. Data, '
            "schedule and runtime are the student's own. Written by"
        ),
        *_comment(plan.command, '  '),
        f"_base_ = '{_relative(student.config, folder)}'",
        '',
        *_level_lines(plan),
        *_block('model = dict(', _model_lines(plan, folder), end=''),
        "# They join the student's hooks.",
        *_block('default_hooks = dict(', _hook_lines(plan), end=''),
    ]
    if student.cfg.get('load_from'):
        lines += [
            '# The student starts from `student_ckpt`; `load_from` is for checkpoints',
            '# of this training.',
            'load_from = None',
        ]
    return '\n'.join(lines) + '\n'


def _hook_lines(plan: Plan) -> list[str]:
    hooks = distillation_hooks(plan.student.cfg)
    return [f'{name}={as_code(hook)},' for name, hook in hooks.items()]


def as_code(value: Any) -> str:
    """Write a part of a config.

    Args:
        value (Any): Its value.

    Returns:
        str: The value as code.
    """
    return f'dict({_arguments(value)})' if isinstance(value, dict) else repr(value)


def _arguments(values: dict) -> str:
    return ', '.join(f'{key}={as_code(value)}' for key, value in values.items())


def _block(opening: str, lines: Sequence[str], end: str = ',') -> list[str]:
    """What stands within brackets."""
    closing = {'(': ')', '[': ']'}[opening[-1]]
    return [opening, *(f'    {line}' for line in lines), closing + end]


def _comment(text: str, indent: str = '') -> list[str]:
    return textwrap.wrap(
        text,
        _WIDTH,
        initial_indent=f'# {indent}',
        subsequent_indent=f'# {2 * indent}',
        break_long_words=False,
        break_on_hyphens=False,
    )


def _relative(config: str, folder: str) -> str:
    if '::' in config:
        return config
    return osp.relpath(osp.abspath(config), folder).replace('\\', '/')


def _cfg_path(config: str, folder: str) -> str:
    root = '' if '::' in config else '{{ fileDirname }}/'
    return f"cfg_path='{root}{_relative(config, folder)}'"


def _level_lines(plan: Plan) -> list[str]:
    """The two lists of levels."""
    if plan.method == 'kd':
        return []
    lines = ['# Channels x height x width.'] if plan.fixed else []
    for role, features in zip(('student', 'teacher'), zip(*plan.pairs)):
        levels = []
        for feature in features:
            about = f'# {feature.channels} channels, stride {feature.stride}'
            if plan.fixed:
                about = '# {} x {} x {}'.format(feature.channels, *feature.size)
            text = f'{as_code(feature.level)},'
            fits = len(f'    {text}  {about}') <= _WIDTH
            levels += [f'{text}  {about}'] if fits else [about, text]
        lines += _block(f'{role}_levels = [', levels, end='')
    return lines


def _model_lines(plan: Plan, folder: str) -> list[str]:
    """The two models, the weights that they start from, and the distiller."""
    lines = ['_delete_=True,', "type='mmfakd.FeatureDistill',"]
    if plan.padding is None:
        lines.append('architecture={{_base_.model}},')
    else:
        student = [
            f'{_cfg_path(plan.student.config, folder)},',
            f'data_preprocessor=dict(pad_size_divisor={plan.padding}),',
        ]
        lines += [
            "# The student, whose maps and the teacher's have equal sizes so.",
            *_block('architecture=dict(', student),
        ]
    path = _cfg_path(plan.teacher.config, folder)
    teacher = [f'teacher=dict({path}),']
    if len(teacher[0]) + 4 > _WIDTH:
        teacher = _block('teacher=dict(', [path])
    lines += teacher
    if plan.teacher_weights:
        lines.append(f'teacher_ckpt={plan.teacher_weights!r},')
    else:
        lines.append('teacher_ckpt=None,  # give it here or as --teacher-ckpt')
    if plan.student_weights:
        lines.append(f'student_ckpt={plan.student_weights!r},')
    if plan.inherit:
        lines += _block('inherit=[', [f'{name!r},' for name in plan.inherit])
    return [*lines, *_block('distiller=dict(', _distiller_lines(plan))]


def _distiller_lines(plan: Plan) -> list[str]:
    ours, theirs = zip(*plan.pairs)
    if plan.method == 'kd':
        return _KD.format(ours[0].call.name, theirs[0].call.name).splitlines()
    lines = [
        "type='mmfakd.ReviewDistiller',",
        'student_levels=student_levels,',
        'teacher_levels=teacher_levels,',
        *_LOSS_WEIGHTS[plan.student.kind].splitlines(),
        'loss_weight=1.0,',
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
    return [*lines, *_block('connector=dict(', connector)]


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
    transforms = [f'{as_code(dict(type=kind, **planned))},' for planned in filters]
    if any(planned != filters[0] for planned in filters):
        lines += _block('transform=[', transforms)
    elif filters[0]:
        lines.append(f'transform={transforms[0]}')
    if not all(theirs.info.non_negative for _, theirs in plan.pairs):
        lines.append("act_cfg=None,  # the teacher's features have negative values")
    return lines


def _fakd_layer(plan: Plan) -> list[str]:
    # As published, without a high pass.
    kind = 'mmfakd.FrequencyAttentionConnector'
    connector = dict(type=kind, **plan_filters(plan)[0], high_pass=0)
    return [*_sizes(plan), *_block('connector=dict(', [_arguments(connector)])]


def _reviewkd(plan: Plan) -> list[str]:
    deepest = plan.pairs[-1][0].channels
    return [
        f'mid_channels={min(deepest, _MOST_REVIEWKD_CHANNELS)},',
        *_sizes(plan),
        "fusion=dict(type='mmfakd.AttentionBasedFusion'),",
        "transform=dict(type='mmfakd.ConvTransform'),",
        'always_match=True,',
        'match_act_cfg=None,',
        'act_cfg=None,',
    ]
