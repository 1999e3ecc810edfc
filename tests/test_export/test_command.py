# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""Exported files compute what the stock model does, and say how to use them."""

import json
import sys
from contextlib import contextmanager
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.registry import MODELS, DefaultScope
from torch import nn

from mmfakd.checkpoints.fetch import fetch_checkpoint
from mmfakd.export import command, compare_outputs
from mmfakd.export.command import export_checkpoint
from tests.test_export.conftest import CLASSES, classifier_config, save

MEAN = np.float32([123.675, 116.28, 103.53])
STD = np.float32([58.395, 57.12, 57.375])


def stock(checkpoint, folder):
    """The model of a plain .pth export, built by its library alone."""
    path = folder / 'stock.pth'
    export_checkpoint(checkpoint, str(path), force=True)
    loaded = torch.load(path, weights_only=True)
    cfg = Config.fromstring(loaded['meta']['cfg'], '.py')
    with DefaultScope.overwrite_default_scope(cfg.default_scope):
        model = MODELS.build(cfg.model)
    model.load_state_dict(loaded['state_dict'], strict=True)
    return model.eval()


def batch_of(*paths, size):
    """Pictures as in a pipeline, normalised by hand."""
    images = [cv2.resize(cv2.imread(str(path)), size[::-1]) for path in paths]
    rgb = np.stack(images)[..., ::-1].astype(np.float32)
    return np.ascontiguousarray(((rgb - MEAN) / STD).transpose(0, 3, 1, 2))


def session(path):
    onnxruntime = pytest.importorskip('onnxruntime')
    return onnxruntime.InferenceSession(str(path), providers=['CPUExecutionProvider'])


def meta_of(path):
    texts = session(path).get_modelmeta().custom_metadata_map
    return {key: json.loads(text) for key, text in texts.items()}


def apart(found, expected):
    return float(np.abs(found - expected).max() / np.abs(expected).max())


@pytest.fixture(scope='module')
def onnx_file(classifier_ckpt, tmp_path_factory):
    pytest.importorskip('onnxruntime')
    path = tmp_path_factory.mktemp('onnx') / 'student.onnx'
    return path, export_checkpoint(classifier_ckpt, str(path))


def test_classifier_in_onnxruntime(onnx_file, classifier_ckpt, pictures, tmp_path):
    path, _ = onnx_file
    images = batch_of(*2 * [*pictures.iterdir()], size=(24, 32))
    model = stock(classifier_ckpt, tmp_path)
    with torch.no_grad():
        expected = model(torch.from_numpy(images)).numpy()
    [logits] = session(path).run(None, {'images': images})
    assert logits.shape == (4, 4) and apart(logits, expected) < 1e-4
    assert 'NOTE' not in onnx_file[1]
    # Pictures are told apart, or this would show little.
    assert np.ptp(expected, axis=0).max() > 0.01 * np.abs(expected).max()


@pytest.mark.parametrize('dynamic', ['auto', 'none'])
def test_classifier_that_loses_the_batch_of_one_image(dynamic, tmp_path):
    pipeline = [
        dict(type='LoadImageFromFile', color_type='grayscale'),
        dict(type='Resize', scale=(32, 32)),
        dict(type='PackInputs'),
    ]
    cfg = Config(
        dict(
            default_scope='mmpretrain',
            data_preprocessor=dict(num_classes=3, mean=[128.0], std=[64.0]),
            model=dict(
                type='ImageClassifier',
                backbone=dict(type='LeNet5', num_classes=3),
                head=dict(type='ClsHead'),
            ),
            test_dataloader=dict(dataset=dict(type='CustomDataset', pipeline=pipeline)),
        )
    )
    save(cfg, tmp_path / 'lenet.pth')
    pytest.importorskip('onnxruntime')
    path = tmp_path / 'lenet.onnx'
    export_checkpoint(str(tmp_path / 'lenet.pth'), str(path), dynamic=dynamic)
    [logits] = session(path).run(None, {'images': np.zeros((1, 1, 32, 32), 'f4')})
    assert logits.shape == (1, 3)


def test_what_the_file_says(onnx_file):
    onnx = pytest.importorskip('onnx')
    path, said = onnx_file
    written, meta = onnx.load(path), meta_of(path)
    assert [o.version for o in written.opset_import if not o.domain] == [17]
    assert meta['opset'] == 17 and '(opset 17)' in said
    dims = written.graph.input[0].type.tensor_type.shape.dim
    assert [d.dim_param or d.dim_value for d in dims] == ['batch', 3, 24, 32]
    assert meta['dynamic_axes'] == dict(images={'0': 'batch'}, logits={'0': 'batch'})
    assert 'input: images batch x 3 x 24 x 32\n' in said
    assert 'outputs: logits batch x 4\n' in said
    how = meta['preprocessing']
    assert how['channel_order'] == 'RGB' and how['input_size'] == [24, 32]
    assert how['mean'] == pytest.approx(MEAN) and how['std'] == pytest.approx(STD)
    assert [t['type'] for t in how['test_pipeline']][:2] == [
        'LoadImageFromFile',
        'Resize',
    ]
    assert 'RGB, 24 x 32, values of [0, 255] minus [123.675, 116.28, 103.53]' in said
    assert meta['dataset_meta']['classes'] == [*CLASSES]
    assert meta['task'] == 'classification' and meta['outputs'] == ['logits']
    # The config is that of the stock student.
    cfg = Config.fromstring(meta['cfg'], '.py')
    assert cfg.model.type == 'ImageClassifier' and 'mmfakd' not in meta['cfg']


def test_classifier_in_torchscript(classifier_ckpt, pictures, tmp_path):
    path = tmp_path / 'student.bin'
    options = dict(file_format='torchscript', image=str(pictures / 'flower.png'))
    said = export_checkpoint(classifier_ckpt, str(path), **options)
    files = {'meta.json': ''}
    traced = torch.jit.load(path, _extra_files=files)
    meta = {k: json.loads(v) for k, v in json.loads(files['meta.json']).items()}
    images = torch.from_numpy(batch_of(*pictures.iterdir(), size=(24, 32)))
    with torch.no_grad():
        [logits] = traced(images)
        expected = stock(classifier_ckpt, tmp_path)(images)
    assert torch.allclose(logits, expected, atol=1e-6)
    assert meta['preprocessing']['input_size'] == [24, 32] and 'opset' not in meta
    assert said.startswith(f'{path}: torchscript of a ImageClassifier, ')


def test_safetensors_say_how_images_are_made(classifier_ckpt, tmp_path):
    path = tmp_path / 'student.safetensors'
    export_checkpoint(classifier_ckpt, str(path))
    meta = fetch_checkpoint(str(path))['meta']
    assert meta['preprocessing']['channel_order'] == 'RGB'
    assert [*meta['preprocessing']['input_size']] == [24, 32]
    # Where the config does not say it, the weights are written all the same.
    cfg = classifier_config()
    cfg.test_dataloader.dataset.pipeline.pop(1)
    cfg.train_dataloader = cfg.test_dataloader
    silent = save(cfg, tmp_path / 'silent.pth')
    said = export_checkpoint(silent, str(path), force=True)
    assert 'does not say how images are prepared: no transform' in said
    assert 'preprocessing' not in fetch_checkpoint(str(path))['meta']
    with pytest.raises(ValueError, match='give --input-size HEIGHTxWIDTH'):
        export_checkpoint(silent, str(tmp_path / 'x.torchscript'))


@pytest.mark.parametrize('kind', ['onnx', 'torchscript'])
def test_detector(detector_ckpt, pictures, tmp_path, kind):
    """Images of any size, and of any number."""
    path = tmp_path / f'detector.{kind}'
    if kind == 'onnx':
        pytest.importorskip('onnxruntime')
    said = export_checkpoint(detector_ckpt, str(path))
    assert 'checked: 3 batches' in said and 'input: images batch x 3 x height' in said
    images = batch_of(*pictures.iterdir(), size=(96, 160))
    model = stock(detector_ckpt, tmp_path)
    with torch.no_grad():
        scores, boxes = model(torch.from_numpy(images), mode='tensor')
    if kind == 'onnx':
        found = session(path).run(None, {'images': images})
        meta = meta_of(path)
        names = [f'{n}_{i}' for n in ('cls_scores', 'bbox_preds') for i in range(3)]
        assert meta['outputs'] == names
        assert meta['preprocessing']['size_divisor'] == 32
        assert meta['dynamic_axes']['cls_scores_0']['2'] == 'cls_scores_0_height'
    else:
        found = [
            output.numpy() for output in torch.jit.load(path)(torch.from_numpy(images))
        ]
    assert len(found) == len(scores) + len(boxes)
    for ours, theirs in zip(found, [*scores, *boxes]):
        assert ours.shape == theirs.shape and apart(ours, theirs.numpy()) < 1e-4


def test_a_file_that_differs_never_gets_its_name(
    classifier_ckpt, tmp_path, monkeypatch
):
    path = tmp_path / 'student.torchscript'
    path.write_bytes(b'the one before')
    monkeypatch.setattr(
        command.torchscript_file,
        'run_torchscript',
        lambda path: lambda x: [x[:, :, 0, :4].sum(1)],
    )
    with pytest.raises(ValueError, match="'logits' differs from that of PyTorch by"):
        export_checkpoint(classifier_ckpt, str(path), force=True)
    assert path.read_bytes() == b'the one before'
    assert [p.name for p in tmp_path.iterdir()] == ['student.torchscript']
    with pytest.raises(FileExistsError, match='--force'):
        export_checkpoint(classifier_ckpt, str(path))


@pytest.fixture
def small_files():
    """Files of 2,000 bytes at most: as on a full disk, writing fails half-way."""
    resource = pytest.importorskip('resource')
    before = resource.getrlimit(resource.RLIMIT_FSIZE)

    @contextmanager
    def limited():
        resource.setrlimit(resource.RLIMIT_FSIZE, (2000, before[1]))
        try:
            yield
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)

    return limited


@pytest.mark.parametrize('kind', ['pth', 'safetensors', 'onnx', 'torchscript'])
def test_a_disk_that_is_full(kind, classifier_ckpt, tmp_path, small_files):
    pytest.importorskip(dict(onnx='onnxruntime').get(kind, 'safetensors'))
    path = tmp_path / f'student.{kind}'
    path.write_bytes(b'the one before')
    match = f'student.{kind} .*could not be written: File'
    with pytest.raises(OSError, match=match), small_files():
        export_checkpoint(classifier_ckpt, str(path), force=True)
    assert path.read_bytes() == b'the one before'
    assert [p.name for p in tmp_path.iterdir()] == [f'student.{kind}']


def test_not_a_number_is_a_difference():
    class Model(nn.Module):
        names = ('logits',)

        def forward(self, x):
            return (x,)

    batch = np.ones((1, 2), np.float32)
    with pytest.raises(ValueError, match='differs'):
        compare_outputs.largest_difference(Model(), lambda x: [x * np.nan], [batch])
    assert compare_outputs.largest_difference(Model(), lambda x: [x], [batch]) == 0


class Spectrum(nn.Module):
    """An operator that ONNX lacks under opset 17."""

    def forward(self, x):
        return (torch.fft.ifft2(torch.fft.fft2(x)).real,)


class FixedBatch(nn.Module):
    """A number of images that tracing makes a constant."""

    def forward(self, x):
        return (x.reshape(int(x.shape[0]), -1)[:, :16, None, None],)


def with_backbone(cls, folder):
    if MODELS.get(cls.__name__) is None:
        MODELS.register_module(module=cls)
    cfg = classifier_config()
    student = cfg.model.architecture
    student.backbone = dict(type=f'mmengine.{cls.__name__}', _delete_=True)
    student.backbone.pop('_delete_')
    student.head.in_channels = 3 if cls is Spectrum else 16
    # The teacher has what is distilled; nothing is trained here.
    cfg.model = student
    path = folder / 'plain.pth'
    return save(cfg, path)


def test_what_onnx_cannot_say(tmp_path):
    pytest.importorskip('onnxruntime')
    plain = with_backbone(Spectrum, tmp_path)
    match = 'ImageClassifier cannot be written as ONNX with opset 17.*\n.*mmdeploy'
    with pytest.raises(ValueError, match=match):
        export_checkpoint(plain, str(tmp_path / 'x.onnx'))
    assert not list(tmp_path.glob('x.onnx*'))
    assert 'checked' in export_checkpoint(plain, str(tmp_path / 'x.torchscript'))


def test_sizes_that_tracing_fixes(tmp_path):
    plain = with_backbone(FixedBatch, tmp_path)
    out = str(tmp_path / 'x.torchscript')
    with pytest.raises(ValueError, match='--dynamic batch or'):
        export_checkpoint(plain, out)
    said = export_checkpoint(plain, out, dynamic='none')
    assert 'input: images 1 x 3 x 24 x 32\n' in said and 'checked: 1 batches' in said


def test_detectors_that_suppress_on_the_way(tmp_path):
    from mmengine.hub import get_config

    cfg = get_config('mmdet::faster_rcnn/faster-rcnn_r18_fpn_8xb8-amp-lsj-200e_coco.py')
    cfg.model.backbone.init_cfg = None
    path = save(cfg, tmp_path / 'two_stages.pth')
    with pytest.raises(ValueError, match='FasterRCNN runs in no way.*mmdeploy'):
        export_checkpoint(path, str(tmp_path / 'x.torchscript'))


def test_packages_that_are_missing(classifier_ckpt, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, 'onnxruntime', None)
    with pytest.raises(ModuleNotFoundError, match='pip install onnx onnxruntime'):
        export_checkpoint(classifier_ckpt, str(tmp_path / 'x.onnx'))


def test_config_of_ones_own(classifier_ckpt, tmp_path):
    """For checkpoints that hold none; the weights must be its."""
    loaded = torch.load(classifier_ckpt, weights_only=True)
    path = str(tmp_path / 'weights.pth')
    torch.save(loaded['state_dict'], path)
    out = str(tmp_path / 'x.torchscript')
    with pytest.raises(ValueError, match=r'weights.pth: it says nothing.*--config'):
        export_checkpoint(path, out)
    config = tmp_path / 'config.py'
    classifier_config().dump(config)
    assert 'checked' in export_checkpoint(path, out, config=str(config))
    classifier_config(stem_channels=8).dump(config)
    with pytest.raises(ValueError, match='tensors do not fit the ImageClassifier'):
        export_checkpoint(path, out, config=str(config), force=True)


def test_texts_of_strangers_are_not_run(classifier_ckpt, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    loaded = torch.load(classifier_ckpt, weights_only=True)
    for attack in (
        "model = dict(type='os.system', command='touch taken')",
        "model = dict(type='ImageClassifier', backbone=dict(type='os.system', "
        "command='touch taken'))",
        "model = __import__('os').system('touch taken')",
    ):
        loaded['meta']['cfg'] = f"default_scope = 'mmpretrain'\n{attack}\n"
        torch.save(loaded, 'stranger.pth')
        with pytest.raises(ValueError, match='says nothing of its model'):
            export_checkpoint('stranger.pth', 'x.torchscript')
        assert not Path('taken').exists()


def test_preprocessing_that_cannot_be_stated(tmp_path):
    cfg = classifier_config()
    cfg.data_preprocessor.pad_size_divisor = 64
    path = save(cfg, tmp_path / 'padded.pth')
    # Padding is stated: the input has the size of what is padded.
    said = export_checkpoint(path, str(tmp_path / 'x.torchscript'))
    assert 'RGB, 64 x 64,' in said
    four = classifier_config(in_channels=4)
    four.data_preprocessor.update(mean=[0.0] * 4, std=[1.0] * 4, to_rgb=False)
    path = save(four, tmp_path / 'four.pth')
    with pytest.raises(ValueError, match='its images have 4 channels'):
        export_checkpoint(path, str(tmp_path / 'y.torchscript'))


def test_outputs_that_say_nothing_of_the_image(tmp_path):
    cfg = classifier_config()
    path = save(cfg, tmp_path / 'dead.pth')
    dead = torch.load(path, weights_only=True)
    for name, value in dead['state_dict'].items():
        if name.endswith('fc.weight'):
            value.zero_()
    torch.save(dead, path)
    said = export_checkpoint(path, str(tmp_path / 'x.torchscript'))
    assert 'NOTE: the outputs of an image and of its negative are the same' in said


@pytest.mark.parametrize('ending', ['torchscript', 'pth'])
def test_folders_that_are_missing_are_made(classifier_ckpt, tmp_path, ending):
    out, config = tmp_path / f'a/b/x.{ending}', tmp_path / 'c/d/x.py'
    export_checkpoint(classifier_ckpt, str(out), config_out=str(config))
    assert out.is_file() and config.is_file()


@pytest.mark.parametrize('name', ['x.pth', 'x.safetensors', 'x.bin'])
@pytest.mark.parametrize(
    ('option', 'value'),
    [
        ('config', 'r18w4_1xb50_digits'),
        ('image', 'cells.jpg'),
        ('input_size', (24, 32)),
        ('dynamic', 'none'),
        ('opset', 17),
    ],
)
def test_options_without_effect_are_refused(name, option, value, tmp_path):
    kind = 'pth' if name == 'x.bin' else None
    said = f'--{option.replace("_", "-")}.* no effect on .*{name}.*onnx'
    with pytest.raises(ValueError, match=said):
        export_checkpoint(
            'none.pth', str(tmp_path / name), file_format=kind, **{option: value}
        )


def test_versions_of_operators_that_are_too_old(tmp_path):
    """Torch writes what ONNX's own check refuses."""
    pytest.importorskip('onnxruntime')
    path = save(classifier_config(), tmp_path / 'x.pth')
    with pytest.raises(ValueError, match='cannot be written as ONNX with opset 1: '):
        export_checkpoint(path, str(tmp_path / 'x.onnx'), opset=1)
    assert [*tmp_path.iterdir()] == [tmp_path / 'x.pth']


def test_opset_of_torchscript_is_refused():
    with pytest.raises(ValueError, match='--opset has no effect on x.torchscript'):
        export_checkpoint('none.pth', 'x.torchscript', opset=17)


@pytest.mark.parametrize(
    ('name', 'said'),
    [
        ('student.onxx', r'says no format.*\.safetensors.*Did you mean \.onnx\?'),
        ('student', r'says no format; expected one of \.pth, .*give --format'),
        ('student.bin', 'says no format'),
    ],
)
def test_endings_that_nobody_knows(classifier_ckpt, tmp_path, name, said):
    out = tmp_path / name
    with pytest.raises(ValueError, match=said):
        export_checkpoint(classifier_ckpt, str(out))
    assert not out.exists()
    # --format says what it is.
    export_checkpoint(classifier_ckpt, str(out), file_format='pth')
    assert fetch_checkpoint(str(out))['state_dict']


@pytest.mark.parametrize('name', ['x.pt', 'x.ckpt', 'x.pth.tar', 'X.PTH'])
def test_usual_endings_of_checkpoints(classifier_ckpt, tmp_path, name):
    export_checkpoint(classifier_ckpt, str(tmp_path / name))
    assert torch.load(tmp_path / name, weights_only=True)['meta']['cfg']


def test_pictures_that_are_none(classifier_ckpt, tmp_path):
    with pytest.raises(FileNotFoundError, match='--image none.png'):
        export_checkpoint(
            classifier_ckpt, str(tmp_path / 'x.torchscript'), image='none.png'
        )


def test_operators_that_onnxruntime_does_not_know(tmp_path):
    """As mmcv's deformable convolutions are."""
    pytest.importorskip('onnxruntime')
    onnx = pytest.importorskip('onnx')
    node = onnx.helper.make_node('Unheard', ['images'], ['out'], domain='of.mine')
    shape = onnx.helper.make_tensor_value_info('images', 1, [1])
    out = onnx.helper.make_tensor_value_info('out', 1, [1])
    graph = onnx.helper.make_graph([node], 'g', [shape], [out])
    opsets = [onnx.helper.make_opsetid('', 17), onnx.helper.make_opsetid('of.mine', 1)]
    path = str(tmp_path / 'x.onnx')
    # An old version of the format, which every onnxruntime reads.
    model = onnx.helper.make_model(graph, opset_imports=opsets, ir_version=8)
    onnx.save(model, path)
    with pytest.raises(ValueError, match=r'does not load.*Unheard(.|\n)*mmdeploy'):
        command.onnx_file.run_onnx(path)
