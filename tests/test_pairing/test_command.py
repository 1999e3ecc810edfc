# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""Configs that the command writes, and what it says to bad input."""

import argparse
import shlex
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.registry import MODELS, init_default_scope

from mmfakd.cli import main, make_parser
from mmfakd.engine.launch import merge_launch_options
from mmfakd.model_zoo.inline_models import inline_models
from mmfakd.pairing.methods import DEFAULT_METHOD, METHODS
from tests.helpers import forked
from tests.helpers.toy import batch, classifier, step, without_gradient
from tests.helpers.toy_detectors import retinanet

ROOT = Path(__file__).resolve().parents[2]
R18, R34 = 'resnet18_8xb32_in1k', 'resnet34_8xb32_in1k'
R34_R18 = """\
# FAM-KD in the review pyramid (arXiv 2403.05894): resnet34_8xb32_in1k teaches
# resnet18_8xb32_in1k. Data, schedule and runtime are the student's own. Written by
#   mmfakd pair resnet18_8xb32_in1k resnet34_8xb32_in1k --method fakd-review
#     --loss-weight 1
_base_ = 'mmpretrain::resnet/resnet18_8xb32_in1k.py'

# Channels x height x width.
student_levels = [
    'backbone.layer1',  # 64 x 56 x 56
    'backbone.layer2',  # 128 x 28 x 28
    'backbone.layer3',  # 256 x 14 x 14
    'backbone.layer4',  # 512 x 7 x 7
    'neck.gap',  # 512 x 1 x 1
]
teacher_levels = [
    'backbone.layer1',  # 64 x 56 x 56
    'backbone.layer2',  # 128 x 28 x 28
    'backbone.layer3',  # 256 x 14 x 14
    'backbone.layer4',  # 512 x 7 x 7
    'neck.gap',  # 512 x 1 x 1
]
model = dict(
    _delete_=True,
    type='mmfakd.FeatureDistill',
    architecture={{_base_.model}},
    teacher=dict(cfg_path='mmpretrain::resnet/resnet34_8xb32_in1k.py'),
    teacher_ckpt='resnet34_8xb32_in1k',
    distiller=dict(
        type='mmfakd.ReviewDistiller',
        student_levels=student_levels,
        teacher_levels=teacher_levels,
        # 1 is the published weight of R34-R18 on ImageNet. Others are 0.8 to 20, and
        # CIFAR-100 has warmup=dict(by_epoch=True, begin=0, end=20).
        loss_weight=1.0,
        connector=dict(
            type='mmfakd.ReviewConnector',
            in_channels=[64, 128, 256, 512, 512],
            out_channels=[64, 128, 256, 512, 512],
            sizes=[56, 28, 14, 7, 1],  # the teacher's
        ),
    ),
)
# They join the student's hooks.
default_hooks = dict(
    checkpoint=dict(
        type='mmfakd.SafeCheckpointHook',
        max_keep_ckpts=3,
        save_best='auto',
    ),
    resume=dict(type='mmfakd.ResumeHook'),
    provenance=dict(type='mmfakd.ProvenanceHook'),
    preemption=dict(type='mmfakd.PreemptionHook'),
    learning_rate=dict(type='mmfakd.LearningRateHook'),
    student=dict(type='mmfakd.StudentCheckpointHook'),
    check_finite=dict(type='mmfakd.CheckFiniteHook'),
    first_step=dict(type='mmfakd.FirstStepHook'),
    epoch_seed=dict(type='mmfakd.EpochSeedHook'),
)
"""


@pytest.fixture
def make(tmp_path, capsys):
    """Run the command; returns the config and what was printed."""

    def run(*arguments, out=tmp_path / 'pair.py'):
        main(['pair', *map(str, arguments), '-o', str(out), '--force'])
        return Config.fromfile(out), capsys.readouterr().out

    return run


def test_the_published_pair(make, tmp_path):
    """Levels, channels and sizes of the paper, and nothing but them."""
    cfg, text = make(R18, R34, '--method', 'fakd-review', '--loss-weight', 1)
    assert (tmp_path / 'pair.py').read_text() == R34_R18

    shipped = Config.fromfile(
        ROOT / 'configs/fakd/imagenet/fakd_review_r34_r18_8xb32_in1k.py'
    )
    assert cfg.model.distiller == shipped.model.distiller
    assert cfg.model.architecture == shipped.model.architecture
    for key in ('train_dataloader', 'optim_wrapper', 'param_scheduler', 'train_cfg'):
        assert cfg[key] == Config.fromfile(cfg.filename)[key]
    rows = [line.split() for line in text.splitlines()]
    assert ['backbone.layer3', '256', '14x14'] * 2 in rows
    assert 'levels of one stride' in text
    assert f'Weights of the teacher: {R34}' in text
    assert '--levels "backbone.layer1,backbone.layer2,' in text
    assert 'Filters, level by level: dense, dense, dense, dense, dense' in text
    added = MODELS.build(shipped.model.distiller).parameters()
    assert f'Training adds {sum(p.numel() for p in added):,} weights' in text


def test_same_command_same_file(make, tmp_path):
    texts = []
    for folder in ('once', 'again, é'):
        out = tmp_path / folder / 'pair.py'
        _, said = make('mobilenet-v2_8xb32_in1k', R18, '--input-size', 64, out=out)
        assert shlex.split(said.splitlines()[-1]) == ['mmfakd', 'train', str(out)]
        texts.append(out.read_text())
    assert texts[0] == texts[1]


def test_shapes_come_from_the_given_size(make):
    cfg, text = make(R18, R34, '--input-size', '64x96')
    sizes = [(16, 24), (8, 12), (4, 6), (2, 3), 1]
    assert cfg.model.distiller.connector.sizes == sizes
    assert 'WARNING: the config is for images of 64x96, the pipeline' in text


def test_tokens_teach_maps(make):
    cfg, text = make(
        'mobilenet-v2_8xb32_in1k', 'deit-tiny_4xb256_in1k', '--method', 'fakd-review'
    )
    distiller = cfg.model.distiller
    assert distiller.student_levels == [
        *(f'backbone.layer{i}' for i in (2, 3, 5, 7)),
        'neck.gap',
    ]
    assert distiller.teacher_levels == [
        *(
            dict(recorder=f'backbone.layers.{i}', tokens=dict(prefix=1))
            for i in (2, 5, 8, 11)
        ),
        dict(recorder='backbone', data_idx=0),
    ]
    assert distiller.connector.sizes == [14, 14, 14, 14, 1]
    # Tokens have negative values.
    assert distiller.connector.act_cfg is None
    assert 'Not taken of the student: backbone.layer1 (16 x 112 x 112' in text
    assert 'any of the blocks backbone.layers.0 to backbone.layers.11' in text


@pytest.mark.parametrize('method', ['fakd-layer', 'reviewkd', 'kd'])
def test_other_methods(make, method):
    cfg, _ = make(R18, 'resnet50_8xb32_in1k', '--method', method)
    distiller = cfg.model.distiller
    if method == 'kd':
        assert distiller.type == 'mmrazor.ConfigurableDistiller'
        for role in ('student', 'teacher'):
            assert distiller[f'{role}_recorders'].logits.source == 'head.fc'
        return
    connector = distiller.connector
    assert connector.in_channels == [64, 128, 256, 512, 512]
    assert connector.out_channels == [256, 512, 1024, 2048, 2048]
    assert connector.sizes == [56, 28, 14, 7, 1]
    if method == 'reviewkd':
        assert connector.mid_channels == 512
        assert distiller.level_loss.type == 'mmfakd.HierarchicalContextLoss'
    else:
        assert connector.type == 'mmfakd.LayerwiseConnector'
        # 64 x 256 channels on 56 x 56 are more than 16 M weights; a vector is small.
        assert [c.get('groups') for c in connector.connector] == [4, 4, 4, 4, None]
        assert {c.high_pass for c in connector.connector} == {0}


def test_named_levels(make):
    levels = 'backbone.layer2.0=backbone.layer2, backbone.layer4,neck'
    cfg, text = make(R18, R34, '--levels', levels, '--input-size', 64)
    assert cfg.model.distiller.student_levels == [
        'backbone.layer2.0',
        'backbone.layer4',
        dict(recorder='neck', data_idx=0),
    ]
    assert cfg.model.distiller.teacher_levels[0] == 'backbone.layer2'
    assert 'as named by --levels' in text


def test_one_level_of_the_student_for_two_of_the_teacher(make):
    levels = 'backbone.layer2=backbone.layer2.2,backbone.layer2,'
    cfg, _ = make(R18, R34, '--levels', levels, '--input-size', 64)
    assert cfg.model.distiller.student_levels == ['backbone.layer2'] * 2


def test_weights(make):
    weights = ['--teacher-ckpt', 'a.pth', '--student-ckpt', 'b.pth']
    cfg, text = make(R18, R34, *weights, '--input-size', 64)
    assert (cfg.model.teacher_ckpt, cfg.model.student_ckpt) == ('a.pth', 'b.pth')
    assert 'Weights of' not in text


STUDENT = """\
_base_ = '{data}'
model = {model}
default_scope = 'mmpretrain'
data_preprocessor = dict(num_classes=10, mean=[0.0] * 3, std=[255.0] * 3)
load_from = 'start.pth'
"""
DATA = """\
train_dataloader = dict(
    dataset=dict(
        type='CIFAR10', pipeline=[dict(type='RandomCrop', crop_size=32, padding=4)]
    )
)
"""


@pytest.fixture
def own(tmp_path):
    """Configs of a user's own narrow student and wider teacher, in two folders."""
    for name in ('data', 'students', 'teachers'):
        (tmp_path / name).mkdir()
    (tmp_path / 'data' / 'cifar.py').write_text(DATA)
    student, teacher = tmp_path / 'students/s.py', tmp_path / 'teachers/t.py'
    for path, width in ((student, 4), (teacher, 8)):
        text = STUDENT.format(data='../data/cifar.py', model=classifier(width))
        path.write_text(text if path is student else text.replace('load_from', '# '))
    return student, teacher


def test_own_configs_by_path(make, own, tmp_path, monkeypatch):
    """Paths in a config are relative to it, wherever training is started."""
    monkeypatch.chdir(tmp_path)
    out = tmp_path / 'pairs' / 'pair.py'
    arguments = [path.relative_to(tmp_path) for path in own]
    cfg, text = make(*arguments, out=out)
    assert str(tmp_path) not in out.read_text()
    assert '/students/s.py' in out.read_text()
    monkeypatch.chdir(tmp_path / 'data')
    cfg = Config.fromfile(out)
    assert 'no weights of the teacher are known' in text
    assert cfg.model.teacher_ckpt is None
    # What the student would start from alone does not fit the pair of the two.
    assert (cfg.load_from, cfg.model.student_ckpt) == (None, 'start.pth')
    assert 'the `load_from` of its config, start.pth' in text

    init_default_scope(cfg.default_scope)
    cfg.model.data_preprocessor = cfg.data_preprocessor
    model = MODELS.build(cfg.model)
    losses = step(model, batch(size=32))
    assert all(torch.isfinite(loss).all() for loss in losses.values())
    assert without_gradient(model) == []


@pytest.mark.parametrize('name', ["it's", 'two "words"', 'link', 'a/b'])
def test_folders_of_all_kinds(name, make, own, tmp_path):
    """With quotes, and reached by a link, from which the way up is another one."""
    if name == 'link':
        (tmp_path / 'far/away').mkdir(parents=True)
        (tmp_path / 'link').symlink_to(tmp_path / 'far/away')
    out = tmp_path / name / 'pair.py'
    student, teacher = own
    # Its own paths have the quotes, too.
    moved = tmp_path / name / 'own' / 'teacher.py'
    moved.parent.mkdir(parents=True)
    Config.fromfile(teacher).dump(moved)
    for path in (teacher, moved):
        cfg, _ = make(student, path, '--method', 'kd', '--input-size', 32, out=out)
        inline_models(cfg)
        assert cfg.model.teacher.head.in_channels == 32
        assert cfg.train_dataloader.dataset.type == 'CIFAR10'


def test_what_nothing_would_read(own, tmp_path):
    """Told before anything is built."""
    for options, message in (
        ([], 'pair: a config is a Python file; name it .*pair.py'),
        (['--teacher-ckpt', ''], '--teacher-ckpt is empty; give a path'),
        (['--student-ckpt', str(tmp_path)], '--student-ckpt .* is a folder'),
    ):
        out = tmp_path / ('pair.py' if options else 'pair')
        with pytest.raises(SystemExit, match=message):
            main(['pair', *map(str, own), '-o', str(out), *options])
        assert not out.exists()


def test_weights_that_are_not_there(make, own, tmp_path):
    """They may be trained in the meantime."""
    (tmp_path / 'there.pth').touch()
    size = ['--input-size', 32]
    _, text = make(*own, '--teacher-ckpt', 'gone.pth', '--student-ckpt', 'nam', *size)
    for word in ('--teacher-ckpt gone.pth', '--student-ckpt nam'):
        assert f'WARNING: {word} is neither a file' in text
    known = [tmp_path / 'there.pth', R34]
    weights = ['--teacher-ckpt', known[0], '--student-ckpt', known[1]]
    assert 'neither a file' not in make(*own, *weights, *size)[1]
    weights = ['--teacher-ckpt', 'https://a.b/c.pth']
    assert 'neither a file' not in make(*own, *weights, *size)[1]


def test_of_a_student_that_was_trained(make, own, tmp_path):
    """Its dumped config says where and how it was trained, which is not inherited."""
    student, teacher = own
    dumped = Config.fromfile(student)
    dumped.merge_from_dict(dict(work_dir='wd', resume=True, load_from='epoch_3.pth'))
    dumped.default_hooks = dict(
        provenance=dict(type='mmfakd.ProvenanceHook', allow_changes=True)
    )
    dumped.dump(tmp_path / 'trained.py')
    cfg, _ = make(tmp_path / 'trained.py', teacher, '--input-size', 32)
    assert (cfg.work_dir, cfg.resume, cfg.load_from) == (None, False, None)
    assert not cfg.default_hooks.provenance.allow_changes
    merge_launch_options(cfg)
    assert cfg.work_dir == './work_dirs/pair'
    assert cfg.model.student_ckpt == 'epoch_3.pth'
    make(student, teacher, '--input-size', 32)
    assert 'work_dir' not in (tmp_path / 'pair.py').read_text()


def test_generated_config_follows_the_rules_of_shipped_ones(make, tmp_path):
    # CRD counts the training images, which are not here.
    for method in METHODS.keys() - {'crd'}:
        make(R18, 'mobilenet-v2_8xb32_in1k', '--method', method, '--input-size', 64)
        text = (tmp_path / 'pair.py').read_text()
        assert len(text.splitlines()) <= (120 if method == 'ofd' else 80)
        assert 'mmfakd::' not in text and 'find_unused_parameters' not in text
        assert 'custom_imports' not in text
        assert max(map(len, text.splitlines())) <= 88


def test_methods_are_the_choices_of_the_command():
    [commands] = [
        action
        for action in make_parser()._actions
        if isinstance(action, argparse._SubParsersAction)
    ]
    [method] = [a for a in commands.choices['pair']._actions if a.dest == 'method']
    assert list(method.choices) == list(METHODS)
    assert method.default == DEFAULT_METHOD and DEFAULT_METHOD in method.help
    everyone = {'classifier', 'detector', 'segmentor'}
    assert set(METHODS[DEFAULT_METHOD].kinds) == everyone


def test_says_what_it_is_about_to_do(make, monkeypatch):
    """Each model is opened, built and run once."""
    said = []
    monkeypatch.setattr('mmfakd.pairing.candidate.progress', said.append)
    make(R18, R34, '--inherit', 'neck', '--input-size', 64)
    assert said == [
        f'Reading the config of the student {R18}',
        f'Reading the config of the teacher {R34}',
        f'Building the student {R18}',
        f'Running {R18} on images of 64x64',
        f'Taking a training step of {R18}',
        f'Building the teacher {R34}',
        f'Running {R34} on images of 64x64',
    ]


def test_a_file_is_not_overwritten(tmp_path):
    out = tmp_path / 'pair.py'
    out.write_text('mine')
    with pytest.raises(SystemExit, match='exists; choose another name, or'):
        main(['pair', R18, R34, '-o', str(out)])
    assert out.read_text() == 'mine'


def test_as_a_command(tmp_path):
    """From another folder, and with a clear message alone where it fails."""
    command = ['-m', 'mmfakd', 'pair']
    done = forked.run(*command, 'resnet18', R34, '-o', 'pair.py', cwd=tmp_path)
    assert done.returncode == 1
    assert 'Traceback' not in done.stderr
    assert done.stderr.splitlines()[-1].startswith("mmfakd pair: 'resnet18' is")
    assert list(tmp_path.iterdir()) == []


MIXER = 'mlp-mixer-base-p16_64xb64_in1k'


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        ([R18, 'resnet34_8xb32_in1'], 'Near names: resnet34_8xb32_in1k'),
        (['levit/levit-128s_8xb256_in1k', R34], 'its own library cannot train it'),
        (
            [R18, 'mae_vit-base-p16_8xb512-amp-coslr-300e_in1k'],
            'a MAE is no mmpretrain',
        ),
        (
            [R18, R34, '--levels', 'backbone.layer5'],
            "student resnet18.* calls no layer 'backbone.layer5'. Near names: backbone",
        ),
        (
            [R18, R34, '--levels', 'backbone.layer1=backbone.layr1'],
            "teacher resnet34.* no layer 'backbone.layr1'. Near names: backbone.layer1",
        ),
        ([R18, R34, '--levels', 'neck[1]'], r"'neck\[1\]' of the student is no map"),
        ([R18, R34, '--levels', ','], 'names no layer'),
        (
            [R18, R34, '--levels', 'backbone.layer1=,backbone.layer2'],
            '--levels backbone.layer1=: no layer of the teacher is named.*Give stud',
        ),
        ([R18, R34, '--levels', 'neck,=neck'], '=neck: no layer of the student is'),
        (
            [R18, R34, '--levels', 'backbone.layer1,backbone.layer1=backbone.layer1'],
            'names backbone.layer1=backbone.layer1 2 times. Name each pair once',
        ),
        ([R18, R34, '--levels', 'neck', '--method', 'kd'], 'it has no --levels'),
        (
            [R18, MIXER, '--input-size', '160x160'],
            'on images of 160x160.*its own config trains it on 224x224',
        ),
        ([MIXER, R34, '--input-size', '160x160'], 'Another size: --input-size'),
        (
            [R18, 'resnet34_8xb16_cifar10', '--method', 'kd'],
            'student has 1000 classes, the teacher 10. Features do not mind',
        ),
        (
            ['revvit-small_8xb256_in1k', R34, '--levels', 'backbone.layers.3[0]=neck'],
            'no gradient flows back',
        ),
    ],
)
def test_bad_input(tmp_path, arguments, message):
    out = tmp_path / 'pair.py'
    with pytest.raises(SystemExit, match=message):
        main(['pair', *arguments, '-o', str(out)])
    assert not out.exists()


def test_bad_size(tmp_path, capsys):
    arguments = [R18, R34, '-o', str(tmp_path / 'pair.py'), '--input-size', '0x224']
    with pytest.raises(SystemExit):
        main(['pair', *arguments])
    assert "'0x224' is no size" in capsys.readouterr().err


def test_teacher_smaller_than_the_student(make):
    _, text = make(R34, R18, '--input-size', 64)
    assert (
        'the teacher (11.7 M parameters) is smaller than the student (21.8 M)' in text
    )


def test_student_whose_blocks_cannot_be_learned_from(make):
    _, text = make('revvit-small_8xb256_in1k', R34)
    assert 'no gradient flows back from these layers of the student' in text


@pytest.fixture(scope='module')
def mmdet():
    """Detection, which needs the full mmcv."""
    pytest.importorskip('mmcv.ops')
    return pytest.importorskip('mmdet')


@pytest.mark.usefixtures('mmdet')
class TestDetectors:
    RETINANET = 'retinanet_r18_fpn_1x_coco'

    def test_two_stages_teach_one(self, make):
        teacher = 'faster-rcnn_r50_fpn_1x_coco'
        names = self.RETINANET, teacher, '--input-size', '128x160'
        cfg, text = make(*names, '--method', 'fakd-review')
        distiller = cfg.model.distiller
        assert distiller.student_levels == [
            dict(recorder='neck', data_idx=i) for i in range(4)
        ]
        assert distiller.teacher_levels == [
            dict(recorder='neck', data_idx=i) for i in range(1, 5)
        ]
        # For images of any size: no `sizes`, few frequencies, and no resizing.
        assert not {'sizes', 'scales'} & set(distiller.connector)
        modes = [level['modes'] for level in distiller.connector.transform]
        # Its images have a short side of 800.
        assert modes == [16, 16, 16, 800 // 64]
        assert 'Not taken of the student: neck[4] (without a partner' in text
        assert cfg.default_scope == 'mmdet'
        # By default layer to layer, with filters that mix all channels.
        cfg, text = make(*names)
        connector = cfg.model.distiller.connector
        kind = 'mmfakd.FrequencyAttentionConnector'
        assert connector.connector == dict(type=kind, modes=4, high_pass=0)
        assert connector.type == 'mmfakd.LayerwiseConnector'
        assert not {'sizes', 'scales'} & set(connector)
        assert 'Method: fakd-layer.' in text

    def test_a_neck_that_returns_the_deepest_map_first(self, make):
        """YOLOv3's does, YOLOX's the other way round."""
        yolo = 'yolov3_mobilenetv2_8xb24-320-300e_coco', 'yolox_tiny_8xb8-300e_coco'
        options = '--levels', 'neck', '--method', 'reviewkd', '--input-size', 96
        for pair, maps in ((yolo, [2, 1, 0]), (yolo[::-1], [0, 1, 2])):
            distiller = make(*pair, *options)[0].model.distiller
            for found in (distiller.student_levels, distiller.teacher_levels):
                assert [level['data_idx'] for level in found] == maps
                maps = maps[::-1]

    def test_filters_that_differ_stand_in_a_line_each(self, make):
        student = 'ssdlite_mobilenetv2-scratch_8xb24-600e_coco'
        cfg, _ = make(student, 'ssd300_coco', '--input-size', '320x320')
        connector = cfg.model.distiller.connector.connector
        kind = dict(type='mmfakd.FrequencyAttentionConnector', high_pass=0)
        groups = [dict(groups=n) for n in (2, 16, 2)]
        planned = [dict(g, modes=4) for g in groups] + [dict(modes=2), dict(modes=1)]
        assert connector == [dict(kind, **level) for level in planned]
        assert len(Path(cfg.filename).read_text().splitlines()) <= 80

    def test_other_strides(self, make):
        teacher = 'centernet_r18-dcnv2_8xb16-crop512-140e_coco'
        cfg, text = make(self.RETINANET, teacher, '--input-size', '128x160')
        assert cfg.model.distiller.connector.scales == [2]
        assert 'nearest strides' in text

    def test_batches_are_padded_where_the_teacher_needs_it(self, make, monkeypatch):
        """DETR pads to the largest image, YOLOX halves evenly."""
        said = []
        monkeypatch.setattr('mmfakd.pairing.candidate.progress', said.append)
        cfg, text = make('detr_r18_8xb2-500e_coco', 'yolox_tiny_8xb8-300e_coco')
        assert cfg.model.architecture.data_preprocessor.pad_size_divisor == 32
        assert cfg.model.architecture.cfg_path.endswith('detr_r18_8xb2-500e_coco.py')
        assert 'pads batches to multiples of 32' in text
        # What is built for the first size is run again at the other.
        verbs = [line.split()[0] for line in said]
        assert (verbs.count('Building'), verbs.count('Running')) == (2, 4)

    def resized(self, folder, *scale, **preprocessor):
        """A student whose images all have one size, or of any size without a scale."""
        model = retinanet(num_outs=5)
        model['data_preprocessor'] = dict(type='DetDataPreprocessor', **preprocessor)
        resize = dict(type='Resize', scale=scale or (64, 96), keep_ratio=not scale)
        dataset = dict(type='CocoDataset', pipeline=[resize])
        cfg = dict(model=model, default_scope='mmdet', train_dataloader={})
        cfg['train_dataloader']['dataset'] = dataset
        Config(cfg).dump(folder / 'student.py')
        return folder / 'student.py'

    RTMDET = 'rtmdet_tiny_8xb32-300e_coco'

    def test_images_of_one_size_are_probed_as_batches_are(self, make, tmp_path):
        """RTMDet joins maps that differ by a factor of two: 300 is padded to 320."""
        student = self.resized(tmp_path, 300, 300, pad_size_divisor=32)
        _, text = make(student, self.RTMDET)
        assert 'pads batches' not in text and 'in batches of 320x320' in text
        # Half of 800 would be a size that no batch has.
        student = self.resized(tmp_path, 800, 800, pad_size_divisor=32)
        assert 'in batches of 800x800' in make(student, self.RTMDET)[1]

    def test_images_of_one_size_that_the_teacher_cannot_take(self, make, tmp_path):
        cfg, text = make(self.resized(tmp_path, 300, 300), self.RTMDET)
        assert cfg.model.architecture.data_preprocessor.pad_size_divisor == 32
        assert 'in batches of 320x320' in text

    def test_images_of_any_size_that_the_teacher_cannot_take(self, make, tmp_path):
        """Halving is rounded up by the student; doubling fits only some sizes."""
        cfg, text = make(self.resized(tmp_path), self.RTMDET)
        assert cfg.model.architecture.data_preprocessor.pad_size_divisor == 32
        assert 'pads batches to multiples of 32' in text

    def test_a_neck_that_needs_padded_batches_itself(self, make):
        """CenterNet's doubles its deepest map."""
        cfg, _ = make('centernet_r18_8xb16-crop512-140e_coco', self.RETINANET)
        assert cfg.model.architecture.data_preprocessor.pad_size_divisor == 32
        assert cfg.model.distiller.student_levels

    @pytest.fixture
    def narrow(self, tmp_path):
        """Configs of a narrow student and a wider teacher, and one that differs."""
        paths = []
        for i, model in enumerate(
            [retinanet(), retinanet(width=16), retinanet(channels=32, num_classes=4)]
        ):
            paths.append(tmp_path / f'{i}.py')
            Config(dict(model=model, default_scope='mmdet')).dump(paths[-1])
        return paths

    def test_inheriting(self, make, narrow, tmp_path):
        student, teacher, other = narrow
        cfg, text = make(student, teacher, '--inherit', 'bbox_head')
        assert cfg.model.inherit == ['bbox_head']
        # KD compares the logits of classifiers.
        assert 'Others: --method fakd-review, reviewkd, pkd, cwd, at, fitnet.' in text
        assert "The student starts with the teacher's bbox_head." in text
        written = (tmp_path / 'pair.py').read_text()
        assert '--inherit bbox_head\n' in written
        # All that fits: lateral convolutions join backbones of different widths.
        cfg, text = make(student, teacher, '--inherit')
        assert cfg.model.inherit == ['neck.fpn_convs', 'bbox_head']
        assert MODELS.build(cfg.model).inherit == cfg.model.inherit
        assert 'inherit' not in make(student, teacher)[0].model
        with pytest.raises(SystemExit, match='have no module with equal tensors'):
            make(student, other, '--inherit')
        with pytest.raises(SystemExit, match=r"'neck\.fpn_conv'\. Nearest names"):
            make(student, teacher, '--inherit', 'bbox_head,neck.fpn_conv')

    @pytest.mark.parametrize(
        ('arguments', 'message'),
        [
            (
                ['faster-rcnn_r50-caffe-c4_1x_coco', RETINANET],
                'student faster.* has no neck.*--levels student_layer=teacher_layer',
            ),
            ([RETINANET, R18], f'{RETINANET} is a detector, {R18} a classifier'),
            ([RETINANET, RETINANET, '--method', 'kd'], 'compares the logits of class'),
            (
                [RETINANET, RETINANET, '--levels', 'neck=backbone'],
                '5 maps of the student stand against 4 of the teacher',
            ),
            (
                [RETINANET, RETINANET, '--levels', 'bbox_head.cls_convs.0.conv'],
                r"lies in a head.*dict\(recorder='bbox_head.cls_convs.0.conv', record_",
            ),
            # A list is called by nobody.
            (
                [RETINANET, RETINANET, '--levels', 'bbox_head.cls_convs'],
                "calls no layer 'bbox_head.cls_convs'",
            ),
        ],
    )
    def test_bad_input(self, tmp_path, arguments, message):
        out = tmp_path / 'pair.py'
        arguments = [*arguments, '-o', str(out), '--input-size', '64x96']
        with pytest.raises(SystemExit, match=message):
            main(['pair', *arguments])
        assert not out.exists()
