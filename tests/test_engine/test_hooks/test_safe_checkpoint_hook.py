# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""At every moment there is a complete checkpoint, and nothing is left behind."""

import os
import re
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.runner import Runner

from mmfakd.checkpoints.latest import find_checkpoint
from mmfakd.compat import load_checkpoint_file
from mmfakd.engine.hooks import SafeCheckpointHook
from mmfakd.engine.launch import merge_train_options
from tests.helpers.tiny_runs import distillation, run_config, student, train


def config(work_dir, teacher_ckpt, scores=None, hooks=(), checkpoint=None, **kwargs):
    hooks = [
        dict(type='mmfakd.ResumeHook'),
        dict(type='mmfakd.StudentCheckpointHook'),
        *hooks,
    ]
    checkpoint = dict(dict(max_keep_ckpts=1), **(checkpoint or {}))
    if scores:
        checkpoint.update(save_best='score', rule='greater')
        kwargs['validate'] = True
    cfg = run_config(
        work_dir,
        distillation(teacher_ckpt),
        hooks=hooks,
        checkpoint=checkpoint,
        **kwargs,
    )
    cfg.default_hooks.checkpoint.type = 'mmfakd.SafeCheckpointHook'
    if scores:
        cfg.val_evaluator = dict(type='ScriptedScore', counter='epoch', score=scores)
    return cfg


def names(folder):
    files = (file for file in Path(folder).iterdir() if file.is_file())
    return {file.name for file in files if file.suffix != '.py'} - {'training.lock'}


@pytest.fixture
def operations(monkeypatch):
    """What is renamed and removed, and which checkpoint was newest just before."""
    seen = []

    def watch(name):
        real = getattr(os, name)

        def wrapped(path, *args, **kwargs):
            if name == 'remove':
                folder = os.path.dirname(path)
                seen.append((name, os.path.basename(path), find_checkpoint(folder)))
            else:
                seen.append((name, os.path.basename(args[0])))
            return real(path, *args, **kwargs)

        monkeypatch.setattr(os, name, wrapped)

    watch('replace')
    watch('remove')
    return seen


def test_the_order_of_things(operations, work_dir, teacher_ckpt):
    train(config(work_dir, teacher_ckpt, scores=[1.0, 2.0]))
    second = operations[operations.index(('replace', 'epoch_2.pth')) :]
    assert [op[:2] for op in second] == [
        ('replace', 'epoch_2.pth'),
        ('replace', 'last_checkpoint'),
        ('replace', 'epoch_2_student.pth'),
        ('remove', 'epoch_1.pth'),
        ('remove', 'epoch_1_student.pth'),
        # The validation finds a new best.
        ('replace', 'best_score_epoch_2.pth'),
        ('replace', 'epoch_2.pth'),
        ('replace', 'last_checkpoint'),
        ('replace', 'best_score_epoch_2_student.pth'),
        ('replace', 'epoch_2_student.pth'),
        ('remove', 'best_score_epoch_1.pth'),
        ('remove', 'best_score_epoch_1_student.pth'),
    ]
    for _, _, found in (op for op in second if op[0] == 'remove'):
        assert found.path.endswith('epoch_2.pth') and not found.skipped
    assert names(work_dir) == {
        'epoch_2.pth',
        'epoch_2_student.pth',
        'best_score_epoch_2.pth',
        'best_score_epoch_2_student.pth',
        'last_checkpoint',
    }
    assert Path(work_dir, 'last_checkpoint').read_text().endswith('epoch_2.pth')


def test_a_constant_name_is_written_anew(work_dir, teacher_ckpt):
    cfg = config(
        work_dir,
        teacher_ckpt,
        scores=[1.0, 2.0, 3.0],
        epochs=3,
        checkpoint=dict(filename_tmpl='latest.pth'),
    )
    train(cfg)
    assert names(work_dir) == {
        'latest.pth',
        'latest_student.pth',
        'best_score_latest.pth',
        'best_score_latest_student.pth',
        'last_checkpoint',
    }


class Kill(BaseException):
    """What nothing catches."""


@pytest.mark.parametrize(
    'operation, name',
    [
        ('remove', 'epoch_2.pth'),
        ('remove', 'epoch_2_student.pth'),
        ('remove', 'best_score_epoch_2.pth'),
        ('replace', 'epoch_3_student.pth'),
        ('replace', 'best_score_epoch_3.pth'),
        ('replace', 'last_checkpoint'),
    ],
)
def test_what_a_killed_run_leaves_is_tidied_up(
    operation, name, tmp_path, teacher_ckpt, monkeypatch
):
    def make(work_dir, **kwargs):
        scores = [1.0, 2.0, 3.0, 4.0]
        return config(work_dir, teacher_ckpt, scores=scores, epochs=4, **kwargs)

    real = getattr(os, operation)

    def killed(*paths):
        third = name != 'last_checkpoint' or (tmp_path / 'run/epoch_3.pth').exists()
        if os.path.basename(paths[-1]) == name and third:
            raise Kill
        return real(*paths)

    with monkeypatch.context() as patch:
        patch.setattr(os, operation, killed)
        with pytest.raises(Kill):
            train(make(tmp_path / 'run'))
    train(make(tmp_path / 'run', resume=True))
    assert names(tmp_path / 'run') == {
        'epoch_4.pth',
        'epoch_4_student.pth',
        'best_score_epoch_4.pth',
        'best_score_epoch_4_student.pth',
        'last_checkpoint',
    }


@pytest.mark.parametrize(
    'named', [['{}/victim'], ['../victim'], ['notes', 'epoch_7.pth']], ids=str
)
def test_a_strangers_checkpoint_removes_nothing_of_others(
    named, tmp_path, teacher_ckpt
):
    """What it had still to remove is its own: a checkpoint in the folder."""
    work_dir = tmp_path / 'run'
    train(config(work_dir, teacher_ckpt, epochs=1))
    for folder in (tmp_path / 'victim', work_dir / 'notes'):
        folder.mkdir()
        (folder / 'precious.txt').touch()
    (work_dir / 'epoch_7.pth').touch()
    checkpoint = torch.load(work_dir / 'epoch_1.pth', weights_only=False)
    outdated = [name.format(tmp_path) for name in named]
    checkpoint['message_hub']['runtime_info']['outdated_ckpts'] = outdated
    torch.save(checkpoint, work_dir / 'epoch_1.pth')
    train(config(work_dir, teacher_ckpt, epochs=2, resume=True))
    assert (tmp_path / 'victim' / 'precious.txt').exists()
    assert (work_dir / 'notes' / 'precious.txt').exists()
    assert (work_dir / 'epoch_7.pth').exists() == ('epoch_7.pth' not in named)


def test_parts_of_others_stay(tmp_path, teacher_ckpt):
    left = ['epoch_9.pth.part', 'epoch_9_student.pth.part', 'last_checkpoint.part']
    # Of `mmfakd export` at the same time, on any machine.
    others = {'film.part', 'epoch_1_student.pth.0123abcd-4567cdef.part'}
    for name in (*left, *others):
        (tmp_path / name).touch()
    train(config(tmp_path, teacher_ckpt, epochs=1))
    assert {name for name in names(tmp_path) if '.part' in name} == others


def test_a_moved_folder_is_resumed_where_it_is(tmp_path, teacher_ckpt):
    """Nothing of the old place is touched, not even by the best checkpoint's path."""
    old, new = tmp_path / 'old', tmp_path / 'new'
    train(config(old, teacher_ckpt, scores=[1.0], epochs=1))
    shutil.copytree(old, new)
    before = names(old)
    cfg = config(new, teacher_ckpt, scores=[1.0, 2.0], epochs=2, resume=True)
    runner = train(cfg)
    assert names(old) == before
    assert names(new) == {
        'epoch_2.pth',
        'epoch_2_student.pth',
        'best_score_epoch_2.pth',
        'best_score_epoch_2_student.pth',
        'last_checkpoint',
    }
    info = runner.message_hub.runtime_info
    assert info['best_ckpt'] == str(new / 'best_score_epoch_2.pth')


@pytest.mark.parametrize('moved', [False, True])
def test_the_best_of_another_folder(moved, tmp_path, teacher_ckpt, lines):
    """Resumed from there, it is named, and nothing points to a file that is not."""
    old, new = tmp_path / 'old', tmp_path / 'new'
    published = dict(checkpoint=dict(published_keys=['state_dict']))
    train(config(old, teacher_ckpt, scores=[2.0], epochs=1))
    if moved:
        old = old.rename(tmp_path / 'earlier')
    before = names(old)
    settings = dict(resume=True, load_from=str(old / 'epoch_1.pth'), **published)
    cfg = config(new, teacher_ckpt, scores=[2.0, 1.0], epochs=2, **settings)
    runner = train(cfg)
    best = old / 'best_score_epoch_1.pth'
    text = f'The best checkpoint so far, {best.name}, stays at {best}. {new} has none'
    assert any(line.startswith(text) for line in lines)
    assert runner.message_hub.runtime_info['best_ckpt'] is None
    assert names(old) == before
    cfg = config(new, teacher_ckpt, scores=[2.0, 1.0, 3.0], epochs=3, resume=True)
    runner = train(cfg)
    expected = str(new / 'best_score_epoch_3.pth')
    assert runner.message_hub.runtime_info['best_ckpt'] == expected
    assert os.path.isfile(expected) and names(old) == before


def judged(work_dir, save_best, epochs, scores=None, **kwargs):
    """A plain run, whose two scores are of two scales."""
    checkpoint = dict(save_best=save_best, rule='greater', max_keep_ckpts=1)
    hooks = [dict(type='mmfakd.ResumeHook')]
    settings = dict(validate=True, epochs=epochs, hooks=hooks, **kwargs)
    cfg = run_config(work_dir, student(), checkpoint=checkpoint, **settings)
    cfg.default_hooks.checkpoint.type = 'mmfakd.SafeCheckpointHook'
    scores = scores or {
        'm/big': [90.0, 91.0, 92.0, 91.0],
        'small': [0.1, 0.3, 0.2, 0.1],
    }
    cfg.val_evaluator = dict(type='ScriptedScore', counter='epoch', **scores)
    return cfg


def bests(folder):
    return sorted(name for name in names(folder) if name.startswith('best'))


@pytest.fixture(scope='module')
def by_big(tmp_path_factory):
    """A run of an epoch that was judged by the one score, and noted it."""
    folder = tmp_path_factory.mktemp('big')
    train(judged(folder, 'm/big', 1))
    return folder


def without_note(folder):
    """Make its checkpoint one of an earlier version."""
    checkpoint = load_checkpoint_file(folder / 'epoch_1.pth')
    assert checkpoint['message_hub']['runtime_info'].pop('best_of') == ['m/big']
    torch.save(checkpoint, folder / 'epoch_1.pth')


@pytest.mark.parametrize('noted', [True, False])
@pytest.mark.parametrize('first', ['m/big', 'auto'])
def test_the_best_by_another_metric(first, noted, tmp_path, by_big, lines):
    """It begins anew, and that of the metric before stays."""
    shutil.copytree(by_big, tmp_path / 'run')
    if not noted:
        without_note(tmp_path / 'run')
    # As long as it is the same metric, nothing is said.
    runner = train(judged(tmp_path / 'run', first, 2, resume=True))
    assert bests(tmp_path / 'run') == ['best_m_big_epoch_2.pth']
    assert runner.message_hub.get_info('best_of') == ['m/big']
    assert not [line for line in lines if 'save_best was' in line]
    runner = train(judged(tmp_path / 'run', 'small', 4, resume=True))
    assert bests(tmp_path / 'run') == [
        'best_m_big_epoch_2.pth',
        'best_small_epoch_3.pth',
    ]
    info = runner.message_hub.runtime_info
    assert (info['best_of'], info['best_score']) == (['small'], 0.2)
    assert [line for line in lines if 'save_best was' in line] == [
        'save_best was m/big, is small now. The best checkpoint so far, '
        'best_m_big_epoch_2.pth, stays. The best of small begins here.'
    ]


def test_the_best_by_a_metric_that_is_found_out(tmp_path, by_big, lines):
    """`auto` is known at the first validation: the scores that come first are new."""
    shutil.copytree(by_big, tmp_path / 'run')
    scores = {'small': [0.1, 0.3, 0.2], 'm/big': [90.0, 91.0, 92.0]}
    train(judged(tmp_path / 'run', 'auto', 3, scores, resume=True))
    assert bests(tmp_path / 'run') == [
        'best_m_big_epoch_1.pth',
        'best_small_epoch_2.pth',
    ]
    (said,) = [line for line in lines if 'save_best was' in line]
    assert said.startswith('save_best was m/big, is small now. The best checkpoint so')


def test_several_metrics_and_one(tmp_path, by_big, lines):
    """What is named before and now goes on."""
    shutil.copytree(by_big, tmp_path / 'run')
    runner = train(judged(tmp_path / 'run', ['small', 'm/big'], 3, resume=True))
    info = runner.message_hub.runtime_info
    assert info['best_score_m/big'] == 92.0 and 'best_score' not in info
    # That of the first epoch was replaced.
    assert bests(tmp_path / 'run') == [
        'best_m_big_epoch_3.pth',
        'best_small_epoch_2.pth',
    ]
    assert not [line for line in lines if 'save_best was' in line]
    runner = train(judged(tmp_path / 'run', 'm/big', 4, resume=True))
    info = runner.message_hub.runtime_info
    assert info['best_score'] == 92.0
    assert info['best_ckpt'] == str(tmp_path / 'run' / 'best_m_big_epoch_3.pth')
    assert 'best_score_small' not in info
    assert [line for line in lines if 'save_best was' in line] == [
        'save_best was small, m/big, is m/big now. The best checkpoint so far, '
        'best_small_epoch_2.pth, stays.'
    ]


@pytest.mark.parametrize('noted', [True, False])
def test_the_best_by_another_metric_of_another_folder(noted, tmp_path, by_big, lines):
    """It is named where it was, and its name tells the metric."""
    shutil.copytree(by_big, tmp_path / 'old')
    if not noted:
        without_note(tmp_path / 'old')
    start = str(tmp_path / 'old' / 'epoch_1.pth')
    cfg = judged(tmp_path / 'run', 'small', 2, resume=True, load_from=start)
    train(cfg)
    assert bests(tmp_path / 'run') == ['best_small_epoch_2.pth']
    best = by_big / 'best_m_big_epoch_1.pth'
    assert any(f'{best.name}, stays at {best}' in line for line in lines)
    expected = 'save_best was m[/_]big, is small now. The best of small begins here.'
    assert any(re.fullmatch(expected, line) for line in lines)


def test_a_student_of_the_checkpoint_before_is_written_anew(work_dir, teacher_ckpt):
    """Killed between the two files, which are saved again behind a validation."""
    train(config(work_dir, teacher_ckpt))
    path = Path(work_dir, 'epoch_2_student.pth')
    student = load_checkpoint_file(path)
    student['meta']['epoch'] = 1
    torch.save(student, path)
    train(config(work_dir, teacher_ckpt, resume=True))
    assert load_checkpoint_file(path)['meta']['epoch'] == 2


def test_a_damaged_student_file_is_written_anew(work_dir, teacher_ckpt):
    train(config(work_dir, teacher_ckpt, checkpoint=dict(max_keep_ckpts=3)))
    whole = Path(work_dir, 'epoch_2_student.pth').read_bytes()
    Path(work_dir, 'epoch_2_student.pth').write_bytes(whole[:-200])
    # An older checkpoint that cannot be read stops nothing.
    Path(work_dir, 'epoch_1.pth').write_bytes(b'')
    Path(work_dir, 'epoch_1_student.pth').unlink()
    options = dict(checkpoint=dict(max_keep_ckpts=3), epochs=3, resume=True)
    train(config(work_dir, teacher_ckpt, **options))
    written = load_checkpoint_file(Path(work_dir, 'epoch_2_student.pth'))
    held = load_checkpoint_file(Path(work_dir, 'epoch_2.pth'))['state_dict']
    for key, value in written['state_dict'].items():
        assert torch.equal(value, held[f'architecture.{key}'])
    assert 'epoch_3.pth' in names(work_dir)


def test_published_files(work_dir, teacher_ckpt):
    published = dict(published_keys=['meta', 'state_dict'])
    train(config(work_dir, teacher_ckpt, scores=[2.0, 1.0], checkpoint=published))
    found = sorted(n for n in names(work_dir) if '-' in n)
    assert [n.partition('-')[0] for n in found] == ['best_score_epoch_1', 'epoch_2']
    for file in found:
        checkpoint = load_checkpoint_file(Path(work_dir, file))
        assert checkpoint.keys() == {'meta', 'state_dict'}


class SaveNow(Hook):
    """Saves after an iteration, as a hook does that ends the process."""

    priority = 'LOWEST'

    def __init__(self):
        self.seen = []

    def after_train_iter(self, runner, *args, **kwargs):
        hook = next(h for h in runner.hooks if hasattr(h, 'save_now'))
        if runner.iter == 2:
            self.seen += [hook.save_now(runner), names(runner.work_dir)]


def test_save_now(work_dir, teacher_ckpt):
    """Within an epoch; it has no student, and goes with the next checkpoint."""
    hook = SaveNow()
    train(config(work_dir, teacher_ckpt), hook)
    path, then = hook.seen
    assert path == str(Path(work_dir, 'interrupted.pth'))
    assert then == {
        'epoch_1.pth',
        'epoch_1_student.pth',
        'interrupted.pth',
        'last_checkpoint',
    }
    assert names(work_dir) == {'epoch_2.pth', 'epoch_2_student.pth', 'last_checkpoint'}


def test_another_folder(tmp_path, teacher_ckpt):
    out = dict(out_dir=str(tmp_path / 'out'))
    train(config(tmp_path / 'run', teacher_ckpt, checkpoint=out))
    assert names(tmp_path / 'out' / 'run') == {'epoch_2.pth', 'epoch_2_student.pth'}
    assert names(tmp_path / 'run') == {'last_checkpoint'}
    runner = train(
        config(tmp_path / 'run', teacher_ckpt, checkpoint=out, epochs=3, resume=True)
    )
    assert runner.iter == 6 and runner._load_from.endswith('out/run/epoch_2.pth')


@pytest.mark.parametrize('missing', [(), ('save_optimizer', 'save_param_scheduler')])
def test_checkpoints_that_lack_a_state_are_told(missing, work_dir, teacher_ckpt):
    states = dict.fromkeys(missing, False)
    cfg = config(work_dir, teacher_ckpt, checkpoint=states, epochs=1)
    train(Config(dict(cfg, log_level='WARNING')))
    (log,) = Path(work_dir).glob('*/*.log')
    told = ', '.join(f'{name}=False' for name in missing)
    assert (f'lack a state ({told})' in log.read_text()) == bool(missing)


# ---- what is asked for and never written

NO_BEST = 'there will be no best checkpoint'
NO_FILE = 'will be written: the first is due after'


@pytest.mark.parametrize(
    ('checkpoint', 'other', 'told'),
    [
        (dict(save_best='auto'), {}, [NO_BEST]),
        (dict(save_best='auto'), dict(validate=True), []),
        (dict(save_best='auto'), dict(validate=True, iters=2), []),
        (dict(interval=3, save_last=False), {}, [f'{NO_FILE} 3 epochs']),
        (dict(interval=5, by_epoch=False, save_last=False), {}, [' 5 iterations, ']),
        (
            dict(save_begin=3, save_last=False),
            {},
            [f'No checkpoint {NO_FILE} 3 epochs'],
        ),
        (dict(save_begin=2, interval=9, save_last=False), {}, []),
        (dict(interval=2, save_last=False), {}, []),
        (dict(interval=3), {}, []),
        (
            dict(interval=3, save_last=False, save_best='auto'),
            dict(validate=True),
            ['but the best one will be written'],
        ),
        # Said in so many words.
        (dict(interval=-1, save_last=False), {}, []),
    ],
)
def test_files_that_never_come(checkpoint, other, told, work_dir, teacher_ckpt, lines):
    train(config(work_dir, teacher_ckpt, checkpoint=checkpoint, **other))
    said = [line for line in lines if NO_BEST in line or NO_FILE in line]
    assert len(said) == len(told)
    assert all(text in line for text, line in zip(told, said))
    if any(text.startswith(NO_FILE) for text in told):
        assert not [*Path(work_dir).glob('*.pth')]


def test_a_validation_that_begins_after_the_end(work_dir, teacher_ckpt, lines):
    best = dict(save_best='auto')
    cfg = config(work_dir, teacher_ckpt, checkpoint=best, validate=True)
    cfg.train_cfg.val_begin = 3
    train(cfg)
    assert [line for line in lines if NO_BEST in line]


def test_a_loop_of_no_known_length():
    hook = SafeCheckpointHook(interval=3, save_last=False, save_best='auto')
    loop = SimpleNamespace(max_epochs=None, max_iters=None)
    told = []
    logger = SimpleNamespace(warning=told.append)
    hook._tell_unsaved(SimpleNamespace(train_loop=loop, val_loop=loop, logger=logger))
    assert told == []


def test_nobody_waits_for_a_best_checkpoint_without_validation(work_dir, teacher_ckpt):
    cfg = config(work_dir, teacher_ckpt, scores=[1.0])
    merge_train_options(cfg, no_validate=True)
    assert 'save_best' not in cfg.default_hooks.checkpoint


def test_a_score_that_no_metric_has(work_dir, teacher_ckpt):
    best = dict(save_best='accuracy/top5')
    cfg = config(work_dir, teacher_ckpt, checkpoint=best, validate=True)
    with pytest.raises(ValueError, match="no score 'accuracy/top5'.*'accuracy/top1'"):
        train(cfg)
    # As the message advises.
    cfg.resume = True
    cfg.default_hooks.checkpoint.save_best = 'accuracy/top1'
    assert train(cfg).epoch == 2


class Interrupt(Hook):
    """Saves in the first step, as a signal does; diverges before it, or stops early."""

    priority = 'LOWEST'

    def __init__(self, diverges):
        self.diverges = diverges

    def before_train_iter(self, runner, batch_idx, data_batch=None):
        if self.diverges:
            weight = next(runner.model.architecture.parameters())
            weight.data.fill_(float('nan'))

    def after_train_iter(self, runner, *args, **kwargs):
        if runner.iter == 0:
            kinds = {type(hook).__name__: hook for hook in runner.hooks}
            kinds['SafeCheckpointHook'].save_now(runner)
            runner.train_loop.stop_training = True


def test_what_has_diverged_is_not_saved_by_a_signal(work_dir, teacher_ckpt):
    checks = dict(type='mmfakd.CheckFiniteHook', interval=50)
    cfg = config(work_dir, teacher_ckpt, hooks=[checks])
    # The look at the first step would refuse it already.
    cfg.model.report = False
    with pytest.raises(FloatingPointError, match='not finite'):
        train(cfg, Interrupt(diverges=True))
    assert 'interrupted.pth' not in names(work_dir)


def test_the_only_checkpoint_stays_where_a_training_stops_early(work_dir, teacher_ckpt):
    regular = dict(interval=10, save_last=False)
    cfg = config(work_dir, teacher_ckpt, checkpoint=regular, epochs=3)
    train(cfg, Interrupt(diverges=False))
    assert 'interrupted.pth' in names(work_dir)
    assert find_checkpoint(work_dir).path.endswith('interrupted.pth')


def test_what_a_signal_saves_is_whole(work_dir, teacher_ckpt):
    """Regular checkpoints may leave states out to be small."""
    states = dict(save_optimizer=False, save_param_scheduler=False)
    regular = dict(interval=10, save_last=False)
    cfg = config(work_dir, teacher_ckpt, checkpoint={**states, **regular}, epochs=3)
    cfg.param_scheduler = dict(type='MultiStepLR', milestones=[1], by_epoch=True)
    train(cfg, Interrupt(diverges=False))
    saved = load_checkpoint_file(Path(work_dir) / 'interrupted.pth')
    assert {'optimizer', 'param_schedulers'} <= saved.keys()


class States(Hook):
    """Notes whether what is saved are the random states of that moment."""

    priority = 'LOWEST'

    def __init__(self):
        self.same = []

    def before_save_checkpoint(self, runner, checkpoint):
        # A best checkpoint has none.
        if 'position' in checkpoint:
            saved = checkpoint['position']['random'][0]['torch']
            self.same.append(torch.equal(saved, torch.get_rng_state()))


class BreakOff(Hook):
    """Ends the first validation."""

    done = False

    def after_val_iter(self, runner, *args, **kwargs):
        if not self.done:
            self.done = True
            raise KeyboardInterrupt


def test_a_validation_that_was_broken_off_before(work_dir, teacher_ckpt):
    """As in a notebook, where training follows."""
    cfg = config(work_dir, teacher_ckpt, scores=[1.0, 2.0], epochs=2)
    cfg.experiment_name = 'broken_off'
    runner, states = Runner.from_cfg(cfg), States()
    runner.register_hook(BreakOff())
    runner.register_hook(states)
    with pytest.raises(KeyboardInterrupt):
        runner.val()
    torch.rand(5)
    runner.train()
    assert len(states.same) >= 2 and all(states.same)
