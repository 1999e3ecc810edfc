# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""Published weights as files: copied, downloaded, and used without mmfakd."""

import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.registry import MODELS, DefaultScope
from sklearn.datasets import load_digits

from mmfakd import cli
from mmfakd.checkpoints import published_file
from mmfakd.checkpoints.fetch import fetch_checkpoint
from mmfakd.checkpoints.load import load_weights
from mmfakd.checkpoints.published_file import get_published
from mmfakd.checkpoints.state_dict import COUNTER
from mmfakd.checkpoints.student import stock_config
from mmfakd.model_zoo.find import config_file
from mmfakd.model_zoo.published import published_entry

REPOSITORY = Path(__file__).resolve().parents[2]
LAYER = 'fakd_layer_r18w32_r18w4_1xb50_digits'
TEACHER = 'r18w32_1xb50_digits'


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


def test_printed_lines_classify(tmp_path, no_network):
    """As they are printed, on real images."""
    told = get_published(LAYER, str(tmp_path))
    lines = told.partition('On images:\n')[2]
    # Mmpretrain's own parts suffice.
    assert 'mmfakd' not in lines.partition('infer = ')[0]
    names = {}
    exec('\n'.join(line.strip() for line in lines.splitlines()), names)
    digits = load_digits()
    images = np.round(digits.images[:40] * (255 / 16)).astype(np.uint8)
    found = names['infer']([image[..., None] for image in images])
    right = [r['pred_class'] == str(t) for r, t in zip(found, digits.target)]
    assert np.mean(right) > 0.8


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
