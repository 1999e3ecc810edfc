# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""Data from which nothing can be learned are refused before the first step."""

import json
import re
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from mmcv.transforms import BaseTransform
from mmengine.model import BaseModel
from mmengine.registry import MODELS, TRANSFORMS
from mmengine.runner import Runner
from torch import nn

from mmfakd.engine import check_data as module
from mmfakd.engine.check_data import check_data, tell_names
from mmfakd.engine.hooks import CheckDataHook, check_data_hook
from tests.helpers.tiny_runs import distillation, save_teacher, student, train
from tests.helpers.tiny_runs import run_config as config
from tests.helpers.toy import classifier, review_distiller
from tests.helpers.toy_detectors import detection_run, pyramid_distiller, retinanet


@TRANSFORMS.register_module(force=True)
class RandomSize(BaseTransform):
    """Images of sizes that differ."""

    def transform(self, results):
        size = 6 + results['sample_idx'] % 3
        results['img'] = np.zeros((size, size, 1), np.uint8)
        return results


@pytest.fixture
def told(monkeypatch):
    texts = []
    monkeypatch.setattr(
        check_data_hook, 'print_log', lambda text, **kwargs: texts.append(text)
    )
    return texts


def run(cfg):
    train(cfg, CheckDataHook())


def plain(work_dir, num_classes=10, **loader):
    cfg = config(work_dir, classifier(in_channels=1, num_classes=num_classes), epochs=1)
    cfg.train_dataloader.update(loader)
    return cfg


def test_digits(work_dir, told):
    run(plain(work_dir))
    assert told == []


def test_no_batch(work_dir):
    with pytest.raises(ValueError) as caught:
        run(plain(work_dir, batch_size=64, drop_last=True))
    assert str(caught.value) == (
        'There is no batch to train on: the data set (Digits) has 20 images, of which '
        'this process takes 20; batch_size=64, drop_last=True. Give a `batch_size` of '
        'at most 20, drop_last=False, or more images.'
    )


def test_endless_sampler_has_batches(work_dir):
    cfg = config(work_dir, classifier(in_channels=1), iters=1)
    cfg.train_dataloader.update(batch_size=64, drop_last=True)
    run(cfg)


IN_ORDER = 'come in the order of the data set in every epoch'
# In mmdet's, batches of images of like shape.
SHAPES = dict(batch_sampler=dict(type='mmdet.AspectRatioBatchSampler'))


@pytest.mark.parametrize(
    ('sampler', 'loader', 'said'),
    [
        (dict(type='DefaultSampler', shuffle=False), {}, True),
        (dict(type='DefaultSampler', shuffle=False), dict(batch_size=32), False),
        (dict(type='DefaultSampler', shuffle=True), {}, False),
        (dict(type='InfiniteSampler', shuffle=False), {}, True),
        (dict(type='InfiniteSampler'), {}, False),
        (dict(type='DefaultSampler', shuffle=False), SHAPES, True),
        (dict(type='DefaultSampler', shuffle=True), SHAPES, False),
    ],
)
def test_images_in_order(sampler, loader, said, work_dir):
    cfg = plain(work_dir, sampler=sampler, **loader)
    built = Runner.build_dataloader(cfg.train_dataloader)
    texts = check_data(built, MODELS.build(cfg.model))
    assert [IN_ORDER in text for text in texts] == [True] * said
    if said:
        assert f'({sampler["type"]}, shuffle=False)' in texts[0]


def test_batches_of_several_sizes():
    """mmdet's MultiDataAspectRatioBatchSampler has one for each data set."""
    batches = SimpleNamespace(sampler=SimpleNamespace(shuffle=False), batch_size=[2, 4])
    loader = SimpleNamespace(dataset=range(20), batch_sampler=batches)
    assert module._tell_order(loader) == ''
    batches.batch_size = 2
    assert IN_ORDER in module._tell_order(loader)


def test_images_in_order_are_told(work_dir, told):
    run(plain(work_dir, sampler=dict(type='DefaultSampler', shuffle=False)))
    (text,) = told
    assert IN_ORDER in text and "sampler=dict(type='DefaultSampler'" in text


def test_nothing_to_validate_on(work_dir):
    """MMEngine divides by zero, after the first epoch."""
    cfg = config(work_dir, classifier(in_channels=1), epochs=1, validate=True)
    cfg.val_dataloader.dataset.indices = 0
    with pytest.raises(ValueError, match=r'val_dataloader \(Digits\) has 0 images'):
        run(cfg)
    cfg.val_dataloader.dataset.indices = 1
    run(cfg)


@pytest.mark.parametrize(
    ('names', 'said'),
    [
        # A folder is missing, or there is one more.
        ('023456789', "Label 1 is '1' in the .* (10 .*'2' in the .*Digits, 9 classes"),
        ('0123456789x', "has 11 classes, .* set 10: images of 'x' and others"),
        ('0123456789', None),
        # Labels are the same.
        ('01234567', None),
        ('', None),
    ],
)
def test_classes_of_the_validation(names, said, work_dir, told):
    cfg = config(work_dir, classifier(in_channels=1), epochs=1, validate=True)
    if names:
        cfg.val_dataloader.dataset.metainfo = dict(classes=tuple(names))
    run(cfg)
    assert len(told) == bool(said)
    if said:
        assert re.search(said.replace('(', r'\('), told[0])


@pytest.mark.parametrize(
    'names',
    [
        np.array(list('0123456789')),
        # Nobody knows their order.
        dict(enumerate('abcdefghijk')),
        set('abcdefghijk'),
    ],
    ids=['array', 'dict', 'set'],
)
def test_classes_that_are_no_list(names, work_dir, told):
    cfg = config(work_dir, classifier(in_channels=1), epochs=1, validate=True)
    runner = Runner.from_cfg(cfg)
    loaders = [runner.val_loop.dataloader]
    if isinstance(names, np.ndarray):
        loaders.append(runner.train_loop.dataloader)
    for loader in loaders:
        loader.dataset._metainfo['classes'] = names
    runner.register_hook(CheckDataHook())
    runner.train()
    assert told == []


def test_labels_that_nobody_learns_are_not_compared(work_dir, told):
    """The images of another data set are taken for as many as there are."""
    model = distillation(save_teacher(Path(work_dir)), calculate_student_loss=False)
    cfg = config(work_dir, model, epochs=1, validate=True)
    cfg.train_dataloader.dataset.metainfo = dict(classes=tuple('abcdefghij'))
    run(cfg)
    assert not [text for text in told if 'validation set' in text]


def test_images_that_are_looked_up_are_of_classes_of_their_own(work_dir, told):
    """As for mmpretrain's retrievers, which compare images and no labels."""
    cfg = config(work_dir, classifier(in_channels=1), epochs=1, validate=True)
    cfg.val_dataloader.dataset.metainfo = dict(classes=tuple('abcdefghij'))
    runner = Runner.from_cfg(cfg)
    runner.model.prototype = None
    runner.register_hook(CheckDataHook())
    runner.train()
    assert told == []


def test_more_classes_than_outputs(work_dir):
    with pytest.raises(ValueError, match='Digits. has 10 classes.*num_classes=8: set'):
        run(plain(work_dir, num_classes=8))


def test_fewer_classes_than_outputs(work_dir, told):
    run(plain(work_dir, num_classes=12))
    (text,) = told
    assert 'has 10 classes' in text and '2 of them are never seen' in text


def test_label_in_the_training_of_a_plain_model(work_dir):
    cfg = plain(work_dir)
    arrays = np.zeros((4, 8, 8), np.uint8)
    np.savez(f'{work_dir}/a.npz', images=arrays, labels=np.array([0, 1, 2, 10]))
    cfg.train_dataloader.dataset.update(
        type='mmfakd.ImageArrays', data_files=f'{work_dir}/a.npz'
    )
    del cfg.train_dataloader.dataset['labels_per_class']
    with pytest.raises(ValueError, match='The image 3: label 10, but the model has'):
        run(cfg)


@pytest.mark.parametrize('iters', [None, 2])
@pytest.mark.parametrize('workers', [0, 1])
def test_images_of_different_sizes(workers, iters, work_dir):
    cfg = config(work_dir, classifier(in_channels=1), iters=iters)
    cfg.train_dataloader.num_workers = workers
    steps = [dict(type='RandomSize'), dict(type='PackInputs')]
    cfg.train_dataloader.dataset.pipeline = steps
    with pytest.raises(ValueError, match='different shapes .*The image .*resize'):
        run(cfg)


# ---- the teacher's classes


def knowledge_distillation(
    teacher_ckpt, loss, names=('preds_S', 'preds_T'), source='head.fc'
):
    """A distiller of predictions, which has no connectors."""
    output = dict(output=dict(type='mmrazor.ModuleOutputs', source=source))
    distiller = dict(
        type='mmrazor.ConfigurableDistiller',
        student_recorders=output,
        teacher_recorders=output,
        distill_losses=dict(loss_kd=dict(type=f'mmrazor.{loss}')),
        loss_forward_mappings=dict(
            loss_kd={
                name: dict(from_student=student, recorder='output')
                for name, student in zip(names, (True, False))
            }
        ),
    )
    return distillation(teacher_ckpt, distiller=distiller)


def named_teacher(folder, classes):
    path = save_teacher(folder)
    checkpoint = torch.load(path)
    checkpoint['meta'] = dict(dataset_meta=dict(classes=classes))
    torch.save(checkpoint, path)
    return path


@pytest.mark.parametrize(
    'loss',
    [
        dict(loss='KLDivergence'),
        dict(loss='KLDivergence', source='head'),
        dict(loss='L2Loss', names=('s_feature', 't_feature')),
    ],
)
def test_teacher_of_another_order(loss, tmp_path, told):
    ckpt = named_teacher(tmp_path, tuple('1023456789'))
    model = knowledge_distillation(ckpt, **loss)
    run(config(tmp_path, model, epochs=1))
    (text,) = told
    assert "its checkpoint names class 0 '1', the data set '0', and loss_kd" in text


def from_init_cfg(cfg):
    """The teacher's weights as its own, not as those of the distillation."""
    checkpoint = cfg.model.pop('teacher_ckpt')
    cfg.model.teacher.init_cfg = dict(type='Pretrained', checkpoint=checkpoint)


def in_mmrazor(cfg):
    """An algorithm that does not keep the name of the file."""
    cfg.model.type = 'mmrazor.SingleTeacherDistill'
    cfg.data_preprocessor.type = 'mmpretrain.ClsDataPreprocessor'


@pytest.mark.parametrize('given', [from_init_cfg, in_mmrazor])
def test_teacher_of_another_order_given_otherwise(given, tmp_path, told):
    ckpt = named_teacher(tmp_path, tuple('1023456789'))
    cfg = config(tmp_path, knowledge_distillation(ckpt, 'KLDivergence'), epochs=1)
    given(cfg)
    run(cfg)
    (text,) = told
    assert "its checkpoint names class 0 '1', the data set '0', and loss_kd" in text


def test_teachers_that_are_not_told(tmp_path, told):
    """Names that fit; none; features, and relations of samples, have no classes."""
    for classes in ('0123456789', ''):
        ckpt = named_teacher(tmp_path, tuple(classes))
        model = knowledge_distillation(ckpt, 'KLDivergence')
        run(config(tmp_path, model, epochs=1))
    ckpt = named_teacher(tmp_path, tuple('1023456789'))
    run(config(tmp_path, distillation(ckpt), epochs=1))
    model = knowledge_distillation(ckpt, 'DistanceWiseRKD')
    run(config(tmp_path, model, epochs=1))
    assert told == []


def test_teachers_of_semi_supervised_learning_are_not_compared(tmp_path):
    """They have no distiller."""
    checkpoint = named_teacher(tmp_path, tuple('1023456789'))
    model = nn.Module()
    model.teacher = nn.Module()
    model.teacher.init_cfg = dict(type='Pretrained', checkpoint=checkpoint)
    assert tell_names(model, tuple('0123456789'), dict(type='SoftTeacher')) == ''


# ---- mmdet's hook for semi-supervised learning


MEAN_TEACHER = dict(type='mmdet.MeanTeacherHook')


@MODELS.register_module(force=True)
class MeanTeacher(BaseModel):
    """Two classifiers, of which the hook makes one the mean of the other."""

    def __init__(self, data_preprocessor):
        super().__init__()
        self.student, self.teacher = (MODELS.build(student()) for _ in range(2))
        self.data_preprocessor = self.student.data_preprocessor

    def forward(self, inputs, data_samples=None, mode='tensor'):
        return self.student(inputs, data_samples, mode)


@pytest.mark.parametrize(
    'kind', ['mmfakd.FeatureDistill', 'mmrazor.SingleTeacherDistill']
)
def test_hook_that_would_overwrite_the_teacher(kind, work_dir):
    alike = review_distiller(width=2, teacher_width=2)
    model = distillation(None, type=kind, teacher=student(), distiller=alike)
    cfg = config(work_dir, model, epochs=1, hooks=[MEAN_TEACHER])
    cfg.data_preprocessor.type = 'mmpretrain.ClsDataPreprocessor'
    runner = Runner.from_cfg(cfg)
    runner.register_hook(CheckDataHook())
    with pytest.raises(ValueError, match='MeanTeacherHook would overwrite the teacher'):
        runner.train()
    one, other = (
        next(part.parameters())
        for part in (runner.model.teacher, runner.model.architecture)
    )
    assert not torch.equal(one, other)


def test_mean_teachers_without_distillation(work_dir, told):
    model = dict(type='MeanTeacher')
    run(config(work_dir, model, epochs=1, hooks=[MEAN_TEACHER]))
    assert told == []


# ---- hooks that switch to another pipeline, and padding


LOAD = [dict(type='LoadImageFromFile'), dict(type='Resize', scale=(96, 96))]
LABELS = dict(type='LoadAnnotations', with_bbox=True)
PACK = dict(type='PackDetInputs')
YOLOX_SWITCH = dict(type='YOLOXModeSwitchHook', num_last_epochs=1)


def pipeline_switch(*transforms):
    pipeline = [*LOAD, *transforms, PACK]
    return dict(type='PipelineSwitchHook', switch_epoch=1, switch_pipeline=pipeline)


def label_free(folder, hooks, transforms=(), **distiller):
    distiller = dict(pyramid_distiller(), loss_weight=1.0, **distiller)
    model = dict(
        type='mmfakd.FeatureDistill',
        architecture=retinanet(),
        teacher=retinanet(width=16),
        calculate_student_loss=False,
        distiller=distiller,
    )
    cfg = without_validation(detection_run(folder, model, epochs=2))
    cfg.train_dataloader.dataset = dict(
        type='mmfakd.UnlabelledImages',
        data_root=str(folder / 'images'),
        pipeline=[*LOAD, *transforms, PACK],
    )
    cfg.custom_hooks = hooks
    return cfg


@pytest.mark.parametrize(
    ('hook', 'said'),
    [
        (YOLOX_SWITCH, 'YOLOXModeSwitchHook would end .*UnlabelledImages.*`custom_hoo'),
        (
            pipeline_switch(LABELS, dict(type='RandomCrop', crop_size=(64, 64))),
            'PipelineSwitchHook would switch .*it drops those without boxes',
        ),
    ],
)
def test_hooks_that_would_end_a_label_free_training(hook, said, tmp_path):
    with pytest.raises(ValueError, match=said):
        run(label_free(tmp_path, [hook]))


def test_a_label_free_training_with_the_other_hooks(tmp_path, told):
    ema = dict(type='EMAHook', ema_type='ExpMomentumEMA', momentum=2e-4, priority=49)
    hooks = [ema, dict(type='SyncNormHook'), pipeline_switch(LABELS)]
    run(label_free(tmp_path, hooks))
    assert told == []


def test_a_pad_beside_ignore_padding(tmp_path, told):
    pad = dict(type='Pad', size=(128, 128))
    run(label_free(tmp_path, [], [pad], ignore_padding=True))
    (text,) = told
    assert 'what `Pad` adds counts as image' in text and '`pad_size_divisor`' in text
    run(label_free(tmp_path, [], [pad]))
    assert len(told) == 1
    run(label_free(tmp_path, [], ignore_padding=True))
    assert len(told) == 1


# ---- detection


def without_validation(cfg):
    for name in ('val', 'test'):
        for part in ('cfg', 'dataloader', 'evaluator'):
            cfg[f'{name}_{part}'] = None
    return cfg


def detection(folder, classes, num_classes=3):
    cfg = detection_run(folder, retinanet(num_classes=num_classes))
    cfg.train_dataloader.dataset.metainfo.classes = classes
    return without_validation(cfg)


def test_detection(tmp_path, told):
    run(detection(tmp_path, ('a', 'b', 'c')))
    assert told == []


def test_classes_of_another_file(tmp_path):
    with pytest.raises(ValueError, match=r"None of .*'x', 'y', 'z'.*boxes.json"):
        run(detection(tmp_path, ('x', 'y', 'z')))


def test_validation_of_classes_of_another_file(tmp_path):
    """As of COCO's 80, where the names were given to the training set alone."""
    cfg = detection_run(tmp_path, retinanet(num_classes=3))
    del cfg.val_dataloader.dataset['metainfo']
    with pytest.raises(ValueError, match=r"None of .*'person', .*boxes.json"):
        run(cfg)


def test_one_class_of_another_file(tmp_path, told):
    run(detection(tmp_path, ('a', 'b', 'z')))
    assert told[0].startswith('Only 2 of the 3 classes')


def test_names_without_a_comma(tmp_path, told):
    """They are a text. One whose letters are the names is no mistake."""
    cfg = detection(tmp_path, 'abc')
    run(cfg)
    assert told == []
    file = tmp_path / 'boxes.json'
    read = json.loads(file.read_text())
    read['categories'][0]['name'] = 'human'
    file.write_text(json.dumps(read))
    cfg.train_dataloader.dataset.metainfo.classes = 'human'
    run(cfg)
    assert "are a text, 'human', which counts" in told[0]
    assert "Is a comma missing? Give ('human',)." in told[0]


def test_head_with_too_few_classes(tmp_path):
    with pytest.raises(ValueError, match='has 3 classes, .*RetinaNet. has num_class'):
        run(detection(tmp_path, ('a', 'b', 'c'), num_classes=2))


def joined(folder, *sets):
    """A training on data sets that differ in their metainfo."""
    cfg = detection(folder, ('a', 'b', 'c'))
    one = cfg.train_dataloader.dataset
    cfg.train_dataloader.dataset = dict(
        type='ConcatDataset',
        datasets=[one, *(dict(one, metainfo=meta) for meta in sets)],
    )
    return cfg


def test_joined_data_sets(tmp_path, told):
    """Other colours, other letters and the first classes alone are fine."""
    classes = ('a', 'b', 'c')
    coloured = dict(classes=classes, palette=[(1, 2, 3)] * 3)
    run(joined(tmp_path, coloured, dict(coloured, classes=('a', 'b'))))
    assert told == []


def test_joined_data_sets_of_other_classes(tmp_path, told):
    run(
        joined(
            tmp_path,
            dict(classes=('a', 'b', 'c'), palette=1),
            dict(classes=tuple('acb')),
        )
    )
    (text,) = told
    assert text.startswith('The data sets that the ConcatDataset joins have different')
    assert "label 1 is 'b' in the first and 'c' in another" in text


def test_no_images_left(tmp_path):
    cfg = detection(tmp_path, ('a', 'b', 'c'))
    file = tmp_path / 'boxes.json'
    file.write_text(json.dumps(dict(json.loads(file.read_text()), images=[])))
    with pytest.raises(ValueError, match='boxes.json.* has no images'):
        run(cfg)
