# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""Published weights as files: copied, downloaded, and used without mmfakd."""

import re
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.registry import MODELS, DefaultScope

from mmfakd import cli
from mmfakd.checkpoints import published_file
from mmfakd.checkpoints.fetch import fetch_checkpoint
from mmfakd.checkpoints.load import load_weights
from mmfakd.checkpoints.published_file import get_published
from mmfakd.checkpoints.state_dict import COUNTER
from mmfakd.checkpoints.student import stock_config
from mmfakd.datasets import Digits
from mmfakd.model_zoo.find import config_file
from mmfakd.model_zoo.published import published_entry

REPOSITORY = Path(__file__).resolve().parents[2]
LAYER = 'fakd_layer_r18w32_r18w4_1xb50_digits'
TEACHER = 'r18w32_1xb50_digits'
COLOURED = 'fakd_review_r56_r20_1xb64_cifar100'
CIFAR = REPOSITORY.parent / 'shared/data/cifar100'


@pytest.fixture
def entry():
    return published_entry(LAYER)


def test_copy(tmp_path, entry, no_network, capsys):
    cli.main(['zoo', 'get', LAYER, '-o', str(tmp_path / 'zoo')])
    told = capsys.readouterr().out
    weights, config = sorted((tmp_path / 'zoo').iterdir())
    assert weights.name == entry['Published']['File']
    assert weights.read_bytes() == Path(entry['Weights']).read_bytes()
    assert config == weights.with_suffix('.py')
    assert f'--teacher-ckpt {LAYER}' in told
    # Again: nothing is in the way.
    get_published(LAYER, str(tmp_path / 'zoo'))
    config.write_text('a = 1')
    with pytest.raises(FileExistsError, match='other content.*--force'):
        get_published(LAYER, str(tmp_path / 'zoo'))
    get_published(LAYER, str(tmp_path / 'zoo'), force=True)
    assert Config.fromfile(config).model.type == 'ImageClassifier'


def printed(name, folder):
    """The inferencer that the printed lines make, and these."""
    lines = get_published(name, str(folder)).partition('On images:\n')[2]
    names = {}
    exec('\n'.join(line.strip() for line in lines.splitlines()), names)
    return names['infer'], lines


def score(infer, images, labels):
    found = infer(images, batch_size=100)
    return 100 * np.mean([r['pred_label'] == t for r, t in zip(found, labels)])


def as_files(images, folder):
    """Write images, which OpenCV takes as BGR or grey."""
    files = [str(folder / f'{i}.png') for i in range(len(images))]
    assert all(map(cv2.imwrite, files, images))
    return files


def test_printed_lines_classify(tmp_path, entry, no_network):
    """As they are printed, on real images: all that the published score is of."""
    infer, lines = printed(LAYER, tmp_path)
    # Mmpretrain's own parts suffice.
    assert 'mmfakd' not in lines.partition('infer = ')[0]
    items = Digits('test')
    images, labels = zip(*((item['img'], item['gt_label']) for item in items))
    [published] = entry['Published']['Metrics'].values()
    files = as_files(images, tmp_path)
    # Files, arrays as the data set has them, and without their one channel.
    for given in (files, [*images], [image[..., 0] for image in images]):
        assert score(infer, given, labels) == pytest.approx(published)


@pytest.mark.skipif(
    not (CIFAR / 'test.npz').is_file(), reason=f'needs CIFAR-100 as arrays in {CIFAR}'
)
def test_printed_lines_classify_colours(tmp_path, no_network):
    """Files, and arrays as OpenCV reads them, score as RGB images do in a test."""
    infer, _ = printed(COLOURED, tmp_path)
    with np.load(CIFAR / 'test.npz') as arrays:
        images, labels = arrays['images'][:200], arrays['labels'][:200]
    trained_on = torch.from_numpy(images).permute(0, 3, 1, 2)
    with torch.no_grad():
        batch = infer.model.data_preprocessor(dict(inputs=trained_on))['inputs']
        right = infer.model(batch).argmax(1).numpy() == labels
    assert 40 < 100 * right.mean() < 50
    turned = [*images[..., ::-1]]
    for given in (as_files(turned, tmp_path), turned):
        assert score(infer, given, labels) == pytest.approx(100 * right.mean())


@pytest.mark.parametrize(
    ('name', 'lines'),
    [
        ('r20_1xb64_cifar100', "import mmfakd; .*\n.*('a.py', pretrained='b')"),
        ('gfl_r18w16_1xb8_bccd', "from mmdet.*\n.*Inferencer(weights='b')"),
    ],
)
def test_lines_of_every_library(name, lines):
    """With the import that registers a backbone, where it is one of mmfakd's."""
    config = stock_config(Config.fromfile(config_file(name)))
    told = published_file._how_to_infer(config, 'a.py', 'b')
    assert re.search(lines.replace('(', r'\(').replace(')', r'\)'), told)


def test_page(tmp_path, monkeypatch, no_network):
    """What it shows, in its order."""
    pytest.importorskip('mmdet')
    pytest.importorskip('mmcv.ops', exc_type=ImportError)
    page = (REPOSITORY / 'docs/en/model_zoo.md').read_text()
    [get] = re.findall(r'^mmfakd (zoo get .*)', page, re.MULTILINE)
    monkeypatch.chdir(tmp_path)
    cli.main(get.split())
    names = {}
    for code in re.findall(r'^```python\n(.*?)^```', page, re.MULTILINE | re.DOTALL):
        exec(code, names)
    assert type(names['model']).__name__ == 'ImageClassifier'
    image = np.zeros((8, 8, 1), np.uint8)
    assert names['classify'](image)[0]['pred_class'] in '0123456789'
    found = names['detect'](np.zeros((90, 120, 3), np.uint8), no_save_vis=True)
    assert {*found['predictions'][0]} == {'labels', 'scores', 'bboxes'}


def test_name_in_place_of_a_file(entry, no_network):
    named = fetch_checkpoint(LAYER)['state_dict']
    filed = torch.load(entry['Weights'], weights_only=True)['state_dict']
    assert all(torch.equal(named[key], value) for key, value in filed.items())
    assert fetch_checkpoint(f'mmfakd::{LAYER}')['meta']['mmfakd']['name'] == LAYER


def test_teacher_of_a_name(no_network):
    """As `--teacher-ckpt` takes it: strictly."""
    cfg = Config.fromfile(config_file(TEACHER))
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        model = MODELS.build(cfg.model)
    filled = load_weights(model, TEACHER, 'teacher')
    assert {*filled} == {k for k in model.state_dict() if not k.endswith(COUNTER)}


def test_name_of_a_model_without_weights(no_network):
    told = 'no weights are published.*`mmfakd train vgg8_1xb64_cifar100`'
    with pytest.raises(FileNotFoundError, match=told):
        fetch_checkpoint('vgg8_1xb64_cifar100')


def test_damaged_file_is_refused(tmp_path, entry, monkeypatch):
    damaged = tmp_path / Path(entry['Weights']).name
    shutil.copy(entry['Weights'], damaged)
    with open(damaged, 'r+b') as file:
        file.seek(20_000)
        file.write(b'\0\1\2')
    changed = dict(entry, Weights=str(damaged))
    monkeypatch.setattr(published_file, 'published_entry', lambda name: changed)
    with pytest.raises(ValueError, match='promises the SHA-256.*install mmfakd again'):
        get_published(LAYER, str(tmp_path / 'out'))
    assert not (tmp_path / 'out').exists()


def test_download(tmp_path, entry, monkeypatch, server, cache):
    """What is no part of the package comes from its address, once."""
    shutil.copy(entry['Weights'], server.folder)
    url = f'{server.url}/{Path(entry["Weights"]).name}'
    monkeypatch.setattr(
        published_file, 'published_entry', lambda name: dict(entry, Weights=url)
    )
    for folder in ('first', 'second'):
        get_published(LAYER, str(tmp_path / folder))
        file = tmp_path / folder / entry['Published']['File']
        assert file.read_bytes() == Path(entry['Weights']).read_bytes()
    assert server.requested.count(f'/{file.name}') == 1
