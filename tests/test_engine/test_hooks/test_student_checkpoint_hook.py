# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""Every kept checkpoint has a plain student file, and nothing else has one."""

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from mmengine.hooks import EMAHook, Hook
from mmengine.registry import MODELS
from mmengine.runner import Runner

from mmfakd.compat import load_checkpoint_file
from mmfakd.engine.hooks import StudentCheckpointHook
from tests.helpers.tiny_runs import Recorder, distillation, run_config, student, train

HOOK = dict(type='mmfakd.StudentCheckpointHook')


def config(work_dir, model, hooks=(), scores=None, **kwargs):
    if scores:
        kwargs['validate'] = True
        kwargs['checkpoint'] = dict(
            kwargs.get('checkpoint', {}), save_best=list(scores), rule='greater'
        )
    cfg = run_config(work_dir, model, hooks=[HOOK, *hooks], **kwargs)
    if scores:
        counter = 'epoch' if cfg.train_cfg.by_epoch else 'iter'
        cfg.val_evaluator = dict(type='ScriptedScore', counter=counter, **scores)
    return cfg


def load(path):
    """As a stock process on current torch does."""
    return torch.load(path, map_location='cpu', weights_only=True)


def checkpoints(work_dir, suffix='_student'):
    """Check every file of the work dir against its student file.

    Returns:
        The names of the checkpoints.
    """
    paths = [
        path for path in Path(work_dir).iterdir() if path.name != 'last_checkpoint'
    ]
    names = {path.name for path in paths if path.is_file() and path.suffix != '.py'}
    students = {name for name in names if Path(name).stem.endswith(suffix)}
    whole = names - students
    expected = {f'{Path(n).stem}{suffix}{Path(n).suffix}': n for n in whole}
    assert students == set(expected)
    for student_name, name in expected.items():
        saved = load_checkpoint_file(Path(work_dir, name))['state_dict']
        wanted = {
            key.replace('architecture.', '', 1): value
            for key, value in saved.items()
            if key.startswith('architecture.')
        }
        held = load(Path(work_dir, student_name))
        assert held.keys() == {'meta', 'state_dict'}
        assert wanted and held['state_dict'].keys() == wanted.keys()
        for key, value in wanted.items():
            assert torch.equal(held['state_dict'][key], value), (student_name, key)
    return whole


class Watch(Hook):
    """Checks the files whenever a checkpoint may have been written."""

    priority = 'LOWEST'

    def __init__(self):
        self.seen = []

    def look(self, runner, *args, **kwargs):
        self.seen.append(checkpoints(runner.work_dir))

    after_train_iter = after_train_epoch = after_val_epoch = look


def test_last_and_best_by_epochs(work_dir, teacher_ckpt):
    watch = Watch()
    cfg = config(
        work_dir,
        distillation(teacher_ckpt),
        epochs=4,
        checkpoint=dict(max_keep_ckpts=1),
        scores=dict(score=[1.0, 3.0, 2.0, 4.0]),
    )
    train(cfg, watch)
    # After the two iterations, the end and the validation of every epoch.
    assert watch.seen[3::4] == [
        {'epoch_1.pth', 'best_score_epoch_1.pth'},
        {'epoch_2.pth', 'best_score_epoch_2.pth'},
        {'epoch_3.pth', 'best_score_epoch_2.pth'},
        {'epoch_4.pth', 'best_score_epoch_4.pth'},
    ]


def test_several_best_checkpoints(work_dir, teacher_ckpt):
    """Validation between two regular checkpoints, with two scores."""
    watch = Watch()
    cfg = config(
        work_dir,
        distillation(teacher_ckpt),
        epochs=3,
        checkpoint=dict(interval=2),
        scores=dict(a=[1.0, 2.0, 3.0], b=[3.0, 2.0, 4.0]),
    )
    train(cfg, watch)
    assert watch.seen[-1] >= {
        'epoch_2.pth',
        'epoch_3.pth',
        'best_a_epoch_3.pth',
        'best_b_epoch_3.pth',
    }
    assert {'best_a_epoch_2.pth', 'best_b_epoch_1.pth'} <= watch.seen[7]


def test_by_iterations(work_dir, teacher_ckpt):
    watch = Watch()
    cfg = config(
        work_dir,
        distillation(teacher_ckpt),
        iters=5,
        checkpoint=dict(interval=2, max_keep_ckpts=2),
    )
    train(cfg, watch)
    assert checkpoints(work_dir) == {'iter_4.pth', 'iter_5.pth'}
    assert {'iter_2.pth', 'iter_4.pth'} in watch.seen


@pytest.mark.parametrize('name', ['latest.pth', 'latest'])
@pytest.mark.parametrize('iters', [None, 3])
def test_constant_name(name, iters, work_dir, teacher_ckpt):
    """Overwritten at every save, also where each iteration brings a new best."""
    watch = Watch()
    cfg = config(
        work_dir,
        distillation(teacher_ckpt),
        iters=iters,
        checkpoint=dict(filename_tmpl=name, max_keep_ckpts=1),
        scores=dict(score=[0.0, 1.0, 2.0, 3.0]),
    )
    train(cfg, watch)
    assert watch.seen[-1] == {name, f'best_score_{name}'}


def test_several_checkpoint_hooks(work_dir, teacher_ckpt):
    """A save of one does not touch the students of the other."""
    every = dict(
        type='CheckpointHook', by_epoch=False, interval=1, filename_tmpl='every_{}.pth'
    )
    cfg = config(work_dir, distillation(teacher_ckpt), [every], epochs=2)
    train(cfg, Watch())
    assert checkpoints(work_dir) == {
        'epoch_1.pth',
        'epoch_2.pth',
        *(f'every_{i}.pth' for i in (1, 2, 3, 4)),
    }


def test_checkpoints_of_other_parts_are_left_alone(work_dir, teacher_ckpt):
    class Save(Hook):
        def before_train_iter(self, runner, *args, **kwargs):
            if runner.iter == 3:
                runner.save_checkpoint(runner.work_dir, 'manual.txt')

    train(config(work_dir, distillation(teacher_ckpt)), Save())
    (Path(work_dir) / 'manual.txt').unlink()
    assert checkpoints(work_dir) == {'epoch_1.pth', 'epoch_2.pth'}


def test_another_folder_for_checkpoints(tmp_path, teacher_ckpt):
    cfg = config(
        tmp_path / 'run',
        distillation(teacher_ckpt),
        epochs=1,
        checkpoint=dict(out_dir=str(tmp_path / 'out')),
    )
    train(cfg)
    assert checkpoints(tmp_path / 'out' / 'run') == {'epoch_1.pth'}


@pytest.mark.parametrize('kind', ['mmengine.EMAHook', 'mmpretrain.EMAHook'])
def test_averaged_model(kind, work_dir, teacher_ckpt):
    """The file holds the averaged weights, and the teacher is not averaged."""
    ema = dict(type=kind, ema_type='ExponentialMovingAverage', momentum=0.3)
    cfg = config(
        work_dir, distillation(teacher_ckpt), [ema], scores=dict(score=[1.0, 2.0])
    )
    runner = train(cfg, Watch())
    assert checkpoints(work_dir) == {
        'epoch_1.pth',
        'epoch_2.pth',
        'best_score_epoch_2.pth',
    }
    (hook,) = [hook for hook in runner.hooks if isinstance(hook, EMAHook)]
    averaged = hook.ema_model.module
    held = load(Path(work_dir, 'epoch_2_student.pth'))['state_dict']
    for key, value in averaged.architecture.state_dict().items():
        assert torch.equal(held[key], value), key
    fc = runner.model.architecture.head.fc.weight
    assert not torch.equal(held['head.fc.weight'], fc)

    assert averaged.teacher is runner.model.teacher
    checkpoint = load_checkpoint_file(Path(work_dir, 'epoch_2.pth'))
    for part in ('state_dict', 'ema_state_dict'):
        assert not any('teacher' in key for key in checkpoint[part])
    count = len(runner.model.state_dict())
    assert len(checkpoint['state_dict']) == count
    assert len(checkpoint['ema_state_dict']) == count + 1  # its step counter


def test_resume_takes_over_the_files(work_dir, teacher_ckpt):
    """One whose student file is missing gets it, the old best goes with its own."""

    def resumable(**kwargs):
        return config(
            work_dir,
            distillation(teacher_ckpt),
            epochs=4,
            checkpoint=dict(max_keep_ckpts=2),
            scores=dict(score=[1.0, 2.0, 0.0, 3.0]),
            **kwargs,
        )

    train(resumable(), Recorder(stop_after=2))
    names = {'epoch_1.pth', 'epoch_2.pth', 'best_score_epoch_2.pth'}
    assert checkpoints(work_dir) == names
    for name in ('epoch_1_student.pth', 'best_score_epoch_2_student.pth'):
        (Path(work_dir) / name).unlink()

    watch = Watch()
    train(resumable(resume=True), watch)
    # Before anything new was written.
    assert watch.seen[0] == names
    assert watch.seen[3] == {'epoch_2.pth', 'epoch_3.pth', 'best_score_epoch_2.pth'}
    assert watch.seen[-1] == {'epoch_3.pth', 'epoch_4.pth', 'best_score_epoch_4.pth'}


def test_resume_that_keeps_fewer(work_dir, teacher_ckpt):
    """CheckpointHook removes the surplus ones at once."""

    def resumable(keep, **kwargs):
        return config(
            work_dir,
            distillation(teacher_ckpt),
            epochs=4,
            checkpoint=dict(max_keep_ckpts=keep),
            **kwargs,
        )

    train(resumable(3), Recorder(stop_after=3))
    watch = Watch()
    train(resumable(1, resume=True), watch)
    assert watch.seen[0] == {'epoch_3.pth'}
    assert watch.seen[-1] == {'epoch_4.pth'}


@pytest.mark.parametrize('key', ['last_ckpt', 'best_ckpt'])
def test_students_of_another_folder_stay(key, tmp_path, teacher_ckpt):
    """Their checkpoint may have gone: that is not this training's to tidy up."""
    work_dir, other = tmp_path / 'run', tmp_path / 'other'
    train(config(work_dir, distillation(teacher_ckpt), epochs=1))
    other.mkdir()
    (other / 'best_a_student.pth').touch()
    checkpoint = torch.load(work_dir / 'epoch_1.pth', weights_only=False)
    noted = {key: str(other / 'best_a.pth'), 'best_score': 1.0}
    checkpoint['message_hub']['runtime_info'].update(noted)
    torch.save(checkpoint, work_dir / 'epoch_1.pth')
    train(config(work_dir, distillation(teacher_ckpt), epochs=2, resume=True))
    assert (other / 'best_a_student.pth').exists()


def test_resume_after_the_best_file_was_moved_away(work_dir, teacher_ckpt):
    def resumable(**kwargs):
        return config(
            work_dir,
            distillation(teacher_ckpt),
            epochs=3,
            scores=dict(score=[2.0, 1.0, 1.0]),
            **kwargs,
        )

    train(resumable(), Recorder(stop_after=1))
    for path in Path(work_dir).glob('best*'):
        path.unlink()
    train(resumable(resume=True), Watch())
    assert checkpoints(work_dir) == {'epoch_1.pth', 'epoch_2.pth', 'epoch_3.pth'}


def test_plain_run_is_untouched(work_dir):
    train(config(work_dir, student(), scores=dict(score=[1.0, 2.0])))
    assert {path.name for path in Path(work_dir).glob('*.pth')} == {
        'epoch_1.pth',
        'epoch_2.pth',
        'best_score_epoch_2.pth',
    }


def test_stock_algorithm_of_mmrazor(work_dir, teacher_ckpt):
    """It keeps the teacher in its checkpoints; the student's file does not."""
    cfg = config(
        work_dir,
        distillation(teacher_ckpt, type='mmrazor.SingleTeacherDistill'),
        epochs=1,
    )
    cfg.pop('data_preprocessor')
    cfg.model.data_preprocessor = dict(
        type='mmpretrain.ClsDataPreprocessor', mean=[77.8], std=[95.9], num_classes=10
    )
    train(cfg, Watch())
    assert checkpoints(work_dir) == {'epoch_1.pth'}
    saved = load_checkpoint_file(Path(work_dir, 'epoch_1.pth'))['state_dict']
    assert any(key.startswith('teacher.') for key in saved)


def test_runner_that_was_built_from_objects(work_dir, teacher_ckpt):
    """There is no config to write into the file, and that is no error."""
    cfg = config(work_dir, distillation(teacher_ckpt), epochs=1)
    cfg.default_scope = None
    model = dict(cfg.model, data_preprocessor=cfg.data_preprocessor)
    runner = Runner(
        model=MODELS.build(model),
        work_dir=work_dir,
        train_dataloader=cfg.train_dataloader,
        train_cfg=cfg.train_cfg,
        optim_wrapper=cfg.optim_wrapper,
        custom_hooks=[StudentCheckpointHook()],
        default_scope='mmpretrain',
        experiment_name='objects',
    )
    runner.train()
    assert checkpoints(work_dir) == {'epoch_1.pth'}
    meta = load(Path(work_dir, 'epoch_1_student.pth'))['meta']
    assert 'cfg' not in meta
    assert meta['dataset_meta'] == dict(classes=tuple('0123456789'))


def test_meta_information(work_dir, teacher_ckpt):
    train(config(work_dir, distillation(teacher_ckpt), epochs=1))
    meta = load(Path(work_dir, 'epoch_1_student.pth'))['meta']
    assert meta['dataset_meta'] == dict(classes=tuple('0123456789'))
    assert meta['epoch'] == 1 and meta['iter'] == 2 and meta['seed'] == 0
    for word in ('teacher', 'mmrazor', 'StudentCheckpointHook'):
        assert word not in meta['cfg']


@pytest.mark.parametrize(
    ('source', 'theirs', 'expected'),
    [
        ('validation', 'abcdefghij', '0123456789'),
        ('teacher', 'abcdefghij', 'abcdefghij'),
        # They are not the student's, which has ten.
        ('teacher', 'abc', ''),
    ],
)
def test_names_where_images_have_no_labels(
    source, theirs, expected, work_dir, teacher_ckpt, tmp_path
):
    image = np.zeros((8, 8, 1), np.uint8)
    for i in range(4):
        cv2.imwrite(str(tmp_path / f'{i}.png'), image)
    teacher = torch.load(teacher_ckpt)
    teacher['meta'] = dict(dataset_meta=dict(classes=tuple(theirs)))
    torch.save(teacher, tmp_path / 'teacher.pth')
    model = distillation(str(tmp_path / 'teacher.pth'), calculate_student_loss=False)
    cfg = config(work_dir, model, epochs=1, validate=source == 'validation')
    cfg.train_dataloader.dataset = dict(
        type='mmfakd.UnlabelledImages',
        data_root=str(tmp_path),
        pipeline=[
            dict(type='LoadImageFromFile', color_type='grayscale'),
            dict(type='PackInputs'),
        ],
    )
    train(cfg)
    meta = load(Path(work_dir, 'epoch_1_student.pth'))['meta']
    assert tuple(meta['dataset_meta'].get('classes', ())) == tuple(expected)


def test_suffix(work_dir, teacher_ckpt):
    cfg = run_config(
        work_dir,
        distillation(teacher_ckpt),
        hooks=[dict(HOOK, suffix='.plain')],
        checkpoint=dict(max_keep_ckpts=1),
    )
    train(cfg)
    assert checkpoints(work_dir, '.plain') == {'epoch_2.pth'}


def test_empty_suffix():
    with pytest.raises(ValueError, match="suffix=''; expected"):
        StudentCheckpointHook(suffix='')
