# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""The check of a teacher, on real classifiers and detectors."""

import json
import re
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
import yaml
from mmdet.datasets import CocoDataset, CocoPanopticDataset
from mmdet.structures import DetDataSample
from mmengine.config import Config, ConfigDict
from mmengine.evaluator import BaseMetric
from mmengine.registry import METRICS, MODELS
from mmengine.runner import Runner

from mmfakd import cli
from mmfakd.model_zoo.find import zoo_entries
from mmfakd.model_zoo.published_scores import Published, published_scores
from mmfakd.model_zoo.resolve import resolve_model_cfg
from tests.helpers import forked
from tests.helpers.tiny_runs import distillation, run_config, student, teacher

REPOSITORY = Path(__file__).resolve().parents[2]
DIGITS = REPOSITORY / 'configs/fakd/digits'
SHARED = REPOSITORY.parent / 'shared' / 'data'
RESNET56 = SHARED / 'teachers' / 'resnet56_cifar100.pth'
RESNET34 = 'mmpretrain::resnet/resnet34_8xb32_in1k.py'


@pytest.fixture
def call(monkeypatch, capsys, tmp_path):
    """A function that runs the tool: its exit status and what it prints."""
    monkeypatch.chdir(tmp_path)

    def call(config, *arguments):
        arguments = [str(argument) for argument in (config, *arguments)]
        capsys.readouterr()
        with pytest.raises(SystemExit) as error:
            cli.main(['check-teacher', *arguments])
        # A text for an exit status is printed to stderr, and stands for 1.
        code = error.value.code
        if isinstance(code, str):
            return 1, code
        return code, capsys.readouterr().out

    return call


def write(path, model, **kwargs):
    """Write the config of a short digits run."""
    run_config(path.parent, model, validate=True, **kwargs).dump(path)
    return path


def save(path, cfg):
    torch.manual_seed(0)
    model = MODELS.build(ConfigDict(cfg))
    torch.save(dict(state_dict=model.state_dict()), path)
    return path


@pytest.fixture
def weights(tmp_path):
    return save(tmp_path / 'teacher.pth', teacher())


@pytest.fixture
def config(tmp_path):
    return write(tmp_path / 'pair.py', distillation(None))


def top1(text):
    [value] = re.findall(r'^  accuracy/top1: ([\d.]+)', text, re.M)
    return float(value)


def test_score_is_that_of_the_teacher_alone(call, config, weights, tmp_path):
    status, out = call(config, '--teacher-ckpt', weights)
    assert status == 0
    assert 'Teacher ImageClassifier with 10 classes, weights ' in out
    assert 'on Digits (100 images)' in out
    assert 'No metafile lists its score; --expected takes one.' in out
    plain = run_config(tmp_path / 'plain', teacher(), validate=True)
    plain.update(load_from=str(weights), experiment_name='plain')
    expected = Runner.from_cfg(plain).val()
    assert 0 < top1(out) < 100
    assert top1(out) == pytest.approx(expected['accuracy/top1'], abs=1e-3)
    # The training's folder stays clean: its dumped config is that of the training.
    [folder] = (tmp_path / 'work_dirs').iterdir()
    assert folder.name == 'pair_teacher'


def test_a_work_dir_that_cannot_be_written(call, config, tmp_path):
    place = tmp_path / 'pair.py' / 'run'
    status, said = call(config, '--teacher-ckpt', 'gone.pth', '--work-dir', place)
    assert status == 1 and f'The work dir {place} cannot be written: it, or a' in said


@pytest.mark.parametrize(
    ('given', 'message'),
    [
        (['--expected', 0.412], '--expected 0.412: the score is in percent.*41.2'),
        (['--expected', 'nan'], '--expected nan: the score is in percent'),
        (['--expected', 412], '--expected 412: the score is in percent'),
        (['--tolerance', -1], '--tolerance -1: expected percentage points'),
    ],
)
def test_numbers_that_say_nothing(given, message, call, config, weights):
    status, said = call(config, '--teacher-ckpt', weights, *given)
    assert status == 1 and re.search(message, said)


def test_expected_score(call, config, weights):
    _, out = call(config, '--teacher-ckpt', weights)
    score = top1(out)
    arguments = [config, '--teacher-ckpt', weights, '--expected']
    status, out = call(*arguments, score + 0.9)
    assert status == 0
    assert f'{score:.2f} %, expected {score + 0.9:.2f} % (-0.90)' in out
    status, out = call(*arguments, score + 1.1)
    assert status == 3
    assert 'THE TEACHER IS WORSE THAN IT SHOULD BE' in out
    assert "the teacher gets the student's batch as it is; mean, std" in out
    status, _ = call(*arguments, score + 1.1, '--tolerance', '2')
    assert status == 0
    # Better than expected is no reason to stop.
    status, out = call(*arguments, 0)
    assert status == 0 and f'(+{score:.2f})' in out


def test_nothing_to_compare_is_no_good_score(call, config, weights, tmp_path):
    """A metafile that lists what the evaluator does not measure."""
    listed = dict(Metrics={'Top 5 Accuracy': 99, 'box AP': 40})
    entry = dict(Name='pair', Config='pair.py', Metadata=dict(Teacher=listed))
    text = yaml.safe_dump(dict(Models=[entry]))
    (tmp_path / 'metafile.yml').write_text(text)
    arguments = [config, '--teacher-ckpt', weights]
    status, out = call(*arguments)
    assert status == 3
    assert (
        'gives accuracy/top1; Metadata.Teacher of pair lists Top 5 Accuracy, box AP: '
        'NOTHING WAS COMPARED.'
    ) in out
    assert '--expected, or let `val_evaluator` measure accuracy/top5 or coco/' in out
    assert 'are fine' not in out and 'WORSE' not in out
    assert call(*arguments, '--expected', 0)[0] == 0
    both = ['val_evaluator.topk=[1,5]', 'model.teacher_preprocessor.mean=[0.0]']
    status, out = call(*arguments, '--cfg-options', *both)
    assert status == 3 and 'expected 99.00 %' in out and 'WORSE' in out


def test_wrong_input_is_named(call, config, weights):
    options = ['model.teacher_preprocessor.mean=[0.0]']
    status, out = call(
        *(config, '--teacher-ckpt', weights, '--expected', 100),
        *('--cfg-options', *options),
    )
    assert status == 3
    assert re.search(r'gets .* through TeacherInput\(scale=\[1.0\], shift=\[0\.8', out)


def test_renamed_classes_are_a_cause(call, config, weights):
    checkpoint = torch.load(weights)
    names = [
        *[
            'zero',
            'one',
            'two',
            'three',
            'four',
            'five',
            'six',
            'seven',
            'eight',
            'nine',
        ]
    ]
    checkpoint['meta'] = dict(dataset_meta=dict(classes=names))
    torch.save(checkpoint, weights)
    _, out = call(config, '--teacher-ckpt', weights, '--expected', 100)
    assert "its checkpoint names class 0 'zero', the validation set '0'." in out
    # Nor is it silent where no score is expected.
    status, out = call(config, '--teacher-ckpt', weights)
    assert status == 0
    assert "WARNING: its checkpoint names class 0 'zero', the validation set" in out


def test_no_weights(call, config):
    status, message = call(config)
    assert status == 1
    assert message.startswith(
        f'mmfakd check-teacher: {config}: The teacher has no weights'
    )
    assert '--teacher-ckpt' in message


def test_bad_weights(call, config, tmp_path):
    status, message = call(config, '--teacher-ckpt', 'gone.pth')
    assert status == 1 and "'gone.pth' is neither a file" in message
    other = save(tmp_path / 'other.pth', student())
    status, message = call(config, '--teacher-ckpt', other)
    assert status == 1 and 'do not fit' in message


def test_no_teacher_and_no_validation_set(call, tmp_path):
    plain = write(tmp_path / 'plain.py', student())
    status, message = call(plain)
    assert status == 1 and 'ImageClassifier, has no teacher' in message
    cfg = run_config(tmp_path, distillation(None))
    cfg.dump(tmp_path / 'blind.py')
    status, message = call(tmp_path / 'blind.py')
    assert status == 1
    assert 'has no val_dataloader and no val_evaluator and no val_cfg' in message


def test_other_classes(call, tmp_path):
    """A teacher of other classes: no score, no obstacle, and no error."""
    seven = teacher()
    seven['head']['num_classes'] = 7
    weights = save(tmp_path / 'seven.pth', seven)
    config = write(tmp_path / 'pair.py', distillation(None, teacher=seven))
    status, out = call(config, '--teacher-ckpt', weights)
    assert status == 0
    assert 'The teacher predicts 7 classes, the validation set has 10' in out
    assert 'its score cannot be computed here' in out
    assert 'NOTHING WAS COMPARED' not in out
    assert 'Feature distillation goes on all the same' in out
    assert 'accuracy' not in out
    # Where a score is asked for, none is no good one.
    status, out = call(config, '--teacher-ckpt', weights, '--expected', 40)
    assert status == 3 and '--expected 40: NOTHING WAS COMPARED.' in out
    # The weights must be there all the same.
    assert call(config)[0] == 1


def test_under_mmrazor_the_batch_is_not_renormalised(call, tmp_path, weights):
    """Its own algorithm hands over the student's batch, so that is what is checked."""
    own = teacher()
    own['data_preprocessor'] = dict(mean=[0.0], std=[1.0])
    out = {}
    for kind in ('mmfakd.FeatureDistill', 'mmrazor.SingleTeacherDistill'):
        config = write(
            tmp_path / f'{kind.split(".")[1].lower()}.py',
            distillation(None, type=kind, teacher=own),
        )
        arguments = ['--teacher-ckpt', weights, '--expected', 100]
        _, out[kind] = call(config, *arguments)
    assert 'through TeacherInput' in out['mmfakd.FeatureDistill']
    assert "the student's batch as it is" in out['mmrazor.SingleTeacherDistill']


def test_hooks_of_the_training_stay_out(call, tmp_path, weights):
    """Averaging would copy the model, a checkpoint to go on from would replace it."""
    config = write(
        tmp_path / 'pair.py',
        distillation(None),
        hooks=[dict(type='EMAHook'), dict(type='mmfakd.StudentCheckpointHook')],
        load_from='gone.pth',
        resume=True,
    )
    assert call(config, '--teacher-ckpt', weights)[0] == 0


def test_training_images_need_not_be_there(call, tmp_path, weights):
    """mmpretrain's hook for pictures asks for them."""
    config = write(tmp_path / 'pair.py', distillation(None))
    cfg = Config.fromfile(config)
    cfg.default_hooks.visualization = dict(type='VisualizationHook')
    cfg.train_dataloader.dataset = dict(type='CustomDataset', data_root='gone')
    cfg.dump(config)
    assert call(config, '--teacher-ckpt', weights)[0] == 0


def test_as_a_user_calls_it(tmp_path):
    """On the quick start's pair, whose metafile lists 98.80 %, untrained."""
    cfg = Config.fromfile(DIGITS / 'fakd_review_r18w32_r18w4_1xb50_digits.py')
    save(tmp_path / 'teacher.pth', dict(cfg.model.teacher, _scope_='mmpretrain'))
    command = ['-m', 'mmfakd', 'check-teacher', cfg.filename]
    process = forked.run(*command, '--teacher-ckpt', 'teacher.pth', cwd=tmp_path)
    assert process.returncode == 3, process.stderr
    assert 'on Digits (500 images)' in process.stdout
    assert '%, expected 98.80 % (-' in process.stdout
    source = f'Metadata.Teacher of {Path(cfg.filename).stem}'
    assert f'according to {source} on Digits' in process.stdout


@pytest.mark.slow
@pytest.mark.skipif(not RESNET56.is_file(), reason=f'needs the teacher {RESNET56}')
@pytest.mark.parametrize(
    ('images', 'score'),
    [('10', '56.70'), pytest.param('None', '57.31', marks=pytest.mark.matrix)],
)
def test_trained_teacher_of_cifar100(call, tmp_path, monkeypatch, images, score):
    """A teacher of the zoo's format; its top-1 on all, and on ten of each class."""
    monkeypatch.chdir(tmp_path)
    cli.main(['convert', str(RESNET56), '-o', 'r56.pth'])
    config = REPOSITORY / 'configs/fakd/cifar100/fakd_review_r56_r20_1xb64_cifar100.py'
    data = f'val_dataloader.dataset.data_root={SHARED / "cifar100"}'
    arguments = [config, '--teacher-ckpt', 'r56.pth', '--expected', score]
    many = f'val_dataloader.dataset.images_per_class={images}'
    status, out = call(*arguments, '--cfg-options', data, many)
    assert status == 0
    assert f'{score} %, expected {score} % (' in out
    # Red for blue: it shows.
    few = 'val_dataloader.dataset.images_per_class=10'
    swap = 'model.teacher_preprocessor.to_rgb=True'
    status, out = call(*arguments, '--cfg-options', data, few, swap)
    assert status == 3 and top1(out) < 45
    assert 'TeacherInput(identity, flip=True)' in out


def retinanet(preprocessor=None, **head):
    return dict(
        cfg_path='mmdet::retinanet/retinanet_r18_fpn_1x_coco.py',
        data_preprocessor=preprocessor or {},
        backbone=dict(init_cfg=None),
        bbox_head=dict(head, stacked_convs=1),
        test_cfg=dict(score_thr=0.0, max_per_img=20),
    )


CAFFE = dict(mean=[103.53, 116.28, 123.675], std=[1.0, 1.0, 1.0], bgr_to_rgb=False)


@pytest.fixture(scope='module')
def detection(tmp_path_factory):
    """Images whose boxes are what a random detector finds in them.

    So its mean average precision is far from zero, and falls with a wrong input.
    """
    folder = tmp_path_factory.mktemp('detection')
    torch.manual_seed(0)
    model, _ = resolve_model_cfg(retinanet(CAFFE))
    detector = MODELS.build(model).eval()
    torch.nn.init.normal_(detector.bbox_head.retina_cls.weight, std=0.1)
    torch.save(dict(state_dict=detector.state_dict()), folder / 'teacher.pth')
    rng = np.random.default_rng(0)
    images, boxes = [], []
    for i in range(4):
        image = cv2.GaussianBlur(rng.random((96, 128, 3)), (0, 0), 5)
        image = cv2.normalize(image, None, 0, 255, cv2.NORM_MINMAX).astype(np.uint8)
        cv2.imwrite(str(folder / f'{i}.png'), image)
        images.append(dict(id=i, file_name=f'{i}.png', height=96, width=128))
        meta = dict(img_shape=(96, 128), ori_shape=(96, 128), scale_factor=(1.0, 1.0))
        data = dict(
            inputs=[torch.from_numpy(image).permute(2, 0, 1)],
            data_samples=[DetDataSample(metainfo=meta)],
        )
        found = detector.test_step(data)[0].pred_instances[:5]
        for (x1, y1, x2, y2), label in zip(found.bboxes.tolist(), found.labels):
            box = dict(bbox=[x1, y1, x2 - x1, y2 - y1], area=(x2 - x1) * (y2 - y1))
            place = dict(id=len(boxes) + 1, image_id=i, category_id=int(label))
            boxes.append(dict(box, **place, iscrowd=0))
    names = CocoDataset.METAINFO['classes']
    categories = [dict(id=i, name=name) for i, name in enumerate(names)]
    content = dict(images=images, annotations=boxes, categories=categories)
    (folder / 'boxes.json').write_text(json.dumps(content))
    return folder


def detection_config(path, folder, model, classes=None):
    """Write a config that evaluates on the images of the fixture."""
    pipeline = [
        dict(type='LoadImageFromFile'),
        dict(type='Resize', scale=(128, 96), keep_ratio=True),
        dict(
            type='PackDetInputs',
            meta_keys=('img_id', 'ori_shape', 'img_shape', 'scale_factor'),
        ),
    ]
    dataset = dict(
        type='CocoDataset',
        ann_file=str(folder / 'boxes.json'),
        data_prefix=dict(img=str(folder)),
        test_mode=True,
        pipeline=pipeline,
    )
    if classes:
        dataset['metainfo'] = dict(classes=classes)
    cfg = dict(
        default_scope='mmdet',
        work_dir=str(path.parent / 'run'),
        model=model,
        val_dataloader=dict(
            batch_size=1,
            num_workers=0,
            dataset=dataset,
            sampler=dict(type='DefaultSampler', shuffle=False),
        ),
        val_evaluator=dict(
            type='CocoMetric', ann_file=str(folder / 'boxes.json'), metric='bbox'
        ),
        val_cfg=dict(),
        log_level='ERROR',
        experiment_name=path.stem,
    )
    Config(cfg).dump(path)
    return path


def detection_pair(**head):
    neck = dict(type='mmrazor.ModuleOutputs', source='neck')
    return dict(
        type='mmfakd.FeatureDistill',
        architecture=retinanet(**head),
        teacher=retinanet(CAFFE),
        distiller=dict(
            type='mmrazor.ConfigurableDistiller',
            student_recorders=dict(neck=neck),
            teacher_recorders=dict(neck=neck),
        ),
    )


def mean_average_precision(text):
    [value] = re.findall(r'^  coco/bbox_mAP: ([\d.]+) %', text, re.M)
    return float(value)


def test_detector(call, tmp_path, detection):
    """A teacher of caffe's normalisation for a student of torch's."""
    config = detection_config(tmp_path / 'pair.py', detection, detection_pair())
    arguments = [config, '--teacher-ckpt', detection / 'teacher.pth']
    status, out = call(*arguments)
    # Of the metafile's entry for the config that the teacher is taken from.
    assert status == 0 and 'expected 31.70 % (+' in out
    plain = Config.fromfile(
        detection_config(tmp_path / 'plain.py', detection, retinanet(CAFFE))
    )
    plain.model, _ = resolve_model_cfg(plain.model)
    plain.load_from = str(detection / 'teacher.pth')
    expected = 100 * Runner.from_cfg(plain).val()['coco/bbox_mAP']
    assert expected > 20
    assert mean_average_precision(out) == pytest.approx(expected, abs=0.01)
    wrong = ['--cfg-options', 'model.teacher_preprocessor.std=[9.0,9.0,9.0]']
    status, out = call(*arguments, '--expected', expected, *wrong)
    assert status == 3
    assert mean_average_precision(out) < expected / 2


def test_detector_without_masks_for_a_student_with_masks(call, tmp_path, detection):
    config = detection_config(tmp_path / 'pair.py', detection, detection_pair())
    status, out = call(
        *(config, '--teacher-ckpt', detection / 'teacher.pth'),
        *('--cfg-options', 'val_evaluator.metric=[bbox,segm]'),
    )
    assert status == 0
    assert 'The teacher predicts no masks: its boxes are scored.' in out
    assert mean_average_precision(out) > 20


def teacher_of(model, folder):
    """A pair with another teacher, at random, whose weights are written."""
    cfg, _ = resolve_model_cfg(model)
    save(folder / 'own.pth', cfg)
    return dict(detection_pair(), teacher=model, teacher_ckpt=str(folder / 'own.pth'))


def test_masks_of_a_head_that_does_not_say_so(call, tmp_path, detection):
    """RTMDet-Ins predicts boxes and masks in one head: `with_mask` is False."""
    ins = dict(
        cfg_path='mmdet::rtmdet/rtmdet-ins_tiny_8xb32-300e_coco.py',
        backbone=dict(init_cfg=None),
        test_cfg=dict(score_thr=0.0, max_per_img=5),
    )
    content = json.loads((detection / 'boxes.json').read_text())
    for box in content['annotations']:
        x, y, width, height = box['bbox']
        corners = [x, y, x + width, y, x + width, y + height, x, y + height]
        box['segmentation'] = [corners]
    (tmp_path / 'masks.json').write_text(json.dumps(content))
    pair = teacher_of(ins, tmp_path)
    config = detection_config(tmp_path / 'pair.py', detection, pair)
    masks = tmp_path / 'masks.json'
    options = [f'{part}.ann_file={masks}' for part in ('val_evaluator',)]
    options += [f'val_dataloader.dataset.ann_file={masks}']
    status, out = call(
        *(config, '--expected', '0', '--cfg-options', *options),
        'val_evaluator.metric=[bbox,segm]',
    )
    assert status == 0 and 'predicts no masks' not in out
    assert 'coco/segm_mAP: ' in out and 'coco/bbox_mAP: ' in out


@METRICS.register_module(force=True)
class PanopticQuality(BaseMetric):
    """Stands for mmdet's, which needs a package more."""

    default_prefix = 'coco_panoptic'

    def process(self, data_batch, data_samples):
        self.results += ['pred_panoptic_seg' in sample for sample in data_samples]

    def compute_metrics(self, results):
        return dict(PQ=40.0 * np.mean(results))


def test_panoptic_detector(call, tmp_path, detection):
    """80 classes of things in its head, 133 of things and stuff in the data set."""
    panoptic = dict(
        cfg_path='mmdet::panoptic_fpn/panoptic-fpn_r50_fpn_1x_coco.py',
        backbone=dict(depth=18, init_cfg=None),
        neck=dict(in_channels=[64, 128, 256, 512]),
    )
    pair = teacher_of(panoptic, tmp_path)
    config = detection_config(
        *(tmp_path / 'pair.py', detection, pair),
        classes=CocoPanopticDataset.METAINFO['classes'],
    )
    # Its boxes are no matter here.
    metric = "val_evaluator={'_delete_':True,'type':'PanopticQuality'}"
    status, out = call(config, '--expected', '40', '--cfg-options', metric)
    assert status == 0
    assert 'Teacher PanopticFPN with 133 classes' in out
    assert 'coco_panoptic/PQ: 40.00 %, expected 40.00 % (+0.00)' in out
    status, text = call(config)
    assert status == 1
    assert "asks for 'pred_instances', which its teacher, a PanopticFPN, does" in text
    # Of things alone it predicts no instances.
    names = "val_dataloader.dataset.metainfo.classes=['person','car']"
    status, out = call(config, '--expected', '40', '--cfg-options', names)
    assert status == 3
    assert 'The teacher predicts 133 classes, the validation set has 2' in out


def test_detector_that_finds_nothing(call, tmp_path, detection):
    config = detection_config(tmp_path / 'pair.py', detection, detection_pair())
    status, out = call(
        *(config, '--teacher-ckpt', detection / 'teacher.pth'),
        *('--cfg-options', 'model.teacher.test_cfg.score_thr=1.0'),
    )
    assert status == 3
    assert 'The teacher predicts nothing at all on the validation set.' in out


def test_detector_of_other_classes(call, tmp_path, detection):
    """COCO's 80 against three of one's own, under names of the images' file."""
    config = detection_config(
        *(tmp_path / 'pair.py', detection, detection_pair(num_classes=3)),
        classes=('person', 'bicycle', 'car'),
    )
    status, out = call(config, '--teacher-ckpt', detection / 'teacher.pth')
    assert status == 0
    assert 'The teacher predicts 80 classes, the validation set has 3' in out


@pytest.fixture
def published(tmp_path):
    """A function: what is published of the teacher of a config."""

    def published(teacher, **model):
        path = tmp_path / 'pair.py'
        cfg = dict(model=dict(type='mmfakd.FeatureDistill', teacher=teacher, **model))
        Config(cfg).dump(path)
        return published_scores(Config.fromfile(path))

    return published


@pytest.mark.parametrize(
    ('path', 'name', 'scores'),
    [
        (
            RESNET34,
            'resnet34_8xb32_in1k',
            {'Top 1 Accuracy': 73.62, 'Top 5 Accuracy': 91.59},
        ),
        (
            'mmdet::mask_rcnn/mask-rcnn_r50_fpn_1x_coco.py',
            'mask-rcnn_r50_fpn_1x_coco',
            {'box AP': 38.2, 'mask AP': 34.7},
        ),
    ],
)
def test_scores_of_a_package(published, path, name, scores):
    found = published(dict(cfg_path=path))
    assert (found.source, found.scores) == (name, scores)
    assert found.dataset in ('ImageNet-1k', 'COCO')


def test_scores_of_the_weights_that_are_asked_for(published):
    """One config, two trainings of it: the metafile has an entry for each."""
    path = 'mmpretrain::vision_transformer/vit-base-p32_64xb64_in1k-384px.py'
    entries = [e for e in zoo_entries('mmpretrain') if path[12:] in e['Config']]
    assert entries
    for entry in entries:
        for weights in (entry['Name'], entry['Weights'], Path(entry['Weights']).name):
            found = published(dict(cfg_path=path), teacher_ckpt=weights)
            assert found.source == entry['Name']


def test_another_number_of_classes_has_no_published_score(published):
    teacher = dict(cfg_path=RESNET34, head=dict(num_classes=7))
    assert published(teacher) is None


def test_scores_of_own_metafiles(published, tmp_path):
    entry = dict(Name='pair', Config='configs/pair.py')
    teacher_entry = dict(Name='t', Config='configs/t.py')

    def find(teacher, **metadata):
        models = [dict(entry, Metadata=metadata), teacher_entry]
        (tmp_path / 'metafile.yml').write_text(yaml.safe_dump(dict(Models=models)))
        return published(teacher)

    assert find(dict(type='ImageClassifier')) is None
    assert find(dict(), Teacher=dict(Config='configs/t.py')) is None
    found = find(dict(), Teacher=dict(Metrics={'Top 1 Accuracy': 70, 'Loss': 1}))
    assert found == Published('Metadata.Teacher of pair', '', {'Top 1 Accuracy': 70.0})
    results = [dict(Dataset='D', Metrics={'Top 1 Accuracy': 71.5}, Task='any')]
    teacher_entry['Results'] = results
    found = find(dict(), Teacher=dict(Config='configs/t.py'))
    assert found == Published('t', 'D', {'Top 1 Accuracy': 71.5})
    # By the path of the teacher's config, whose metafile lies beside it.
    assert find(dict(cfg_path=str(tmp_path / 't.py'))) == found


@pytest.mark.parametrize('path', sorted(DIGITS.glob('*r18w32_r18w4*.py')))
def test_quick_start_knows_its_teacher(path):
    found = published_scores(Config.fromfile(path))
    source = f'Metadata.Teacher of {path.stem}'
    assert found == Published(source, 'Digits', {'Top 1 Accuracy': 98.8})
