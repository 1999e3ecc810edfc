# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""The text of a distillation config."""

from __future__ import annotations

import os.path as osp

from mmfakd.engine.safety import distillation_hooks

from .code import WIDTH, block, comment, entries, item
from .connector_rate import connector_lr_mult
from .distillers import distiller_lines, has_connectors, prelude
from .features import Feature
from .methods import METHODS
from .new_style import as_new_style, leads_to
from .overhaul import before_activation
from .plan import Plan


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
        *comment(
            f'{METHODS[plan.method].title}: {teacher.title} teaches {student.title}. '
            "Data, schedule and runtime are the student's own. Written by"
        ),
        *comment(plan.command, '  '),
        _base_line(student.config, folder),
        '',
        *_level_lines(plan),
        *prelude(plan),
        *block('model = dict(', _model_lines(plan, folder), end=''),
        *_training_lines(plan),
    ]
    text = '\n'.join(lines) + '\n'
    return as_new_style(text, student.config, folder) if plan.new_style else text


def _training_lines(plan: Plan) -> list[str]:
    """What joins the student's data, optimizer and hooks."""
    lines = []
    if plan.method == 'crd':
        dataset = [
            '_delete_=True,',
            "type='mmfakd.ContrastiveSamples',",
            'dataset={{_base_.train_dataloader.dataset}},',
        ]
        data = block('train_dataloader = dict(', block('dataset=dict(', dataset), '')
        lines += data
    mult = connector_lr_mult(plan.student.cfg)
    if mult is not None and has_connectors(plan):
        keys = dict(custom_keys=dict(distiller=dict(lr_mult=mult)))
        lines += [
            '# Connectors learn faster than the student, whose settings stay: a step',
            '# of Adam is as long as the learning rate.',
            *block('optim_wrapper = dict(', entries(dict(paramwise_cfg=keys), 84), ''),
        ]
    hooks = distillation_hooks(plan.student.cfg)
    dumped = (plan.student.cfg.get('default_hooks') or {}).get('provenance') or {}
    if dumped.get('allow_changes') and 'provenance' in hooks:
        hooks['provenance']['allow_changes'] = False
    lines += [
        "# They join the student's hooks.",
        *block('default_hooks = dict(', entries(hooks, 84), end=''),
    ]
    if plan.student.cfg.get('load_from'):
        lines += [
            '# The student starts from `student_ckpt`; `load_from` would go over that.',
            'load_from = None',
        ]
    # What a run has put into the config that it dumped.
    told = dict(work_dir=None, resume=False)
    own = [f'{k} = {v}' for k, v in told.items() if plan.student.cfg.get(k)]
    if own:
        lines += ["# The student's own training has these; this one begins anew.", *own]
    return lines


def _relative(config: str, folder: str) -> str:
    """The path of a config from a folder, as far as that is the same for everybody."""
    if '::' in config:
        return config
    path = osp.relpath(osp.abspath(config), folder).replace('\\', '/')
    # The way up from a link is another one for the system than for MMEngine.
    return path if leads_to(config, path, folder) else osp.abspath(config)


def _base_line(config: str, folder: str) -> str:
    return f'_base_ = {_relative(config, folder)!r}'


def _cfg_path(config: str, folder: str, new_style: bool) -> str:
    path = _relative(config, folder)
    if '::' not in config and not osp.isabs(path):
        # MMEngine puts the folder into the text as it is; configs in pure Python do not
        # know where they are.
        as_text = new_style or not folder.isprintable() or set(folder) & set('\'"\\')
        path = osp.abspath(config) if as_text else f'{{{{ fileDirname }}}}/{path}'
    return f'cfg_path={path!r}'


def _level_lines(plan: Plan) -> list[str]:
    """The two lists of levels."""
    if not METHODS[plan.method].by_level:
        return []
    lines = ['# Channels x height x width.']
    if not plan.fixed:
        size = plan.image_size
        head = '# Channels x height x width for batches of {} x {}, and stride.'
        lines = [] if size is None else [head.format(*size)]
    if plan.method == 'ofd':
        lines.append("act = dict(type='mmrazor.ModuleInputs')  # what enters it")
    for role, features in zip(('student', 'teacher'), zip(*plan.pairs)):
        levels = []
        for feature in features:
            about = f'# {_shape(plan, feature)}'
            text = item(_level(plan, role, feature), WIDTH - 4)
            fits = len(text) == 1 and len(f'    {text[0]}  {about}') <= WIDTH
            levels += [f'{text[0]}  {about}'] if fits else [about, *text]
        lines += block(f'{role}_levels = [', levels, end='')
    return lines


def _shape(plan: Plan, feature: Feature) -> str:
    """What a level is for the user's own images, as far as they are known."""
    shape = '{} x {} x {}'.format(feature.channels, *plan.size_of(feature))
    if plan.fixed:
        return shape
    if plan.image_size is None:
        return f'{feature.channels} channels, stride {feature.stride}'
    return f'{shape}, {feature.stride}'


def _level(plan: Plan, role: str, feature: Feature) -> str | dict:
    """A level as the distiller takes it."""
    if plan.method == 'ofd':
        return before_activation(getattr(plan, role), feature)
    return feature.level


def _model_lines(plan: Plan, folder: str) -> list[str]:
    """The two models, the weights that they start from, and the distiller."""
    lines = ['_delete_=True,', "type='mmfakd.FeatureDistill',"]
    if plan.padding is None:
        lines.append('architecture={{_base_.model}},')
    else:
        student = [
            f'{_cfg_path(plan.student.config, folder, plan.new_style)},',
            f'data_preprocessor=dict(pad_size_divisor={plan.padding}),',
        ]
        lines += [
            "# The student, whose maps and the teacher's have equal sizes so.",
            *block('architecture=dict(', student),
        ]
    path = _cfg_path(plan.teacher.config, folder, plan.new_style)
    teacher = [f'teacher=dict({path}),']
    if len(teacher[0]) + 4 > WIDTH:
        teacher = block('teacher=dict(', [path])
    lines += teacher
    if plan.teacher_channels is not None:
        lines += [
            "# Channels of the student's images that the teacher gets.",
            f'teacher_preprocessor=dict(channels={plan.teacher_channels}),',
        ]
    if plan.teacher_weights:
        lines.append(f'teacher_ckpt={plan.teacher_weights!r},')
    else:
        lines.append('teacher_ckpt=None,  # give it here or as --teacher-ckpt')
    if plan.student_weights:
        lines.append(f'student_ckpt={plan.student_weights!r},')
    if plan.inherit:
        lines += block('inherit=[', [f'{name!r},' for name in plan.inherit])
    return [*lines, *block('distiller=dict(', distiller_lines(plan))]
