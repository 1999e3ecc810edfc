# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""A checkpoint of the zoo becomes a file that mmpretrain's inferencer works from."""

import re
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmpretrain import ImageClassificationInferencer, get_model
from mmpretrain.datasets.categories import CIFAR100_CATEGORIES

from mmfakd.checkpoints.mdistiller import convert_mdistiller_state_dict
from mmfakd.cli import main
from tests.helpers import forked
from tests.helpers.mdistiller_zoo import TEACHER, build, zoo_state_dict

REPOSITORY = Path(__file__).resolve().parents[2]
TOOL = REPOSITORY / 'tools/mdistiller_to_mmfakd.py'


@pytest.fixture
def source(tmp_path):
    """A checkpoint of ResNet-8 as the zoo's training writes it."""
    path = tmp_path / 'ckpt_epoch_240.pth'
    torch.save(dict(epoch=240, model=zoo_state_dict('resnet8'), best_acc=60.2), path)
    return str(path)


@pytest.fixture
def convert(monkeypatch, capsys, tmp_path):
    """A function that runs the command and returns what it prints."""
    monkeypatch.chdir(tmp_path)

    def convert(*arguments):
        main(['convert', *arguments])
        return capsys.readouterr().out

    return convert


def failure(convert, *arguments):
    """What the command says when it gives up."""
    with pytest.raises(SystemExit) as error:
        convert(*arguments)
    return str(error.value.code).removeprefix('mmfakd convert: ')


def converted(path='out.pth'):
    return torch.load(path, weights_only=True)


@pytest.mark.parametrize('program', [[TOOL], ['-m', 'mmfakd', 'convert']])
def test_as_a_user_calls_it(program, source, tmp_path):
    words = [*program, source, 'out.pth', '--arch', 'resnet8']
    process = forked.run(*words, cwd=tmp_path)
    assert process.returncode == 0, process.stderr
    # All that is printed; the number of the literature.
    assert process.stdout == 'out.pth: resnet8, 83,892 parameters, 100 classes.\n'
    checkpoint = converted(tmp_path / 'out.pth')
    assert checkpoint.keys() == {'meta', 'state_dict'}
    expected = convert_mdistiller_state_dict(zoo_state_dict('resnet8'), 'resnet8')
    torch.testing.assert_close(checkpoint['state_dict'], expected, rtol=0, atol=0)


def test_file_alone_classifies_images(source, convert):
    convert(source, 'out.pth')
    checkpoint = converted()
    assert checkpoint['meta']['dataset_meta'] == dict(classes=CIFAR100_CATEGORIES)
    model = get_model(
        Config.fromstring(checkpoint['meta']['cfg'], '.py'), pretrained='out.pth'
    )
    rgb = np.random.RandomState(0).randint(0, 256, (32, 32, 3), dtype=np.uint8)
    cv2.imwrite('image.png', rgb[..., ::-1])
    (result,) = ImageClassificationInferencer(model)('image.png')
    mean, std = (0.5071, 0.4867, 0.4408), (0.2675, 0.2565, 0.2761)
    x = (torch.from_numpy(rgb / 255) - torch.tensor(mean)) / torch.tensor(std)
    naive = build('resnet8').eval()
    naive.load_state_dict(checkpoint['state_dict'])
    with torch.no_grad():
        expected = naive(x.permute(2, 0, 1)[None].float()).softmax(1)[0]
    np.testing.assert_allclose(result['pred_scores'], expected, rtol=1e-4)
    assert result['pred_class'] == CIFAR100_CATEGORIES[expected.argmax()]


@pytest.mark.parametrize('wrap', [dict, lambda s: dict(state_dict=s)])
def test_network_is_found(convert, wrap):
    torch.save(wrap(zoo_state_dict('wrn_16_1')), 'zoo.pth')
    out = convert('zoo.pth', 'out.pth', '--num-classes', '100')
    assert out == (
        'out.pth: wrn_16_1 (found by its tensors), 180,916 parameters, 100 classes.\n'
    )


@pytest.mark.parametrize(
    ('name', 'said'),
    [
        ('teacher.onnx', r'expected one of \.pth, .* `mmfakd export` writes \.onnx'),
        ('teacher.safetensor', r'Did you mean \.safetensors\?'),
    ],
)
def test_endings_of_other_formats_are_refused(source, convert, name, said):
    with pytest.raises(SystemExit) as error:
        convert(source, name)
    assert re.search(f'{name}: its ending says no format.*{said}', str(error.value))
    assert not Path(name).exists()


@pytest.mark.parametrize('name', ['out', 'out.PTH', 'out.tar'])
def test_names_of_files_of_torch(source, convert, name):
    convert(source, name)
    assert converted(name)['state_dict']


def test_other_classes_have_no_names(convert):
    state_dict = zoo_state_dict('resnet8')
    state_dict.update({'fc.weight': torch.ones(10, 64), 'fc.bias': torch.ones(10)})
    torch.save(state_dict, 'zoo.pth')
    assert '10 classes' in convert('zoo.pth', 'out.pth')
    meta = converted()['meta']
    assert meta['dataset_meta'] == {}
    cfg = Config.fromstring(meta['cfg'], '.py')
    assert cfg.model.head.num_classes == cfg.model.data_preprocessor.num_classes == 10


def test_networks_of_imagenet(convert):
    torch.save(zoo_state_dict('MobileNetV1'), 'zoo.pth')
    assert 'MobileNetV1 (found by its tensors), 4,231,976' in convert(
        'zoo.pth', 'out.pth'
    )
    meta = converted()['meta']
    assert len(meta['dataset_meta']['classes']) == 1000
    cfg = Config.fromstring(meta['cfg'], '.py')
    assert cfg.model.data_preprocessor.to_rgb
    model = get_model(cfg, pretrained='out.pth')
    image = np.zeros((30, 60, 3), np.uint8)
    (result,) = ImageClassificationInferencer(model)(image)
    assert result['pred_scores'].shape == (1000,)


def test_nothing_is_overwritten(source, convert):
    Path('out.pth').write_text('precious')
    message = failure(convert, source, 'out.pth')
    assert message == 'out.pth exists; choose another name, or give --force.'
    assert Path('out.pth').read_text() == 'precious'
    convert(source, 'out.pth', '--force')
    assert 'state_dict' in converted()


def test_bad_input(source, convert):
    def fails(*arguments):
        message = failure(convert, *arguments)
        assert not Path('out.pth').exists()
        return message

    assert f"{source}: These are no weights of 'resnet14'" in fails(
        source, 'out.pth', '--arch', 'resnet14'
    )
    message = fails(source, 'out.pth', '--arch', 'resnet-8')
    assert 'Near names: resnet8' in message
    message = fails(source, 'out.pth', '--num-classes', '10')
    assert message == f'{source}: it has 100 classes, not --num-classes 10.'
    assert "'missing.pth' is neither a file" in fails('missing.pth', 'out.pth')
    Path('text.pth').write_text('no checkpoint')
    assert 'is truncated or not a checkpoint' in fails('text.pth', 'out.pth')
    torch.save(dict(epoch=3, best_acc=1.0), 'empty.pth')
    message = fails('empty.pth', 'out.pth')
    assert 'empty.pth: it holds no weights: expected a state dict' in message
    assert 'got the keys epoch, best_acc.' in message
    torch.save([torch.ones(1)], 'list.pth')
    assert 'holds a list; expected a dict' in fails('list.pth', 'out.pth')
    torch.save({'conv.weight': torch.ones(1)}, 'other.pth')
    message = fails('other.pth', 'out.pth')
    assert 'its weights fit no network of the mdistiller zoo. Give --arch' in message


@pytest.mark.skipif(not TEACHER.is_file(), reason=f'needs the teacher {TEACHER}')
def test_trained_teacher(convert):
    out = convert(str(TEACHER), 'out.pth')
    assert 'resnet56 (found by its tensors), 861,620 parameters, 100 classes' in out
    model = build('resnet56').eval()
    model.load_state_dict(converted()['state_dict'], strict=True)
    with torch.no_grad():
        assert model(torch.randn(2, 3, 32, 32)).isfinite().all()
