# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""A checkpoint says where it comes from, and a resumed run is compared with it."""

from __future__ import annotations

import os.path as osp
import re
from typing import Any

from mmengine.dist import broadcast_object_list, is_main_process
from mmengine.hooks import EMAHook, Hook
from mmengine.runner import BaseLoop, Runner

from mmfakd.checkpoints.config_text import read_config_text
from mmfakd.checkpoints.fetch import fetch_checkpoint
from mmfakd.checkpoints.latest import find_lack, lack_error, needed_states
from mmfakd.checkpoints.state_dict import some
from mmfakd.compat import load_checkpoint_file
from mmfakd.engine.learning_rate import (
    GroupChange,
    changed_groups,
    current_state,
    group_sizes,
    restart_optimizer,
)
from mmfakd.engine.provenance import (
    Difference,
    compare,
    describe_config,
    describe_run,
    hash_weights,
    misfits,
    table,
)
from mmfakd.engine.unwrap import unwrapped_model
from mmfakd.models.algorithms import FeatureDistill
from mmfakd.models.algorithms.teacher import Teacher
from mmfakd.models.distillers import BalancedWeights
from mmfakd.registry import HOOKS

# What measured weights of levels (`loss_weight` of type 'balance') depend on.
_MEASURED_AGAINST = re.compile(r'teacher\.|model\.(teacher|distiller)')
_MEASURED = re.compile(r'distiller\.loss_weight\.\w+$')


@HOOKS.register_module()
class ProvenanceHook(Hook):
    """Write into checkpoints what they come from; compare on resume.

    ``checkpoint['meta']['mmfakd']`` holds the teacher's source and the SHA-256 of its
    weights, the number of processes, the total batch, versions, and the parts of the
    config by which a student learns: the distillation, the student, its images, the
    optimizer, clipping of gradients, and custom hooks. On resume

    - differences are printed as a table;
    - another teacher, distiller or optimizer, other parameter groups, and weights that
      do not fit, are an error. So is a checkpoint that lacks the state of the optimizer
      or of the schedule, and one with averaged weights where no ``EMAHook`` takes them;
    - the weight of a loss (``loss_weight``) and its ``warmup`` may change;
    - level weights that were measured are measured anew with another teacher or
      distiller;
    - the teacher of the first run is used again where the config gives none.

    A checkpoint without that entry is compared by the config in it. A training that
    begins from a checkpoint (``load_from``) takes the level weights that were measured
    there, unless that was with another teacher or distiller.

    Args:
        allow_changes (bool): Whether to go on with another teacher, distiller or
            optimizer. What does not fit then starts anew: weights, the optimizer's
            state, averaged weights. Defaults to False.
    """

    # Before EMAHook, which would load what does not fit.
    priority = 'ABOVE_NORMAL'

    def __init__(self, allow_changes: bool = False) -> None:
        self.allow_changes = allow_changes
        self._described: dict[str, Any] = {}
        # State of the optimizer in a checkpoint, where it does not fit.
        self._unfit: dict[str, Any] = {}

    def before_run(self, runner: Runner) -> None:
        """Find the teacher's weights where the config of a resumed run gives none.

        Args:
            runner (Runner): The runner.

        Raises:
            FileNotFoundError: If the file of the first run is gone.
        """
        teacher, path = _teacher(runner), runner._load_from
        if teacher is None or teacher.has_source or not runner._resume or path is None:
            return
        if runner._has_loaded:
            # MMEngine's FlexibleRunner loads first. The first step will refuse.
            return
        # Of a local file the rest is not read.
        read = (
            load_checkpoint_file(path, mmap=True)
            if osp.isfile(path)
            else fetch_checkpoint(path)
        )
        told = _described_in(runner, read.get('meta', {})).get('teacher', {})
        if told.get('source'):
            teacher.recall(told['source'], told.get('path'))
            runner.logger.info(
                f'The teacher is the one that training began with: {teacher.ckpt}'
            )

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Compare a resumed run with its checkpoint, and what was measured in it.

        Args:
            runner (Runner): The runner.
            checkpoint (dict): What has been read, not loaded yet.

        Raises:
            ValueError: If it is another training, or it lacks a state or has averages
                that nobody takes, and changes are not allowed.
        """
        if not runner._resume:
            _tell_inherited(runner, checkpoint)
            _check_measured(runner, checkpoint)
            return
        then = _described_in(runner, checkpoint['meta'])
        self._described = _describe(runner)
        differences = compare(then, self._described)
        if differences:
            runner.logger.warning(
                'This run is not the one that wrote the checkpoint:\n'
                f'{table(differences)}\n{_consequences(then, self._described)}'
            )
        decisive = [d for d in differences if d.decisive]
        if decisive and not self.allow_changes:
            listed = [f'{key}: {then}, now {now}' for key, then, now, _ in decisive]
            other = any(d.key == 'teacher.sha256' for d in decisive)
            weights = " (the teacher's weights as --teacher-ckpt)" if other else ''
            raise ValueError(
                f'The checkpoint is of another training. {some(listed, 6, "; ")}. '
                f'Restore these settings{weights}, or give --allow-changes to go on '
                'with the new ones. A new training from these weights is begun with '
                '--student-ckpt.'
            )
        if _is_measured_otherwise(differences):
            _forget_measured(runner, checkpoint)
        self._check_states(runner, checkpoint)
        self._check_averages(runner, checkpoint)
        self._check_weights(runner, checkpoint)
        changed = any(d.key.startswith('optimizer.') for d in decisive)
        self._check_optimizer(runner, checkpoint, changed)

    def before_train(self, runner: Runner) -> None:
        """Describe a training that begins.

        Args:
            runner (Runner): The runner.
        """
        if self._unfit:
            restart_optimizer(runner, self._unfit)
            self._unfit = {}
        if not self._described:
            self._described = _describe(runner)

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Add the description.

        Args:
            runner (Runner): The runner.
            checkpoint (dict): What is about to be written.
        """
        checkpoint['meta'].setdefault('mmfakd', {}).update(self._described)

    def _check_states(self, runner: Runner, checkpoint: dict) -> None:
        if 'state_dict' not in checkpoint:
            # A strategy of MMEngine's that loads all by itself.
            return
        needed = needed_states(runner.param_schedulers)
        lack = find_lack(checkpoint, needed)
        if lack is None:
            return
        if not self.allow_changes:
            raise lack_error(runner._load_from, checkpoint, needed)
        runner.logger.warning(
            f'The checkpoint lacks {lack}. Optimizer and schedule start anew, at the '
            'learning rate of the first step.'
        )
        # One without the other would decay a rate twice, or never.
        for key in needed:
            checkpoint.pop(key, None)

    def _check_averages(self, runner: Runner, checkpoint: dict) -> None:
        averaged = 'ema_state_dict' in checkpoint
        averages = _averages(runner)
        if 'state_dict' not in checkpoint or averaged == averages:
            return
        if averages:
            # mmpretrain's EMAHook does not say it.
            runner.logger.warning(
                'The checkpoint has no averaged weights (EMA): the average begins '
                'with its weights.'
            )
            return
        if not self.allow_changes:
            raise ValueError(
                'The checkpoint was written with an EMAHook: it has averaged weights '
                '(EMA) in the place of the trained ones, and those beside them. The '
                'config has no EMAHook to put them back. Add it to `custom_hooks` as '
                'in the training that is resumed, or give --allow-changes to go '
                'on from the trained weights without an average.'
            )
        _forget_averages(runner, checkpoint)

    def _check_weights(self, runner: Runner, checkpoint: dict) -> None:
        if 'state_dict' not in checkpoint:
            # A strategy of MMEngine's that loads weights by itself.
            return
        unfit = misfits(unwrapped_model(runner), checkpoint['state_dict'])
        if not unfit:
            return
        parts = [f'{len(keys)} {kind}: {some(keys, 3)}' for kind, keys in unfit.items()]
        text = f'Weights do not fit: {"; ".join(parts)}. '
        if not self.allow_changes:
            raise ValueError(
                f'{text}Resume with the model that the checkpoint is of, or give '
                '--allow-changes to let the rest start anew.'
            )
        runner.logger.warning(
            f'{text}They start anew, and so does the state of the optimizer, such as '
            'its momentum. The schedule of the learning rate goes on.'
        )
        self._unfit = checkpoint.pop('optimizer', {})
        _forget_averages(runner, checkpoint)
        # In a dict that other hooks may hold already.
        gradients = (checkpoint.get('position') or {}).get('gradients') or []
        gradients.clear()

    def _check_optimizer(self, runner: Runner, checkpoint: dict, changed: bool) -> None:
        if 'optimizer' not in checkpoint:
            return
        then, now = checkpoint['optimizer'], current_state(runner)['optimizer']
        sizes, present = group_sizes(then), group_sizes(now)
        difference = ''
        if sizes != present:
            difference = (
                f'The optimizer of the checkpoint has {_groups(sizes)}, that of the '
                f'config {_groups(present)}'
            )
        elif not changed:
            difference = _multiples(runner, now, changed_groups(then, now))
        if not difference and not changed:
            return
        if difference and not self.allow_changes:
            raise ValueError(
                f'{difference}: `paramwise_cfg` of `optim_wrapper` is another '
                'one, or other parts of the model are trained. Restore it, or give '
                '--allow-changes to let the state of the optimizer start anew.'
            )
        runner.logger.warning(
            f'{difference or "The optimizer is another one"}: the state of the '
            'optimizer, such as its momentum, starts anew, with the settings of the '
            'config. The schedule of the learning rate goes on.'
        )
        self._unfit = checkpoint.pop('optimizer')


def _groups(sizes: dict[str, list[int]]) -> str:
    """Parameter groups in words."""
    texts = []
    for name, own in sizes.items():
        listed = some([str(size) for size in own], 6)
        texts.append(
            f'{name and f"{name}: "}{len(own)} parameter groups ({listed} parameters)'
        )
    return ', '.join(texts)


def _multiples(runner: Runner, state: dict, changes: list[GroupChange]) -> str:
    """Changed parameter groups in words, by the parameters in them."""
    if not changes:
        return ''
    names = {id(p): name for name, p in unwrapped_model(runner).named_parameters()}
    texts = []
    for optimizer, index, setting, then, now in changes:
        part = state[optimizer] if optimizer else state
        group = part['param_groups'][index]['params']
        listed = some([names.get(id(p), f'group {index}') for p in group], 1)
        texts.append(f'{listed}: {setting} {then:g}, now {now:g}')
    return (
        'Parameter groups have other multiples of the learning rate or weight decay '
        f'than in the checkpoint ({some(texts, 4, "; ")})'
    )


def _forget_averages(runner: Runner, checkpoint: dict) -> None:
    """Take averaged weights out of a checkpoint, for those that were trained."""
    averaged = checkpoint.pop('ema_state_dict', None)
    if averaged is None:
        return
    # EMAHook swaps them where it saves.
    for key, value in averaged.items():
        if key.startswith('module.'):
            checkpoint['state_dict'][key[len('module.') :]] = value
    then = 'the average begins anew' if _averages(runner) else 'training goes on'
    runner.logger.warning(
        f'The averaged weights (EMA) of the checkpoint are left behind: {then}, from '
        'the weights that were trained.'
    )


def _averages(runner: Runner) -> bool:
    return any(isinstance(hook, EMAHook) for hook in runner.hooks)


def _teacher(runner: Runner) -> Teacher | None:
    """The teacher of FeatureDistill; those of others are in their checkpoints."""
    teacher = getattr(unwrapped_model(runner), '_teacher', None)
    return teacher if isinstance(teacher, Teacher) else None


def _is_measured_otherwise(differences: list[Difference]) -> bool:
    """Tell whether what level weights depend on is another one."""
    return any(d.decisive and _MEASURED_AGAINST.match(d.key) for d in differences)


def _tell_inherited(runner: Runner, checkpoint: dict) -> None:
    """Warn of weights that go over those which the student took from the teacher."""
    model = unwrapped_model(runner)
    inherited = model.inherit if isinstance(model, FeatureDistill) else ()
    given = checkpoint.get('state_dict', checkpoint)
    keys = [re.sub(r'^(module\.)?(architecture\.)?', '', key) for key in given]
    twice = [n for n in inherited if any(key.startswith(f'{n}.') for key in keys)]
    if twice and isinstance(runner._train_loop, BaseLoop):
        runner.logger.warning(
            f'load_from={runner._load_from!r} is loaded after what the student '
            f'inherits from the teacher, and has weights of {", ".join(twice)}, too: '
            'these count. Leave out one of the two: `load_from`, or the module in '
            '`inherit`.'
        )


def _check_measured(runner: Runner, checkpoint: dict) -> None:
    """Let a training that begins take no level weights that were measured otherwise."""
    distiller = getattr(unwrapped_model(runner), 'distiller', None)
    balances = isinstance(getattr(distiller, 'loss_weight', None), BalancedWeights)
    trains = isinstance(runner._train_loop, BaseLoop)
    given = checkpoint.get('state_dict', checkpoint)
    if not (trains and balances and any(map(_MEASURED.search, given))):
        return
    then = _described_in(runner, checkpoint.get('meta') or {})
    now = dict(describe_config(runner.cfg), **_describe_teacher(runner))
    differences = compare(then, now)
    # Without a digest of the weights, their source is all that tells of them.
    known = bool((then.get('teacher') or {}).get('sha256'))
    other = not known and any(d.key == 'teacher.source' for d in differences)
    if other or _is_measured_otherwise(differences):
        _forget_measured(runner, checkpoint)


def _forget_measured(runner: Runner, checkpoint: dict) -> None:
    """Take measured weights of levels out of a checkpoint."""
    position = checkpoint.get('position') or {}
    parts = [checkpoint.get('state_dict', checkpoint), checkpoint.get('ema_state_dict')]
    found = False
    for part in (*parts, *position.get('buffers', ())):
        for key in [key for key in part or () if _MEASURED.search(key)]:
            del part[key]
            found = True
    if found:
        runner.logger.warning(
            'The level weights of the checkpoint were measured against another teacher '
            'or distiller: they are left behind, and measured anew where `loss_weight` '
            'asks for that.'
        )


def _describe(runner: Runner) -> dict[str, Any]:
    """Describe the run. Every process has to call it."""
    return dict(describe_run(runner), **_describe_teacher(runner))


def _describe_teacher(runner: Runner) -> dict[str, Any]:
    """Describe the teacher, where there is one. Every process has to call it."""
    teacher = _teacher(runner)
    if teacher is None:
        return {}
    digest: list[str | None] = [None]
    if teacher.has_weights and is_main_process():
        digest = [hash_weights(teacher.model)]
    broadcast_object_list(digest)
    told = dict(
        source=teacher.source,
        path=teacher.path,
        sha256=digest[0],
        # What it makes of the student's batch.
        input=teacher.input.extra_repr(),
    )
    return dict(teacher=told)


def _described_in(runner: Runner, meta: dict) -> dict[str, Any]:
    """What a checkpoint says, by its entry or by the config in it."""
    # Other hooks may have added to it.
    if 'versions' in meta.get('mmfakd', {}):
        return meta['mmfakd']
    try:
        if 'cfg' not in meta:
            raise ValueError('it holds no config, or one that was left out')
        cfg = read_config_text(meta['cfg'])
    except ValueError as error:
        runner.logger.warning(
            f'The checkpoint does not say what it comes from ({error}): it cannot be '
            'compared with this run.'
        )
        return {}
    described = describe_config(cfg)
    if 'model' in described:
        source = cfg.model.get('teacher_ckpt')
        is_path = re.search(r'^(?!.*://).*\.pth$', source or '')
        path = osp.abspath(osp.expanduser(source)) if is_path else None
        described['teacher'] = dict(source=source, path=path)
    return described


def _consequences(then: dict[str, Any], now: dict[str, Any]) -> str:
    """What follows from another total batch."""
    total, before = now['total_batch'], then.get('total_batch', now['total_batch'])
    if total == before:
        return ''
    return (
        f'The total batch of {before} ({then["processes"]} processes x {then["batch"]}'
        f' x accumulation {then["accumulation"]}) is {total} now, {total / before:g} '
        "times that. Without --lr or --auto-scale-lr the checkpoint's learning rate "
        f'stays in force; scaled likewise it would be {total / before:g} times that.'
    )
