# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""What a checkpoint says of itself, and resuming with something changed."""

import os
import shutil

import pytest
import torch
from mmengine.hooks import EMAHook, Hook
from mmengine.registry import HOOKS, MODELS

from mmfakd.compat import load_checkpoint_file
from mmfakd.compat.families import families_in
from mmfakd.compat.versions import installed_versions
from mmfakd.engine.provenance import hash_weights
from mmfakd.version import __version__
from tests.helpers.tiny_runs import (
    distillation,
    run_config,
    save_teacher,
    student,
    teacher,
    train,
)
from tests.helpers.toy import review_distiller

SCHEDULE = [dict(type='MultiStepLR', milestones=[1], gamma=0.1, end=5)]


@pytest.fixture(scope='module')
def first(tmp_path_factory):
    """Folder of a teacher `teacher.pth` and the first epoch of a run, `epoch_1.pth`."""
    folder = tmp_path_factory.mktemp('läufe')
    save_teacher(folder)
    train(config(folder))
    return folder


@pytest.fixture
def run(first, tmp_path):
    """A copy of that folder, whose checkpoint names the teacher of the first."""
    folder = tmp_path / 'run'
    shutil.copytree(first, folder)
    return folder


def config(folder, hook=None, epochs=1, model=None, **kwargs):
    hooks = [dict(dict(type='mmfakd.ProvenanceHook'), **(hook or {}))]
    model = model or distillation(str(folder / 'teacher.pth'))
    kwargs.setdefault('param_scheduler', SCHEDULE)
    return run_config(folder, model, epochs=epochs, hooks=hooks, **kwargs)


def resume(folder, hook=None, model=None, **kwargs):
    checkpoint = str(folder / 'epoch_1.pth')
    settings = dict(resume=True, load_from=checkpoint, **kwargs)
    return train(config(folder, hook, epochs=2, model=model, **settings))


def edit(folder, change):
    """Change what stands in the checkpoint."""
    path = folder / 'epoch_1.pth'
    checkpoint = load_checkpoint_file(path)
    change(checkpoint)
    torch.save(checkpoint, path)


def forget(folder):
    """Make the checkpoint one of before there was provenance."""
    edit(folder, lambda checkpoint: checkpoint['meta'].pop('mmfakd'))


def tables(lines):
    return [line for line in lines if 'This run is not the one' in line]


def test_entry(first):
    entry = load_checkpoint_file(first / 'epoch_1.pth')['meta']['mmfakd']
    path = str(first / 'teacher.pth')
    model = MODELS.build(teacher())
    model.load_state_dict(torch.load(path)['state_dict'])
    told = entry['teacher']
    assert told.pop('input') == 'identity, flip=False'
    assert told == dict(source=path, path=path, sha256=hash_weights(model))
    assert entry['model']['distiller'] == review_distiller(width=2, teacher_width=4)
    assert entry['model']['teacher']['backbone']['depth'] == 18
    assert entry['optimizer'] == dict(type='SGD', lr=0.05, momentum=0.9)
    sizes = [entry[k] for k in ('processes', 'batch', 'accumulation', 'total_batch')]
    assert sizes == [1, 10, 1, 10]
    assert entry['versions']['mmfakd'] == __version__
    (family,) = families_in(installed_versions())
    known = {'mmfakd', 'torch', 'mmrazor', *family.installed(installed_versions())}
    assert entry['versions'].keys() == known

    def kinds(value):
        yield type(value)
        if isinstance(value, (dict, list)):
            for part in value.values() if isinstance(value, dict) else value:
                yield from kinds(part)

    assert set(kinds(entry)) <= {dict, list, str, int, float, bool, type(None)}


def test_plain_model(tmp_path):
    train(config(tmp_path, model=student()))
    entry = load_checkpoint_file(tmp_path / 'epoch_1.pth')['meta']['mmfakd']
    sizes = {'processes', 'batch', 'accumulation', 'total_batch'}
    learned = {'student', 'data', 'preprocessor', 'clip_grad', 'hooks', 'optimizer'}
    assert entry.keys() == {*sizes, *learned, 'precision', 'versions'}
    assert entry['precision'] == 'float32'


def test_nothing_changed(first, run, lines):
    model = distillation(str(first / 'teacher.pth'))
    assert resume(run, model=model).epoch == 2
    assert not tables(lines)


@pytest.mark.parametrize('known', [True, False])
def test_student_and_images(known, first, run, lines):
    """What else is learned by is told, of older checkpoints by the config in them."""
    if not known:
        forget(run)
    model = distillation(str(first / 'teacher.pth'))
    model['architecture']['head']['loss']['loss_weight'] = 0.5
    images = dict(num_classes=10, mean=[70.0], std=[95.9], to_rgb=False)
    assert resume(run, model=model, data_preprocessor=images).epoch == 2
    (table,) = tables(lines)
    rows = sorted(line.split()[0] for line in table.strip().splitlines()[2:])
    assert rows == ['preprocessor.mean', 'student.head.loss.loss_weight']


def other_teacher(run):
    """Write another teacher."""
    path = run / 'teacher.pth'
    weights = torch.load(path)
    weights['state_dict']['head.fc.bias'] += 1
    torch.save(weights, path)


def test_another_teacher(run, lines):
    other_teacher(run)
    with pytest.raises(ValueError, match=r'another training. teacher.sha256: \w{12}, '):
        resume(run)
    (table,) = tables(lines)
    rows = [line.split()[0] for line in table.splitlines()[1:]]
    assert rows == ['setting', 'teacher.source', 'teacher.sha256']
    runner = resume(run, hook=dict(allow_changes=True))
    assert runner.epoch == 2
    # What the checkpoint says from now on.
    entry = load_checkpoint_file(run / 'epoch_2.pth')['meta']['mmfakd']
    assert entry['teacher']['sha256'] == hash_weights(runner.model.teacher)


def test_moved_teacher_is_the_same(run, lines):
    assert resume(run).epoch == 2
    (table,) = tables(lines)
    assert [line.split()[0] for line in table.splitlines()[2:]] == ['teacher.source']


def fewer_levels():
    cfg = review_distiller(width=2, teacher_width=4)
    for part, keys in (
        (cfg, ['student_levels', 'teacher_levels']),
        (cfg['connector'], ['in_channels', 'out_channels', 'sizes']),
    ):
        part.update({key: part[key][1:] for key in keys})
    return cfg


@pytest.mark.parametrize('known', [True, False])
def test_other_levels(known, run, lines):
    """Also in a checkpoint that tells its config alone."""
    if not known:
        forget(run)
    model = distillation(str(run / 'teacher.pth'), distiller=fewer_levels())
    with pytest.raises(ValueError, match='model.distiller.student_levels: .*layer1'):
        resume(run, model=model)
    lines.clear()
    runner = resume(run, hook=dict(allow_changes=True), model=model)
    (text,) = [line for line in lines if line.startswith('Weights do not fit')]
    assert 'not in the model: distiller.connectors' in text
    assert 'They start anew, and so does the state of the optimizer' in text
    # The schedule went on, although the optimizer is a new one.
    assert runner.epoch == 2
    assert runner.optim_wrapper.get_lr()['lr'][0] == pytest.approx(0.005)


def test_weights_of_losses_and_warmup_are_told(run, lines):
    distiller = review_distiller(
        width=2, teacher_width=4, loss_weight=0.1, warmup=dict(begin=0, end=3)
    )
    resume(run, model=distillation(str(run / 'teacher.pth'), distiller=distiller))
    (table,) = tables(lines)
    assert 'model.distiller.loss_weight' in table and 'another training' not in table
    assert 'model.distiller.warmup.end' in table


def test_other_losses(run):
    model = distillation(str(run / 'teacher.pth'), calculate_student_loss=False)
    with pytest.raises(ValueError, match='calculate_student_loss: -, now False'):
        resume(run, model=model)


@pytest.mark.parametrize('known', [True, False])
def test_teacher_is_found_again(known, first, run, lines):
    if not known:
        forget(run)
    runner = resume(run, model=distillation(None))
    path = str(first / 'teacher.pth')
    assert f'The teacher is the one that training began with: {path}' in lines
    assert not any('NO WEIGHTS' in line for line in lines)
    assert runner.model._teacher.source == path
    assert not tables(lines)


@pytest.mark.parametrize('known', [True, False])
def test_teacher_that_is_gone(known, run):
    gone = str(run / 'gone.pth')

    def change(checkpoint):
        meta = checkpoint['meta']
        if known:
            meta['mmfakd']['teacher'].update(source='gone.pth', path=gone)
        else:
            source = meta.pop('mmfakd')['teacher']['source']
            meta['cfg'] = meta['cfg'].replace(source, gone)

    edit(run, change)
    with pytest.raises(FileNotFoundError) as error:
        resume(run, model=distillation(None))
    text = str(error.value)
    assert gone in text and '--teacher-ckpt' in text and 'is gone' in text


def test_teacher_in_another_current_folder(run, monkeypatch):
    """It was given by a path from there."""
    edit(run, lambda c: c['meta']['mmfakd']['teacher'].update(source='teacher.pth'))
    runner = resume(run, model=distillation(None))
    recalled = runner.model._teacher.ckpt
    assert os.path.isabs(recalled)
    monkeypatch.chdir(os.path.dirname(recalled))
    assert resume(run, model=distillation(None)).model._teacher.ckpt == 'teacher.pth'


def test_replaced_teacher_is_not_taken_again(run):
    path = str(run / 'teacher.pth')
    change = dict(source=path, path=path)
    edit(run, lambda c: c['meta']['mmfakd']['teacher'].update(change))
    other_teacher(run)
    with pytest.raises(ValueError, match='another training. teacher.sha256'):
        resume(run, model=distillation(None))


def test_config_that_cannot_be_read(run, lines):
    def change(checkpoint):
        checkpoint['meta'].pop('mmfakd')
        checkpoint['meta']['cfg'] = "import os\nmodel = os.system('false')\n"

    edit(run, change)
    assert resume(run).epoch == 2
    assert any('does not say what it comes from' in line for line in lines)


def test_weights_that_do_not_fit(run, lines):
    def change(checkpoint):
        state = checkpoint['state_dict']
        state['architecture.head.fc.offset'] = state.pop('architecture.head.fc.bias')
        state['architecture.head.fc.weight'] = torch.zeros(7, 8)

    edit(run, change)
    with pytest.raises(ValueError, match='Weights do not fit: ') as error:
        resume(run)
    for text in (
        '1 not in the checkpoint: architecture.head.fc.bias;',
        '1 not in the model: architecture.head.fc.offset;',
        'head.fc.weight [7, 8] in the checkpoint, [10, 8] in the model',
        '--allow-changes',
    ):
        assert text in str(error.value)
    assert resume(run, hook=dict(allow_changes=True)).epoch == 2


def test_another_batch_and_version(run, lines):
    def change(checkpoint):
        entry = checkpoint['meta']['mmfakd']
        entry.update(processes=4, total_batch=40)
        entry['versions']['torch'] = '1.0'

    edit(run, change)
    assert resume(run).epoch == 2
    (text,) = tables(lines)
    assert 'versions.torch' in text and 'processes' in text
    batch = 'The total batch of 40 (4 processes x 10 x accumulation 1) is 10 now, 0.25 '
    assert batch in text
    assert '--lr' in text and '--auto-scale-lr' in text


def test_another_optimizer(run):
    wrapper = dict(optimizer=dict(type='AdamW', lr=0.05))
    with pytest.raises(ValueError, match='optimizer.type: SGD, now AdamW'):
        resume(run, optim_wrapper=wrapper)
    runner = resume(run, hook=dict(allow_changes=True), optim_wrapper=wrapper)
    assert runner.epoch == 2
    assert runner.optim_wrapper.get_lr()['lr'][0] == pytest.approx(0.005)


def test_other_parameter_groups(run, lines):
    settings = dict(custom_keys={'backbone': dict(lr_mult=0.0)})
    wrapper = dict(
        optimizer=dict(type='SGD', lr=0.05, momentum=0.9), paramwise_cfg=settings
    )
    match = r'has 1 parameter groups \(\d+ parameters\), .* \(1, 1, 1, 1, 1, 1 and \d+'
    with pytest.raises(ValueError, match=f'{match}.*paramwise_cfg.*--allow-changes'):
        resume(run, optim_wrapper=wrapper)
    runner = resume(run, hook=dict(allow_changes=True), optim_wrapper=wrapper)
    assert runner.epoch == 2
    # The schedule went on, also behind a group that does not learn.
    rates = {round(g['lr'], 9) for g in runner.optim_wrapper.param_groups}
    assert rates == {0.0, 0.005}
    os.replace(run / 'epoch_2.pth', run / 'epoch_1.pth')
    wrapper.pop('paramwise_cfg')
    runner = train(
        config(
            run,
            dict(allow_changes=True),
            epochs=3,
            resume=True,
            load_from=str(run / 'epoch_1.pth'),
            optim_wrapper=wrapper,
        )
    )
    assert runner.optim_wrapper.get_lr()['lr'][0] == pytest.approx(0.005)


@pytest.mark.parametrize('missing', [['optimizer'], ['param_schedulers']])
def test_states_that_are_missing(missing, run, lines):
    """The schedule does not begin anew without a word, nor go on without its rate."""
    edit(run, lambda checkpoint: [checkpoint.pop(key) for key in missing])
    match = rf'epoch_1.pth lacks the state .*`{missing[0]}`.*--allow-changes'
    with pytest.raises(ValueError, match=match):
        resume(run)
    hooks = dict(resume=dict(type='mmfakd.ResumeHook'))
    with pytest.raises(ValueError, match=match):
        resume(run, default_hooks=hooks)
    runner = resume(run, hook=dict(allow_changes=True), default_hooks=hooks)
    assert runner.epoch == 2
    (text,) = [line for line in lines if line.startswith('The checkpoint lacks')]
    assert 'Optimizer and schedule start anew' in text
    # One epoch of it is over.
    assert runner.param_schedulers[0].last_step == 1
    assert runner.optim_wrapper.get_lr()['lr'][0] == pytest.approx(0.005)


@pytest.mark.parametrize('schedule', [None, [], SCHEDULE])
def test_nothing_is_missing(schedule, tmp_path, lines):
    """Trainings without a schedule have no state of one."""
    schedule = dict(param_scheduler=schedule)
    train(config(tmp_path, model=student(), **schedule))
    assert resume(tmp_path, model=student(), **schedule).epoch == 2
    assert not any('lacks' in line for line in lines)


def paramwise(lr=0.05, decay=0.01, **head):
    optimizer = dict(type='SGD', lr=lr, momentum=0.9, weight_decay=decay)
    keys = dict(head=dict(dict(lr_mult=2.0), **head))
    settings = dict(norm_decay_mult=0.0, custom_keys=keys)
    return dict(optim_wrapper=dict(optimizer=optimizer, paramwise_cfg=settings))


@pytest.fixture(scope='module')
def in_groups(tmp_path_factory):
    """Folder of the first epoch of a plain run whose head learns at twice the rate."""
    folder = tmp_path_factory.mktemp('groups')
    train(config(folder, model=student(), **paramwise()))
    return folder


@pytest.mark.parametrize(
    'head, text',
    [
        (dict(lr_mult=10.0), 'head.fc.weight: lr 0.1, now 0.5; head.fc.bias: lr 0.1'),
        (dict(decay_mult=0.0), 'head.fc.weight: weight_decay 0.01, now 0;'),
    ],
)
def test_other_multiples(head, text, in_groups, tmp_path, lines):
    """The groups are as many, and their settings others."""
    folder = shutil.copytree(in_groups, tmp_path / 'run')
    settings = dict(model=student(), **paramwise(**head))
    match = rf'other multiples .*\({text}.*`paramwise_cfg`.*--allow-changes'
    with pytest.raises(ValueError, match=match):
        resume(folder, **settings)
    runner = resume(folder, hook=dict(allow_changes=True), **settings)
    (told,) = [line for line in lines if line.startswith('Parameter groups')]
    assert 'starts anew, with the settings of the config' in told
    # They count from now on, within the schedule.
    last = runner.optim_wrapper.optimizer.param_groups[-1]
    assert last['lr'] == pytest.approx(0.005 * head.get('lr_mult', 2.0))
    assert last['weight_decay'] == 0.01 * head.get('decay_mult', 1.0)
    # And a resume of that with the same config has nothing to say.
    os.replace(folder / 'epoch_2.pth', folder / 'epoch_1.pth')
    lines.clear()
    assert resume(folder, **settings).epoch == 2
    assert not any(line.startswith('Parameter groups') for line in lines)


@pytest.mark.parametrize('changed', [{}, dict(lr=0.01), dict(decay=0.0), dict(decay=1)])
def test_multiples_of_another_base(changed, in_groups, tmp_path, lines):
    """As `--resume --lr` gives one."""
    folder = shutil.copytree(in_groups, tmp_path / 'run')
    rate = dict(type='mmfakd.LearningRateHook', from_config=True)
    settings = dict(default_hooks=dict(learning_rate=rate), **paramwise(**changed))
    runner = resume(folder, model=student(), **settings)
    assert not any(line.startswith('Parameter groups') for line in lines)
    rates = {group['lr'] for group in runner.optim_wrapper.param_groups}
    base = 0.1 * changed.get('lr', 0.05)
    assert sorted(rates) == pytest.approx([base, 2 * base])


EMA_HOOKS = ['mmengine.EMAHook', 'mmpretrain.EMAHook']


@HOOKS.register_module(force=True)
class InheritedEMAHook(EMAHook):
    """As of a user."""


@pytest.mark.parametrize('kind', [*EMA_HOOKS, 'mmengine.InheritedEMAHook'])
def test_averaged_weights_that_nobody_takes(kind, tmp_path, lines):
    """The file has them in the place of the trained ones."""
    ema = dict(type=kind, momentum=0.5)

    def run(cfg, *hooks):
        cfg.custom_hooks.extend(hooks)
        seen = Weights()
        return train(cfg, seen), seen.first

    plain = dict(model=student())
    first, _ = run(config(tmp_path, **plain), ema)
    plain.update(epochs=2, resume=True, load_from=str(tmp_path / 'epoch_1.pth'))
    lines.clear()
    _, kept = run(config(tmp_path, **plain), ema)
    assert not any('averaged weights' in line for line in lines)
    with pytest.raises(ValueError, match='config has no EMAHook.*--allow-changes'):
        run(config(tmp_path, **plain))
    _, begun = run(config(tmp_path, dict(allow_changes=True), **plain))
    (text,) = [line for line in lines if 'averaged weights (EMA)' in line]
    assert 'left behind: training goes on, from the weights that were trained' in text
    trained = first.model.state_dict()
    for weights in (kept, begun):
        assert all(torch.equal(trained[key], value) for key, value in weights.items())


@pytest.mark.parametrize('kind', EMA_HOOKS)
def test_average_that_begins(kind, run, lines):
    cfg = config(run, epochs=2, resume=True, load_from=str(run / 'epoch_1.pth'))
    cfg.custom_hooks.append(dict(type=kind))
    assert train(cfg).epoch == 2
    assert any('has no averaged weights (EMA): the average begins' in m for m in lines)


@pytest.mark.parametrize('kind', EMA_HOOKS)
def test_averaged_weights_that_do_not_fit(kind, tmp_path, lines):
    save_teacher(tmp_path)

    def run(**settings):
        cfg = config(tmp_path, **settings)
        cfg.custom_hooks.insert(0, dict(type=kind, momentum=0.5))
        seen = Weights()
        return train(cfg, seen), seen.first

    first, _ = run()
    settings = dict(epochs=2, resume=True, load_from=str(tmp_path / 'epoch_1.pth'))
    distiller = dict(distiller=fewer_levels())
    model = distillation(str(tmp_path / 'teacher.pth'), **distiller)
    second, begun = run(hook=dict(allow_changes=True), model=model, **settings)
    assert second.epoch == 2
    assert any('the average begins anew' in line for line in lines)
    # It goes on from what was trained, not from the average.
    trained = first.model.architecture.state_dict()
    assert all(torch.equal(trained[key], value) for key, value in begun.items())


class Weights(Hook):
    """Keeps the student's weights of the first step."""

    first = None

    def before_train_iter(self, runner, *args, **kwargs):
        if self.first is None:
            state = getattr(runner.model, 'architecture', runner.model).state_dict()
            self.first = {key: value.clone() for key, value in state.items()}


def kd(folder):
    """A distillation that has no weights of its own, so that a student's fit."""
    logits = dict(type='mmrazor.ModuleOutputs', source='head.fc')
    forward = {
        f'preds_{letter}': dict(from_student=letter == 'S', recorder='logits')
        for letter in 'ST'
    }
    distiller = dict(
        type='mmrazor.ConfigurableDistiller',
        student_recorders=dict(logits=logits),
        teacher_recorders=dict(logits=logits),
        distill_losses=dict(loss_kd=dict(type='mmrazor.KLDivergence', tau=4)),
        loss_forward_mappings=dict(loss_kd=forward),
    )
    return distillation(str(folder / 'teacher.pth'), distiller=distiller)


@pytest.mark.parametrize('known', [True, False])
@pytest.mark.parametrize('plain_first', [True, False])
def test_plain_training_and_distillation(tmp_path, plain_first, known):
    save_teacher(tmp_path)
    models = [student(), kd(tmp_path)]
    first, then = models if plain_first else models[::-1]
    train(config(tmp_path, model=first))
    if not known:
        forget(tmp_path)
    with pytest.raises(ValueError, match='another training. model: .*, now '):
        resume(tmp_path, model=then)
    assert resume(tmp_path, dict(allow_changes=True), then).epoch == 2


def test_plain_checkpoint_that_says_nothing(tmp_path, lines):
    save_teacher(tmp_path)
    train(config(tmp_path, model=student()))
    edit(
        tmp_path,
        lambda checkpoint: checkpoint.update(
            meta={
                key: value
                for key, value in checkpoint['meta'].items()
                if key not in ('mmfakd', 'cfg')
            }
        ),
    )
    assert resume(tmp_path, model=kd(tmp_path)).epoch == 2


def test_first_start_says_nothing(tmp_path, lines):
    save_teacher(tmp_path)
    train(config(tmp_path))
    assert not tables(lines)


@pytest.mark.parametrize('part', ['head', 'backbone', 'architecture.head'])
def test_load_from_goes_over_what_is_inherited(part, tmp_path, lines):
    weights = MODELS.build(student()).state_dict()
    torch.save(dict(state_dict=weights), tmp_path / 'teacher.pth')
    prefix, _, name = part.rpartition('.')
    kept = {
        f'{prefix}.{key}'.lstrip('.'): value
        for key, value in weights.items()
        if key.startswith(name)
    }
    torch.save(dict(state_dict=kept), tmp_path / 'start.pth')
    model = distillation(
        str(tmp_path / 'teacher.pth'),
        teacher=student(),
        distiller=review_distiller(width=2, teacher_width=2),
        inherit=['head'],
    )
    train(config(tmp_path, model=model, load_from=str(tmp_path / 'start.pth')))
    told = [line for line in lines if 'inherits from the teacher' in line]
    assert len(told) == (name == 'head')
    assert all('has weights of head, too: these count' in line for line in told)
