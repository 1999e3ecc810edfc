# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""Segmentors of mmseg, from the names of their configs to stock inference."""

import json
import os
import subprocess
import sys

import cv2
import numpy as np
import pytest
import torch
from mmengine.config import Config, ConfigDict
from mmengine.registry import DATASETS, MODELS, DefaultScope
from torch.nn import functional as F

pytest.importorskip('mmcv.ops', reason='mmseg needs the full mmcv')
pytest.importorskip('mmseg.models', reason='mmseg is not installed')

from mmengine.structures import PixelData
from mmengine.visualization import Visualizer
from mmrazor.models.task_modules.recorder import RecorderManager
from mmseg.models.decode_heads import FCNHead
from mmseg.structures import SegDataSample
from mmseg.visualization import SegLocalVisualizer

from mmfakd import cli
from mmfakd.analysis.teacher_score import check_teacher
from mmfakd.compat import load_checkpoint_file
from mmfakd.engine.launch import test as evaluate
from mmfakd.engine.launch import train
from mmfakd.model_zoo import find
from mmfakd.model_zoo.build import build_without_weights
from mmfakd.model_zoo.published_scores import published_scores
from mmfakd.models.algorithms import built_models
from mmfakd.models.algorithms.check_batches import check_batches
from mmfakd.models.algorithms.count_classes import count_classes
from mmfakd.models.algorithms.run_mode import run_model
from mmfakd.models.algorithms.teacher_input import TeacherInput
from mmfakd.pairing.candidate import Candidate
from mmfakd.pairing.input_size import choose_probe_size, read_input_size
from mmfakd.pairing.probe import probe_features
from mmfakd.pairing.segmentor_levels import find_logit_map
from tests.helpers.toy_segmentors import CLASSES, write_segmentors

PSPNET = 'mmseg::pspnet/pspnet_r18-d8_4xb2-80k_cityscapes-512x1024.py'


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    """Data, configs of student and teacher, and the teacher's weights."""
    folder = tmp_path_factory.mktemp('segmentation')
    _, teacher = write_segmentors(folder)
    torch.manual_seed(0)
    model = build(teacher)
    torch.save(model.state_dict(), folder / 'teacher.pth')
    return folder


def build(path, **preprocessor):
    model = Config.fromfile(path).model
    model.data_preprocessor.update(preprocessor)
    return build_without_weights(model, 'mmseg')


def pair(folder, method, out=None, **options):
    """Write a config by the command that users have; return its path."""
    out = folder / (out or f'{method}.py')
    words = ['pair', folder / 'student.py', folder / 'teacher.py', '-o', out, '--force']
    words += ['--teacher-ckpt', folder / 'teacher.pth', '--method', method]
    for name, value in options.items():
        words += [f'--{name}', value]
    cli.main([str(word) for word in words])
    return out


def samples(label, size=(48, 64), count=2):
    data = torch.full((1, *size), label)
    return [
        SegDataSample(gt_sem_seg=PixelData(data=data.clone())) for _ in range(count)
    ]


# ------------------------------------------------------------ names


def test_names_configs_and_weights():
    name = 'pspnet_r18-d8_4xb2-80k_cityscapes-512x1024'
    for known in (name, f'mmseg::{name}', PSPNET):
        assert find.find_config(known) == PSPNET
    assert find.find_weights(PSPNET) == name
    assert find.zoo_weights()[name].endswith('.pth')


def test_how_to_install_it(monkeypatch):
    monkeypatch.setattr(find, 'find_spec', lambda name: None)
    with pytest.raises(ModuleNotFoundError, match='`pip install .*mmsegmentation>='):
        find.package_folder('mmseg')


def test_published_score():
    model = dict(teacher=dict(cfg_path=PSPNET))
    published = published_scores(Config(dict(model=model)))
    assert published.dataset == 'Cityscapes' and published.scores == {'mIoU': 74.87}


# ------------------------------------------------------------ pairs


@pytest.mark.parametrize(
    'config, size, probed',
    [
        # mmseg's crops have height and width.
        (PSPNET, (512, 1024), (256, 512)),
        (PSPNET.replace('512x1024', '769x769'), (769, 769), (385, 385)),
        (
            'mmseg::segformer/segformer_mit-b0_8xb2-160k_ade20k-512x512.py',
            (512, 512),
            (512, 512),
        ),
    ],
)
def test_input_size(config, size, probed):
    cfg = Config.fromfile(find.config_file(config))
    read = read_input_size(cfg)
    assert (read.height, read.width) == size
    assert choose_probe_size(cfg) == probed


def test_levels_are_what_the_decode_head_gets(folder):
    cfg = Config.fromfile(pair(folder, 'reviewkd'))
    distiller = cfg.model.distiller
    assert distiller.student_levels == [
        dict(recorder='backbone', data_idx=i) for i in range(4)
    ]
    # Three of them have one stride.
    assert distiller.connector.in_channels == [8, 16, 32, 64]
    assert distiller.connector.out_channels == [16, 32, 64, 128]
    assert cfg.default_hooks.checkpoint.by_epoch is False
    assert 'epoch_seed' not in cfg.default_hooks


def write(folder, name, base, **changes):
    """Write a config that differs from another in some places; return its path."""
    cfg = Config.fromfile(folder / base)
    cfg.merge_from_dict({key.replace('__', '.'): v for key, v in changes.items()})
    cfg.dump(folder / name)
    return str(folder / name)


def test_frozen_stages_and_named_layers(folder):
    frozen = write(folder, 'f.py', 'student.py', model__backbone__frozen_stages=2)
    candidate = Candidate(frozen, 'student')
    candidate.examine((48, 64))
    assert [f.name for f in candidate.levels.stages] == ['backbone[2]', 'backbone[3]']
    levels = 'backbone.layer4=backbone.layer3'
    cfg = Config.fromfile(pair(folder, 'cwd', 'named.py', levels=levels))
    assert cfg.model.distiller.teacher_levels == ['backbone.layer3']


def refused(folder, student, teacher, method, message):
    words = ['pair', student, teacher, '-o', folder / 'no.py', '--method', method]
    with pytest.raises(SystemExit, match=message):
        cli.main([str(word) for word in words])
    assert not (folder / 'no.py').exists()


def test_logits_need_a_layer_and_equal_classes(folder):
    student = folder / 'student.py'
    four = write(folder, '4.py', 'teacher.py', model__decode_head__num_classes=4)
    refused(folder, student, four, 'kd', 'student has 3 classes, the teacher 4')
    head = dict(
        type='SegmenterMaskTransformerHead',
        in_channels=128,
        channels=8,
        num_layers=1,
        num_heads=1,
        embed_dims=8,
        num_classes=3,
    )
    masks = write(
        folder, 'm.py', 'teacher.py', model__decode_head=dict(head, _delete_=True)
    )
    refused(folder, student, masks, 'cwd', 'no layer of the teacher .* its logits')


def head_of(path, **head):
    """The logits found behind another head."""
    model = Config.fromfile(path).model
    common = dict(in_channels=64, in_index=3, channels=8, num_classes=3)
    model.decode_head = {**common, 'norm_cfg': dict(type='BN'), **head}
    probe = probe_features(build_without_weights(model, 'mmseg'), (48, 64))
    return find_logit_map(probe, 3)


@MODELS.register_module(force=True)
class LargeHead(FCNHead):
    """Brings its logits to another size itself."""

    def forward(self, inputs):
        return F.interpolate(super().forward(inputs), scale_factor=2)


def test_logits_are_what_the_head_returns(folder):
    student = folder / 'student.py'
    # One of its outputs is a vector of the classes that are there.
    inputs = dict(in_channels=[32, 64], in_index=[2, 3])
    encoded = head_of(student, type='EncHead', num_codes=2, **inputs)
    assert encoded.name == 'decode_head.conv_seg'
    # Two more maps of logits are for its loss alone.
    dual = head_of(student, type='DAHead', pam_channels=4)
    assert dual.name == 'decode_head.conv_seg'
    large = head_of(student, type='mmengine.LargeHead', num_convs=1)
    assert large.name == 'decode_head.conv_seg'
    # K-Net's kernels go on where its convolution ends.
    update = dict(
        type='KernelUpdateHead',
        num_classes=3,
        num_ffn_fcs=2,
        num_heads=1,
        num_mask_fcs=1,
        feedforward_channels=8,
        in_channels=8,
        out_channels=8,
        kernel_updator_cfg=dict(
            type='KernelUpdator', in_channels=8, feat_channels=8, out_channels=8
        ),
    )
    knet = dict(
        type='IterativeDecodeHead',
        num_stages=1,
        kernel_update_head=[update],
        kernel_generate_head=dict(
            type='FCNHead',
            in_channels=128,
            in_index=3,
            channels=8,
            num_convs=1,
            num_classes=3,
        ),
    )
    theirs = write(
        folder, 'k.py', 'teacher.py', model__decode_head=dict(knet, _delete_=True)
    )
    refused(folder, student, theirs, 'kd', 'logits, which its IterativeDecodeHead comp')


def test_logits_of_a_cascade():
    two = cascade('OCRHead', ocr_channels=4, in_channels=64, in_index=3)
    found = find_logit_map(probe_features(two, (64, 64)), 3)
    assert found.name == 'decode_head.1.conv_seg'
    # A PointRend refines points of what the first one yields.
    points = cascade('PointHead', num_fcs=1, coarse_pred_each_layer=True)
    found = find_logit_map(probe_features(points, (64, 64)), 3)
    assert found.name == 'decode_head.0.conv_seg'


def test_one_channel_has_no_classes_to_compare(folder):
    binary = dict(
        model__auxiliary_head=None,
        model__decode_head__num_classes=2,
        model__decode_head__out_channels=1,
        model__decode_head__threshold=0.5,
        model__decode_head__loss_decode=dict(type='CrossEntropyLoss', use_sigmoid=True),
    )
    one, other = (
        write(folder, f'binary_{name}', name, **binary)
        for name in ('student.py', 'teacher.py')
    )
    refused(folder, one, other, 'kd', 'softmax is 1 in every pixel. Use cwd')


def test_layers(folder, capsys):
    cli.main(['layers', str(folder / 'student.py'), '--depth', '2'])
    printed = capsys.readouterr().out
    assert 'images of 48x64' in printed
    assert 'decode_head.conv_seg' in printed and '(N, 3, 6, 8)' in printed


# ------------------------------------------------------------ training


def run(config, work_dir, iterations=4, **options):
    options['cfg_options'] = [f'train_cfg.max_iters={iterations}', 'log_level=ERROR']
    return train(str(config), work_dir=str(work_dir), **options)()


@pytest.fixture(scope='module')
def trained(folder):
    """A training with KD, and its work dir."""
    work_dir = folder / 'kd'
    run(pair(folder, 'kd'), work_dir)
    # Its visualizer would serve later runs, too.
    for kind in (Visualizer, SegLocalVisualizer):
        kind._instance_dict.clear()
    return work_dir


def test_resumed_training_is_the_same(folder, trained):
    work_dir = folder / 'resumed'
    run(folder / 'kd.py', work_dir, iterations=2)
    assert sorted(p.name for p in work_dir.glob('iter_*')) == [
        'iter_2.pth',
        'iter_2_student.pth',
    ]
    run(folder / 'kd.py', work_dir, resume='auto')
    straight, resumed = (
        load_checkpoint_file(str(where / 'iter_4.pth'))['state_dict']
        for where in (trained, work_dir)
    )
    assert straight.keys() == resumed.keys()
    assert all(torch.equal(straight[key], resumed[key]) for key in straight)


def test_losses_and_report(trained):
    log = next(trained.glob('*/vis_data/scalars.json')).read_text().splitlines()
    rows = [json.loads(line) for line in log]
    rows = [row for row in rows if 'loss' in row]
    assert len(rows) == 4
    # Head, auxiliary head and teacher.
    for row in rows:
        parts = ('student.decode.loss_ce', 'student.aux.loss_ce', 'distill.loss_level0')
        assert row['loss'] == pytest.approx(sum(row[part] for part in parts), rel=1e-4)
        assert row['distill.loss_level0'] > 0
    report = json.loads((trained / 'distillation.json').read_text())
    assert 'decode_head.conv_seg' in json.dumps(report)


INFERENCE = """
import sys, numpy as np
from mmseg.apis import MMSegInferencer, inference_model, init_model
image, weights, config, out = sys.argv[1:]
found = inference_model(init_model(config, weights, device='cpu'), image)
inferencer = MMSegInferencer(model=None, weights=weights, device='cpu')
again = inferencer(image, return_datasamples=True)
assert 'mmfakd' not in sys.modules
assert list(inferencer.model.dataset_meta['classes']) == ['ground', 'disk', 'square']
assert (found.pred_sem_seg.data == again.pred_sem_seg.data).all()
np.save(out, found.seg_logits.data.numpy())
"""


def test_stock_inference_from_the_exported_file(folder, trained, tmp_path):
    weights, config = tmp_path / 'student.pth', tmp_path / 'stock.py'
    words = ['export', trained / 'iter_4.pth', '-o', weights, '--config-out', config]
    cli.main([str(word) for word in words])
    image, logits = folder / 'shapes/images/0.png', tmp_path / 'logits.npy'
    arguments = [str(path) for path in (image, weights, config, logits)]
    subprocess.run(
        [sys.executable, '-W', 'ignore', '-c', INFERENCE, *arguments],
        check=True,
        env=dict(os.environ, OMP_NUM_THREADS='1'),
        cwd=tmp_path,
        capture_output=True,
    )
    model = MODELS.build(Config.fromfile(folder / 'kd.py').model)
    checkpoint = load_checkpoint_file(str(trained / 'iter_4.pth'))
    model.load_state_dict(checkpoint['state_dict'])
    cfg = Config.fromfile(folder / 'kd.py').val_dataloader.dataset
    with DefaultScope.overwrite_default_scope('mmseg'):
        packed = DATASETS.build(cfg)[0]
    data = {key: [packed[key]] for key in ('inputs', 'data_samples')}
    with torch.no_grad():
        found = model.eval().test_step(data)[0].seg_logits.data
    np.testing.assert_allclose(found.numpy(), np.load(logits), rtol=1e-4, atol=1e-5)


def test_evaluation_and_its_pictures(folder, trained, tmp_path):
    evaluate(
        str(folder / 'kd.py'),
        str(trained / 'iter_4_student.pth'),
        show_dir=str(tmp_path / 'shown'),
        work_dir=str(tmp_path / 'work'),
        cfg_options=['log_level=ERROR'],
    )()
    assert len(list((tmp_path / 'shown').rglob('*.png'))) == 6


def test_score_of_the_teacher(folder, trained, tmp_path, capsys):
    config, work_dir = str(folder / 'kd.py'), str(tmp_path)
    assert check_teacher(config, expected=99, work_dir=work_dir) == 3
    printed = capsys.readouterr().out
    assert 'Teacher EncoderDecoder with 3 classes' in printed
    assert 'mIoU: ' in printed and 'expected 99.00 %' in printed


# ------------------------------------------------------------ models and batches


def test_classes_are_counted_and_labels_checked(folder):
    model = build(folder / 'student.py')
    assert count_classes(model) == len(CLASSES)
    check_batches(model, 'student')
    inputs = [torch.zeros(3, 48, 64, dtype=torch.uint8)] * 2
    for label in (2, 255):
        data = dict(inputs=inputs, data_samples=samples(label))
        model.data_preprocessor(data, training=True)
    with pytest.raises(ValueError, match='has class 3, but the student has num_cla'):
        data = dict(inputs=inputs, data_samples=samples(3))
        model.data_preprocessor(data, training=True)


def test_one_channel_tells_two_classes_apart(folder, tmp_path, capsys):
    """A pair of `num_classes=1` and a threshold, on the two classes of its maps."""
    (folder / 'shapes/two').mkdir()
    for path in (folder / 'shapes/masks').iterdir():
        mask = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
        cv2.imwrite(
            str(folder / 'shapes/two' / path.name), np.where(mask == 2, 1, mask)
        )
    changes = {
        f'{part}_dataloader__dataset__{key}': value
        for part in ('train', 'val')
        for key, value in dict(
            metainfo=dict(classes=('ground', 'shape'), palette=[[0] * 3] * 2),
            data_prefix__seg_map_path='two',
        ).items()
    }
    changes.update(
        model__auxiliary_head=None,
        model__decode_head__num_classes=1,
        model__decode_head__threshold=0.5,
        model__decode_head__loss_decode=dict(type='CrossEntropyLoss', use_sigmoid=True),
    )
    one, other = (
        write(folder, f'one_{name}', name, **changes)
        for name in ('student.py', 'teacher.py')
    )
    torch.save(build(other).state_dict(), folder / 'one.pth')
    config = tmp_path / 'one.py'
    words = ['pair', one, other, '-o', config, '--method', 'cwd']
    cli.main([str(word) for word in (*words, '--teacher-ckpt', folder / 'one.pth')])
    run(config, tmp_path / 'run', iterations=2)
    assert (tmp_path / 'run/iter_2.pth').is_file()
    capsys.readouterr()
    assert check_teacher(str(config), expected=0, work_dir=str(tmp_path / 'score')) == 0
    printed = capsys.readouterr().out
    assert 'Teacher EncoderDecoder with 2 classes' in printed
    assert 'expected 0.00 %' in printed


def test_padded_batch_is_the_teachers_own(folder):
    """What the teacher gets is what its own preprocessor makes of the images."""
    student = build(folder / 'student.py').data_preprocessor
    others = dict(pad_val=7, bgr_to_rgb=False)
    teacher = build(folder / 'teacher.py', **others).data_preprocessor
    images = [torch.randint(256, (3, h, w)) for h, w in ((48, 64), (40, 50))]

    def batch(preprocessor):
        labels = [samples(0, i.shape[1:], 1)[0] for i in images]
        return preprocessor(
            dict(inputs=list(images), data_samples=labels), training=True
        )

    ours = batch(student)
    mapped = TeacherInput(student, teacher)(ours['inputs'], ours['data_samples'])
    torch.testing.assert_close(mapped, batch(teacher)['inputs'], rtol=1e-4, atol=1e-4)


def cascade(last, **options):
    head = dict(type='FCNHead', in_channels=64, in_index=3, channels=8, num_convs=1)
    common = dict(num_classes=3, norm_cfg=dict(type='BN'))
    backbone = dict(type='ResNetV1c', depth=18, base_channels=8)
    second = dict(type=last, in_channels=[64], in_index=[3], channels=8)
    second.update(options)
    return build_without_weights(
        dict(
            type='CascadeEncoderDecoder',
            num_stages=2,
            backbone=dict(backbone, norm_cfg=dict(type='BN')),
            decode_head=[dict(head, **common), dict(second, num_classes=3)],
            test_cfg=ConfigDict(
                mode='whole',
                subdivision_steps=1,
                subdivision_num_points=16,
                scale_factor=2,
            ),
        ),
        'mmseg',
    )


def test_heads_that_take_more_than_features_run_as_in_a_test():
    """mmseg's own mode 'tensor' knows no PointRend."""
    model = cascade('PointHead', num_fcs=1, coarse_pred_each_layer=True)
    inputs = torch.randn(2, 3, 32, 32)
    with pytest.raises(Exception, match=r'.'):
        model(inputs, mode='tensor')
    recorders = RecorderManager(
        dict(logits=dict(type='mmrazor.ModuleOutputs', source='decode_head.0.conv_seg'))
    )
    recorders.initialize(model)
    with torch.no_grad(), recorders:
        logits = run_model(model, 'tensor', inputs, None)
    assert len(logits) == 2
    assert len(recorders.get_recorder('logits').data_buffer) == 1


def test_a_plain_head_runs_as_it_is(folder):
    model = build(folder / 'student.py')
    inputs = torch.randn(1, 3, 48, 64)
    with torch.no_grad():
        assert run_model(model, 'tensor', inputs, None).shape == (1, 3, 6, 8)


def test_synchronised_norms_of_processes_without_gpu(folder, monkeypatch):
    model = MODELS.build(
        dict(Config.fromfile(folder / 'student.py').model, _scope_='mmseg')
    )
    keys = model.state_dict().keys()

    def count(model):
        return sum(isinstance(m, torch.nn.SyncBatchNorm) for m in model.modules())

    assert count(built_models.norms_for_cpu(model)) > 0
    monkeypatch.setattr(built_models, 'get_world_size', lambda: 2)
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: False)
    assert count(built_models.norms_for_cpu(model)) == 0
    assert model.state_dict().keys() == keys
