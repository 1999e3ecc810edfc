# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""Pictures of what teacher and student detect, on real images where there are some."""

import json
import shutil
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import torch
from mmcv.transforms import Compose, LoadImageFromFile
from mmdet.datasets.transforms import PackDetInputs
from mmdet.structures import DetDataSample
from mmdet.structures.mask import BitmapMasks
from mmengine.config import Config
from mmengine.registry import MODELS, init_default_scope
from mmengine.structures import InstanceData, PixelData

from mmfakd import cli
from mmfakd.analysis import detections
from mmfakd.analysis.validation_set import ValidationSet
from mmfakd.utils import export_student
from tests.helpers.tiny_runs import distillation, run_config
from tests.helpers.toy_detectors import detection_run, pyramid_distiller, retinanet

REPOSITORY = Path(__file__).resolve().parents[2]
BCCD = REPOSITORY.parent / 'shared' / 'data' / 'bccd'

BAR, GAP = 24, 4


def distill(teacher_ckpt, width=8, **kwargs):
    return dict(
        type='mmfakd.FeatureDistill',
        architecture=retinanet(width=width),
        teacher=retinanet(**kwargs),
        teacher_ckpt=str(teacher_ckpt),
        distiller=pyramid_distiller(),
    )


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    """Three images, a config, and checkpoints of teacher and student."""
    folder = tmp_path_factory.mktemp('pictures')
    cfg = detection_run(folder, distill(folder / 'teacher.pth'))
    if BCCD.is_dir():
        # Blood cells at a quarter of their size, under the names of the noise.
        content = json.loads((BCCD / 'annotations/test.json').read_text())
        content['images'] = content['images'][:3]
        for i, info in enumerate(content['images']):
            image = cv2.imread(str(BCCD / 'images' / info['file_name']))
            image = cv2.resize(image, (160, 120), interpolation=cv2.INTER_AREA)
            cv2.imwrite(str(folder / 'images' / f'{i}.png'), image)
            info.update(file_name=f'{i}.png', height=120, width=160)
        for box in content['annotations']:
            box['bbox'] = [value / 4 for value in box['bbox']]
        for category, name in zip(content['categories'], 'abc'):
            category['name'] = name
        (folder / 'boxes.json').write_text(json.dumps(content))
    # Where stock configs have it.
    cfg.data_preprocessor = cfg.model.architecture.pop('data_preprocessor')
    cfg.dump(folder / 'pair.py')
    torch.manual_seed(0)
    meta = dict(dataset_meta=dict(classes=('a', 'b', 'c')), cfg=cfg.pretty_text)
    model = MODELS.build(cfg.model)
    torch.save(
        dict(meta=meta, state_dict=model.teacher.state_dict()), folder / 'teacher.pth'
    )
    checkpoint = dict(meta=meta, state_dict=model.state_dict())
    torch.save(checkpoint, folder / 'epoch_1.pth')
    torch.save(export_student(checkpoint), folder / 'student.pth')
    return folder


@pytest.fixture
def call(monkeypatch, capsys, tmp_path):
    """A function that runs the tool: its pictures by name, and what it prints."""

    def call(config, *arguments, out='out'):
        out = tmp_path / out
        arguments = [config, *arguments, '-o', out, '--device', 'cpu']
        arguments = [str(argument) for argument in arguments]
        capsys.readouterr()
        cli.main(['detections', *arguments])
        pictures = {path.name: cv2.imread(str(path)) for path in out.iterdir()}
        return pictures, capsys.readouterr().out

    return call


def panels(picture, image):
    """Cut a picture into its panels, without their titles."""
    height, width = image.shape[:2]
    count = (picture.shape[1] + GAP) // (width + GAP)
    assert picture.shape == (BAR + height, count * (width + GAP) - GAP, 3)
    cut = [
        picture[BAR:, i * (width + GAP) : i * (width + GAP) + width]
        for i in range(count)
    ]
    # There is something in the bar over each of them.
    for i in range(count):
        assert (picture[:BAR, i * (width + GAP) :][:, :width] < 128).any()
    return cut


def image_of(folder, name):
    return cv2.imread(str(folder / 'images' / name))


def test_images_are_not_overwritten(call, folder, tmp_path):
    (tmp_path / 'own').mkdir()
    image = shutil.copy(folder / 'images/0.png', tmp_path / 'own')
    before = Path(image).read_bytes()
    with pytest.raises(SystemExit, match='is a file that this command reads'):
        call(
            folder / 'pair.py',
            folder / 'student.pth',
            *('--images', tmp_path / 'own'),
            out='own',
        )
    assert Path(image).read_bytes() == before


def test_three_panels_of_images_of_the_validation_set(call, folder):
    pictures, out = call(
        folder / 'pair.py', folder / 'epoch_1.pth', '--num', 2, '--score-thr', 0
    )
    total = 3 if BCCD.is_dir() else 4
    assert sorted(pictures) == ['0.png', f'{total - 1}.png']
    truth = json.loads((folder / 'boxes.json').read_text())['annotations']
    first = min(box['image_id'] for box in truth)
    for name, picture in pictures.items():
        image = image_of(folder, name)
        drawn = panels(picture, image)
        assert len(drawn) == 3
        assert not any(np.array_equal(panel, image) for panel in drawn)
    boxes = [box['bbox'] for box in truth if box['image_id'] == first]
    assert f'0.png: ground truth {len(boxes)}, teacher 10, student 10' in out


def test_only_boxes_and_names_are_drawn(call, folder):
    """The ground truth, whose places are known in pixels of the file."""
    pictures, _ = call(folder / 'pair.py', folder / 'epoch_1.pth', '--num', 1)
    image = image_of(folder, '0.png')
    changed = (panels(pictures['0.png'], image)[0] != image).any(-1)
    truth = json.loads((folder / 'boxes.json').read_text())['annotations']
    first = min(box['image_id'] for box in truth)
    near = np.zeros_like(changed)
    for x, y, width, height in (
        box['bbox'] for box in truth if box['image_id'] == first
    ):
        left, top, right, bottom = map(round, (x, y, x + width, y + height))
        edge = changed[max(top, 0) : bottom, max(left - 1, 0) : left + 2]
        assert edge.any(1).mean() > 0.9
        near[max(top - 3, 0) : bottom + 4, max(left - 3, 0) : right + 4] = True
        # Names begin in the corner of a box and may be wider than it.
        near[max(top, 0) : top + 20, max(left, 0) : left + 30] = True
    assert not (changed & ~near).any()


def test_exported_student_gives_the_same_pictures(call, folder):
    arguments = ['--score-thr', 0, '--num', 3]
    ours, _ = call(folder / 'pair.py', folder / 'epoch_1.pth', *arguments)
    same, _ = call(folder / 'pair.py', folder / 'student.pth', *arguments, out='other')
    assert ours.keys() == same.keys() and len(ours) == 3
    assert all(np.array_equal(ours[name], same[name]) for name in ours)


def test_same_detections_same_panels(call, folder):
    """The teacher as its own student."""
    arguments = [folder / 'pair.py', folder / 'teacher.pth', '--score-thr', 0]
    arguments += ['--num', 1, '--teacher-ckpt', folder / 'teacher.pth']
    pictures, _ = call(*arguments)
    _, teacher, student = panels(pictures['0.png'], image_of(folder, '0.png'))
    assert np.array_equal(teacher, student)
    # The teacher gets what it would get in this distillation.
    wrong = 'model.teacher_preprocessor.std=[1.0,1.0,1.0]'
    pictures, _ = call(*arguments, '--cfg-options', wrong, out='other')
    _, other, same = panels(pictures['0.png'], image_of(folder, '0.png'))
    assert np.array_equal(same, student) and not np.array_equal(other, teacher)


def test_images_from_anywhere(call, folder, tmp_path):
    """Two panels, or three if the file is one of the validation set."""
    (tmp_path / 'mine' / 'deeper').mkdir(parents=True)
    for place in ('one.PNG', 'deeper/one.png'):
        shutil.copy(folder / 'images/0.png', tmp_path / 'mine' / place)
    (tmp_path / 'mine' / 'notes.txt').write_text('no image')
    (tmp_path / 'link.png').symlink_to(folder / 'images/1.png')
    images = ['--images', tmp_path / 'mine', tmp_path / 'link.png']
    pictures, out = call(folder / 'pair.py', folder / 'epoch_1.pth', *images)
    assert sorted(pictures) == ['1.png', 'one.png', 'one_2.png']
    image = image_of(folder, '0.png')
    assert len(panels(pictures['one.png'], image)) == 2
    assert np.array_equal(pictures['one.png'], pictures['one_2.png'])
    assert len(panels(pictures['1.png'], image_of(folder, '1.png'))) == 3
    assert out.count('ground truth') == 1


def test_checkpoints_that_are_gone(call, folder, tmp_path):
    """Options are named that the command has."""
    with pytest.raises(SystemExit, match=r"student checkpoint: 'gone\.pth'.*path\.$"):
        call(folder / 'pair.py', 'gone.pth')
    config = tmp_path / 'moved.py'
    config.write_text((folder / 'pair.py').read_text().replace('teacher.pth', 'no.pth'))
    with pytest.raises(SystemExit, match=r'no\.pth.* `--teacher-ckpt` takes another'):
        call(config, folder / 'student.pth')


def test_images_without_a_validation_set(call, folder, tmp_path):
    config = tmp_path / 'moved.py'
    text = (folder / 'pair.py').read_text()
    config.write_text(text.replace('boxes.json', 'gone.json'))
    arguments = [config, folder / 'student.pth']
    pictures, _ = call(*arguments, '--images', folder / 'images/0.png')
    assert len(panels(pictures['0.png'], image_of(folder, '0.png'))) == 2
    with pytest.raises(SystemExit, match=r'gone\.json.* Give --images'):
        call(*arguments)


def test_validation_set_of_a_config_in_pure_python(folder):
    """Its types are classes."""
    cfg = Config.fromfile(folder / 'pair.py')
    pipeline = cfg.val_dataloader.dataset.pipeline
    kinds = dict(LoadImageFromFile=LoadImageFromFile, PackDetInputs=PackDetInputs)
    for transform in pipeline:
        transform['type'] = kinds.get(transform['type'], transform['type'])
    init_default_scope('mmdet')
    validation = ValidationSet(cfg)
    [info] = validation.take_evenly(1)
    image, truth = validation.ground_truth(info)
    assert image.shape[:2] == image_of(folder, '0.png').shape[:2]
    assert len(truth.gt_instances) == len(info['instances'])
    validation.pipeline = [t for t in pipeline if t['type'] is not LoadImageFromFile]
    with pytest.raises(ValueError, match="'PackDetInputs'.*reads no image files"):
        validation.ground_truth(info)


def test_masks_are_filled():
    """A mask changes the inside of its box, too."""
    image = np.full((60, 80, 3), 200, np.uint8)
    found = InstanceData(
        bboxes=torch.tensor([[10.0, 10.0, 50.0, 50.0]]),
        labels=torch.tensor([1]),
        scores=torch.tensor([0.9]),
    )
    box, masked = DetDataSample(pred_instances=found), DetDataSample()
    masked.pred_instances = found.clone()
    masks = torch.zeros(1, 60, 80, dtype=torch.bool)
    masks[:, 30:45, 15:45] = True
    masked.pred_instances.masks = masks
    truth = DetDataSample(gt_instances=InstanceData(bboxes=found.bboxes))
    truth.gt_instances.labels = found.labels
    truth.gt_instances.masks = BitmapMasks(masks.numpy().astype(np.uint8), 60, 80)
    samples = {'ground truth': truth, 'box': box, 'masks': masked}
    names = {title: ['a', 'b'] for title in samples}
    picture, counts = detections.draw(image, samples, names, 0.3)
    assert counts == {'ground truth': 1, 'box': 1, 'masks': 1}
    inside = [(panel[33:42, 20:40] != 200).mean() for panel in panels(picture, image)]
    assert inside == [1, 0, 1]
    picture, counts = detections.draw(image, samples, names, 0.95)
    assert counts == {'ground truth': 1, 'box': 0, 'masks': 0}
    assert (panels(picture, image)[1] == 200).all()


class Panoptic(torch.nn.Module):
    """Predicts a map, and keeps the annotations of its image beside it."""

    def val_step(self, data):
        [sample] = data['data_samples']
        sample = sample.clone()
        sample.pred_panoptic_seg = PixelData(sem_seg=torch.zeros(1, 4, 4))
        return [sample]


class Boxes(Panoptic):
    def val_step(self, data):
        [sample] = super().val_step(data)
        sample.pred_instances = InstanceData()
        return [sample]


@pytest.mark.parametrize('role', ['teacher', 'student'])
def test_maps_are_no_boxes(role):
    """They were drawn as the ground truth, under the name of the model."""
    parts = dict(teacher=Boxes(), student=Boxes())
    parts[role] = Panoptic()
    model = SimpleNamespace(teacher=parts['teacher'], architecture=parts['student'])
    model.val_step = model.teacher.val_step
    truth = DetDataSample(gt_instances=InstanceData(labels=torch.zeros(2)))
    pipeline = Compose([lambda info: dict(info, data_samples=truth)])
    message = f'its {role}, a Panoptic, predicts no boxes: panoptic detectors'
    with pytest.raises(ValueError, match=message):
        detections.detect(model, pipeline, dict(img_path='0.png'))
    parts[role].val_step = Boxes().val_step
    model.val_step = parts['teacher'].val_step
    assert detections.detect(model, pipeline, {}).keys() == {'teacher', 'student'}


def test_detector_of_masks(call, folder):
    """Real masks of a real detector, beside a student of boxes."""
    config = Config.fromfile(folder / 'pair.py')
    torch.manual_seed(0)
    teacher = dict(
        cfg_path='mmdet::rtmdet/rtmdet-ins_tiny_8xb32-300e_coco.py',
        backbone=dict(init_cfg=None),
        bbox_head=dict(num_classes=3),
        test_cfg=dict(score_thr=0.0, max_per_img=5),
    )
    config.model.teacher = teacher
    config.model.distiller = dict(type='mmrazor.ConfigurableDistiller')
    config.dump(folder / 'masks.py')
    weights = MODELS.build(config.model).teacher.state_dict()
    torch.save(weights, folder / 'masks.pth')
    pictures, out = call(
        *(folder / 'masks.py', folder / 'student.pth', '--score-thr', 0, '--num', 1),
        *('--teacher-ckpt', folder / 'masks.pth'),
    )
    assert 'teacher 5, student 10' in out
    image = image_of(folder, '0.png')
    _, teacher, student = panels(pictures['0.png'], image)
    changed = [(panel != image).any(-1).mean() for panel in (teacher, student)]
    assert changed[0] > changed[1]


def test_names_of_classes(folder, tmp_path):
    model = MODELS.build(retinanet())

    def names(meta, dataset):
        torch.save(dict(meta=meta, state_dict={}), tmp_path / 'file.pth')
        return detections.class_names(model, str(tmp_path / 'file.pth'), dataset)

    own, other = ('x', 'y', 'z'), ('u', 'v', 'w')
    assert names(dict(dataset_meta=dict(classes=own)), other) == list(own)
    # Files of mmdet 2, of other numbers of classes, without names.
    assert names(dict(CLASSES=own), other) == list(own)
    assert names(dict(dataset_meta=dict(classes=own[:2])), other) == list(other)
    assert names({}, other) == list(other)
    assert names({}, other[:2]) == ['class 0', 'class 1', 'class 2']


def test_order_of_classes(call, folder):
    """mmdet numbers classes as the annotation file does."""
    arguments = [folder / 'pair.py', folder / 'student.pth', '--num', 1]
    assert 'WARNING' not in call(*arguments)[1]
    option = "val_dataloader.dataset.metainfo.classes=['b','a','c']"
    _, out = call(*arguments, '--cfg-options', option)
    assert "WARNING: `metainfo` has the classes ['b', 'a', 'c'], their order in" in out
    assert "is ['a', 'b', 'c']. The order in the file counts" in out
    assert "the teacher has classes of its own: its checkpoint names class 0 'a'" in out


def test_no_pictures_at_all(call, folder, capsys):
    with pytest.raises(SystemExit, match='2'):
        call(folder / 'pair.py', folder / 'student.pth', '--num', 0)
    assert 'argument --num' in capsys.readouterr().err


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        (['--images', 'nowhere.jpg'], "'nowhere.jpg' is neither a file nor a folder"),
        (['--images', '.'], 'has no images'),
        (['--teacher-ckpt', 'nowhere.pth'], 'nowhere.pth'),
        (
            ['--cfg-options', 'model.architecture.bbox_head.num_classes=4'],
            'student checkpoint .* do not fit .*retina_cls',
        ),
    ],
)
def test_errors(call, folder, options, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit, match=f'pair.py: .*{message}'):
        call(folder / 'pair.py', folder / 'student.pth', *options)
    assert not (tmp_path / 'out').exists()


@pytest.mark.parametrize('score', ['30', 'nan'])
def test_scores_above_all(call, folder, score):
    with pytest.raises(SystemExit, match=f'--score-thr {score}: nothing would be'):
        call(folder / 'pair.py', folder / 'student.pth', '--score-thr', score)


def test_configs_without_detectors(call, folder, tmp_path):
    classifiers = tmp_path / 'classifiers.py'
    run_config(tmp_path, distillation(None)).dump(classifiers)
    with pytest.raises(SystemExit, match='its student is a ImageClassifier'):
        call(classifiers, folder / 'student.pth')
    alone = tmp_path / 'alone.py'
    Config(dict(model=retinanet())).dump(alone)
    with pytest.raises(SystemExit, match='RetinaNet, has no teacher'):
        call(alone, folder / 'student.pth')
