# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""The look at the first step from the command line: nothing is trained or written."""

import os
import re

import pytest
import torch
from mmengine.config import Config
from mmengine.registry import LOOPS
from mmengine.runner import EpochBasedTrainLoop, Runner

from mmfakd import cli
from mmfakd.analysis import first_step_check
from tests.helpers.tiny_runs import distillation, run_config, save_teacher


@LOOPS.register_module(force=True)
class PatientLoop(EpochBasedTrainLoop):
    """A loop of the user's own."""


@pytest.fixture
def check(monkeypatch, capsys, tmp_path):
    """A function that runs the command: its exit status and what it prints."""
    monkeypatch.chdir(tmp_path)

    def call(*arguments, **model):
        path = tmp_path / 'config.py'
        if model:
            write(path, **model)
        before = files(tmp_path)
        capsys.readouterr()
        with pytest.raises(SystemExit) as error:
            cli.main(['check', str(path), *map(str, arguments)])
        assert files(tmp_path) == before
        code = error.value.code
        if isinstance(code, str):
            return 1, code
        return code, capsys.readouterr().out

    return call


def write(path, **model):
    model.setdefault('teacher_ckpt', save_teacher(path.parent))
    # A teacher of random weights says less than the student's own loss.
    model = distillation(**model)
    if model['distiller']['type'] == 'mmfakd.ReviewDistiller':
        model['distiller'].setdefault('loss_weight', 0.01)
    run_config(path.parent / 'work', model).dump(path)


def files(folder):
    return sorted(
        os.path.join(*where)
        for where in (
            (root, name) for root, _, names in os.walk(folder) for name in names
        )
    )


def test_fine_then_broken_then_doubtful(check, tmp_path):
    """By exit status."""
    code, out = check(teacher_ckpt=save_teacher(tmp_path))
    assert code == 0, out
    assert "student's own" in out and 'Nothing is wrong with its first step.' in out
    code, out = check('--cfg-options', 'model.architecture.backbone.frozen_stages=1')
    assert code == 1
    assert re.search(r'ERROR: loss_level0 cannot teach.*`frozen_stages=1`', out, re.S)
    code, out = check('--cfg-options', 'model.distiller.loss_weight=1e4')
    assert code == 3
    weights = re.search(r'model.distiller.loss_weight="(\S+)"', out)[1]
    code, out = check(
        '--amp', '--cfg-options', f'model.distiller.loss_weight={weights}'
    )
    assert code == 0, out
    key = 'optim_wrapper.paramwise_cfg.custom_keys.backbone.lr_mult=0'
    code, out = check('--cfg-options', key)
    assert code == 1 and '`lr_mult=0`' in out


def test_the_first_step_of_a_training_says_the_same(check, tmp_path):
    """With the weights that both begin with."""
    weights = save_teacher(tmp_path)
    runner = Runner.from_cfg(run_config(tmp_path / 'other', distillation(weights)))
    student = str(tmp_path / 'student.pth')
    runner.save_checkpoint(str(tmp_path), 'student.pth', None, False)
    names = 'shape', 'layer'
    code, out = check('--student-ckpt', student, teacher_ckpt=weights)
    assert code == 0, (out, names)
    assert 'S neck.gap' in out and '10 x 8 x 1 x 1' in out


def test_a_teacher_that_is_not_to_be_had(check):
    code, out = check(teacher_ckpt='nowhere.pth')
    assert code == 3
    assert 'THE TEACHER IS AT RANDOM' in out
    assert "the teacher's weights (nowhere.pth) are not to be had" in out
    code, out = check('--teacher-ckpt', 'elsewhere.pth')
    assert code == 1 and "'elsewhere.pth' is neither a file" in out


@pytest.mark.parametrize(
    ('source', 'status', 'said'),
    [
        ('gone.pth', 1, "the student's weights: 'gone.pth' is neither a file"),
        # It comes with the package.
        ('r18w32_1xb50_digits', 1, 'student checkpoint'),
        ('http://127.0.0.1:9/a.pth', 0, 'a.pth is not on this machine, and a check'),
    ],
)
def test_weights_of_the_student(check, source, status, said):
    found, text = check('--student-ckpt', source, student_ckpt=None)
    assert found == status and said in text


def test_what_would_end_the_training_later(check, tmp_path):
    check(teacher_ckpt=save_teacher(tmp_path))
    hook = 'custom_hooks=[dict(type="mmdet.YOLOXModeSwitchHook", priority=48)]'
    code, out = check('--cfg-options', hook)
    assert code == 1 and 'YOLOXModeSwitchHook would end the training' in out
    harmless = hook.replace('YOLOXModeSwitchHook', 'SyncNormHook')
    code, out = check('--cfg-options', harmless)
    assert code == 0, out


def test_mixing_that_a_hook_switches_on(check):
    fc = dict(type='mmrazor.ModuleOutputs', source='head.fc')
    target = dict(type='mmrazor.ModuleInputs', source='head.loss_module')
    gets = dict(
        preds_S=dict(recorder='fc', from_student=True),
        preds_T=dict(recorder='fc', from_student=False),
        gt_labels=dict(recorder='target', from_student=True, data_idx=1),
    )
    distiller = dict(
        type='mmrazor.ConfigurableDistiller',
        student_recorders=dict(fc=fc, target=target),
        teacher_recorders=dict(fc=dict(fc)),
        distill_losses=dict(loss_nkd=dict(type='mmfakd.NKDLoss')),
        loss_forward_mappings=dict(loss_nkd=gets),
    )
    hook = 'custom_hooks=[dict(type="mmpretrain.SwitchRecipeHook", schedule=[dict('
    hook += 'action_epoch=2, batch_augments=dict(augments=dict(type="Mixup", alpha=0.8)'
    hook += '))])]'
    code, out = check('--cfg-options', hook, distiller=distiller)
    assert code == 1 and 'SwitchRecipeHook (`schedule`, from epoch 2)' in out
    code, out = check('--cfg-options', hook.replace('epoch=2', 'epoch=3'))
    assert 'SwitchRecipeHook' not in out
    loop = 'train_cfg=dict(_delete_=True, type="IterBasedTrainLoop", max_iters=4)'
    code, out = check('--cfg-options', hook, loop)
    assert code != 1 and 'SwitchRecipeHook' not in out


def test_a_pad_beside_ignore_padding(check, tmp_path):
    check(teacher_ckpt=save_teacher(tmp_path))
    path = tmp_path / 'config.py'
    cfg = Config.fromfile(path)
    cfg.train_dataloader.dataset.pipeline.insert(0, dict(type='Pad', size=(12, 12)))
    cfg.model.distiller.ignore_padding = True
    cfg.dump(path)
    _, out = check()
    assert 'NOTE: ignore_padding=True, and the training pipeline has a Pad' in out


@pytest.mark.parametrize(
    ('option', 'status', 'said'),
    [
        ('model.architecture.head.num_classes=8', 1, 'Digits) has 10 classes.*set num'),
        ('model.architecture.head.num_classes=12', 3, '2 of them are never seen'),
        ('train_dataloader.batch_size=19', 1, 'The last batch .* has one image'),
        (
            'train_dataloader={"batch_size": 64, "drop_last": True}',
            1,
            'no batch to train on: the data set (Digits) has 20 images',
        ),
        (
            'custom_hooks=[dict(type="mmdet.MeanTeacherHook")]',
            1,
            'MeanTeacherHook would overwrite the teacher',
        ),
        (
            'default_hooks.stop=dict(type="mmfakd.PreemptionHook", time_limit="soon")',
            1,
            "time_limit='soon': expected seconds",
        ),
        ('runner_type=FlexibleRunner', 1, "runner_type='FlexibleRunner': expected"),
        (
            'model.distiller.loss_weight=0.0',
            1,
            'no loss has a weight above 0.*It would teach nothing as it is.',
        ),
    ],
)
def test_what_a_training_refuses_or_warns_of(check, tmp_path, option, status, said):
    """Its hooks see data, classes and each other before the first step."""
    code, out = check('--cfg-options', option, teacher_ckpt=save_teacher(tmp_path))
    pattern = '.*'.join(map(re.escape, said.split('.*')))
    assert code == status and re.search(pattern, ' '.join(out.split())), out


STOP = 'custom_hooks=[dict(type="mmrazor.StopDistillHook", stop_epoch={})]'
WARMUP = 'model.distiller.warmup=dict(by_epoch={}, begin={}, end={})'


@pytest.mark.parametrize(
    ('options', 'status', 'said'),
    [
        ([STOP.format(0)], 1, 'stopped before the first step.*It would teach nothing'),
        ([STOP.format(1)], 0, 'Nothing is wrong'),
        (
            [STOP.format(1), 'model.calculate_student_loss=False'],
            1,
            'StopDistillHook got stop_epoch=1 of 2 epochs',
        ),
        ([WARMUP.format(True, 0, 2)], 0, 'Nothing is wrong'),
        ([WARMUP.format(True, 0, 3)], 3, 'training has only 2: the full weight'),
        (
            [WARMUP.format(True, 2, 3)],
            1,
            'nothing is ever distilled.*would teach nothi',
        ),
        # Of four batches.
        ([WARMUP.format(False, 3, 4)], 0, 'Nothing is wrong'),
        ([WARMUP.format(False, 3, 5)], 3, 'training has only 4: the full weight'),
        (
            [STOP.format(1), WARMUP.format(False, 2, 4)],
            1,
            'StopDistillHook stops the distillation at 2: nothing is ever distilled',
        ),
        (
            [WARMUP.format(True, 0, 2), 'train_cfg={LOOP}'],
            1,
            'in a IterBasedTrainLoop, whose epoch stays 0.*of 9 in all',
        ),
        (
            [STOP.format(2), WARMUP.format(False, 3, 5), 'train_cfg={LOOP}'],
            1,
            "StopDistillHook got {'stop_epoch': 2}, but in a IterBasedTrainLoop there",
        ),
        (
            [
                STOP.format(4),
                'model.calculate_student_loss=False',
                'train_cfg=dict(_delete_=True, by_epoch=False, max_iters=9)',
            ],
            1,
            "StopDistillHook got {'stop_epoch': 4}, but in a IterBasedTrainLoop there",
        ),
        ([STOP.format(0), 'train_cfg={LOOP}'], 1, 'stopped before the first step'),
        (
            [
                WARMUP.format(True, 0, 2),
                'train_cfg=dict(_delete_=True, type="PatientLoop", max_epochs=2)',
            ],
            0,
            'Nothing is wrong',
        ),
    ],
)
def test_when_it_begins_and_ends(check, tmp_path, options, status, said):
    """The length of the training tells which of it is ever reached."""
    loop = 'dict(_delete_=True, type="IterBasedTrainLoop", max_iters=9)'
    options = [option.replace('{LOOP}', loop) for option in options]
    code, out = check('--cfg-options', *options, teacher_ckpt=save_teacher(tmp_path))
    pattern = '.*'.join(map(re.escape, said.split('.*')))
    assert code == status and re.search(pattern, ' '.join(out.split())), out


SAMPLER = r'asks for \(train_dataloader.sampler\)'
ALWAYS = 'default_hooks.logger=dict(interval=1, interval_exp_name=1)'
BY_EPOCH = r'asks for \(LoggerHook with log_processor.by_epoch\)'


@pytest.mark.parametrize(
    ('kind', 'option', 'status', 'said'),
    [
        ('CountedStream', 'default_hooks.logger.interval=2', 0, ''),
        ('Stream', 'default_hooks.logger=None', 0, ''),
        ('Stream', 'default_hooks.logger.interval=2', 1, r'asks for \(LoggerHook\)'),
        ('Stream', 'train_dataloader.sampler=dict(type="InfiniteSampler")', 1, SAMPLER),
        ('Stream', f'{ALWAYS} log_processor=None', 1, BY_EPOCH),
        ('Stream', f'{ALWAYS} log_processor.by_epoch=False', 0, ''),
        # MMEngine's own.
        ('Stream', 'default_hooks._delete_=True', 1, r'asks for \(LoggerHook\)'),
    ],
)
def test_a_stream(check, tmp_path, kind, option, status, said):
    """In an iteration based loop it trains without a length if nothing asks for it."""
    code, out = check(
        '--cfg-options',
        f'train_dataloader.dataset=dict(_delete_=True, type="{kind}")',
        'train_dataloader.sampler=None',
        'train_cfg=dict(_delete_=True, type="IterBasedTrainLoop", max_iters=4)',
        WARMUP.format(False, 0, 4),
        *re.split(' (?=log_)', option),
        teacher_ckpt=save_teacher(tmp_path),
    )
    assert code == status and re.search(said, out), out


def test_images_of_different_sizes(check, tmp_path):
    check(teacher_ckpt=save_teacher(tmp_path))
    cfg = Config.fromfile(tmp_path / 'config.py')
    resize = dict(type='RandomResize', scale=[(8, 8), (64, 64)], keep_ratio=True)
    cfg.train_dataloader.dataset.pipeline = [resize, dict(type='PackInputs')]
    cfg.dump(tmp_path / 'config.py')
    code, out = check()
    assert code == 1 and 'The images of a batch have different shapes' in out


def test_a_batch_that_is_too_large(check, tmp_path, monkeypatch):
    monkeypatch.setattr(first_step_check, '_PIXELS', 3 * 8 * 8)
    _, out = check('--device', 'cpu', teacher_ckpt=save_teacher(tmp_path))
    said = 'NOTE: of the 10 images of the batch the first 3 are looked at, as this is'
    assert said in ' '.join(out.split())


def test_names_of_the_teacher_s_classes(check, tmp_path):
    """Without its file they are not asked for."""
    weights = save_teacher(tmp_path)
    read = torch.load(weights)
    read['meta'] = dict(dataset_meta=dict(classes=tuple('1023456789')))
    torch.save(read, weights)
    output = dict(output=dict(type='mmrazor.ModuleOutputs', source='head.fc'))
    sides = dict(preds_S=True, preds_T=False)
    distiller = dict(
        type='mmrazor.ConfigurableDistiller',
        student_recorders=output,
        teacher_recorders=output,
        distill_losses=dict(loss_kd=dict(type='mmrazor.KLDivergence')),
        loss_forward_mappings=dict(
            loss_kd={
                name: dict(from_student=ours, recorder='output')
                for name, ours in sides.items()
            }
        ),
    )
    model = distillation(weights, distiller=distiller)
    run_config(tmp_path / 'work', model).dump(tmp_path / 'config.py')
    code, out = check()
    said = "its checkpoint names class 0 '1', the data set '0', and loss_kd"
    assert code == 3 and said in ' '.join(out.split())
    code, out = check('--cfg-options', 'model.teacher_ckpt=nowhere.pth')
    assert code == 3 and 'THE TEACHER IS AT RANDOM' in out
    own = 'model.teacher.init_cfg=dict(type="Pretrained", checkpoint="nowhere.pth")'
    code, out = check('--cfg-options', 'model.teacher_ckpt=None', own)
    assert 'Traceback' not in out and 'nowhere.pth' in out


@pytest.mark.parametrize('empty', [False, True])
def test_names_that_do_not_stand_in_the_file(check, tmp_path, empty):
    pytest.importorskip('mmcv.ops')
    pytest.importorskip('mmdet')
    from tests.helpers.toy_detectors import detection_run, pyramid_distiller, retinanet

    model = dict(
        type='mmfakd.FeatureDistill',
        architecture=retinanet(),
        teacher=retinanet(width=16),
        distiller=dict(pyramid_distiller(), loss_weight=1.0),
    )
    cfg = detection_run(tmp_path, model)
    # It asks for a visualizer, which only a runner has.
    cfg.default_hooks = dict(visualization=dict(type='DetVisualizationHook'))
    cfg.train_dataloader.dataset.metainfo.classes = ('x', 'y', 'z')
    if empty:
        cfg.train_dataloader.dataset.filter_cfg = dict(filter_empty_gt=True)
    cfg.dump(tmp_path / 'config.py')
    code, out = check()
    said = 'has no images' if empty else "None of the classes ('x', 'y', 'z') is a cat"
    assert code == 1 and said in out


def test_what_is_no_distillation(check, tmp_path):
    path = tmp_path / 'config.py'
    path.write_text("model = dict(type='mmpretrain.ImageClassifier')")
    code, out = check()
    assert code == 1 and 'has no teacher' in out


def test_an_optimizer_that_takes_no_step(check, tmp_path):
    """`check` says what `train` would, and at once."""
    check(teacher_ckpt=save_teacher(tmp_path))
    for option, said in {
        'type=AmpOptimWraper': "Near names: 'AmpOptimWrapper'",
        'clip_grad.max_nrom=1': "Near names: 'max_norm'",
        'accumulative_counts=0': 'expected a whole number above 0',
        'optimizer.lr=nan': 'expected a finite number',
    }.items():
        code, out = check('--cfg-options', f'optim_wrapper.{option}')
        assert code == 1 and said in out


def test_misspelt_argument(check, tmp_path):
    """One sentence, with the class that does not take it."""
    option = 'model.distiller.loss_wight=1'
    teacher = save_teacher(tmp_path)
    code, out = check('--cfg-options', option, teacher_ckpt=teacher)
    assert code == 1 and '\n' not in out
    assert "check: type='mmfakd.ReviewDistiller' got" in out
    assert "'loss_wight'. Near names: 'loss_weight'" in out
