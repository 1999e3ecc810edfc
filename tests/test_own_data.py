# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""Pages on images of one's own: every command and every snippet, on small data."""

import itertools
import json
import re
import shlex
from importlib.util import find_spec
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from mmengine.registry import MODELS

from mmfakd.checkpoints import download
from mmfakd.checkpoints.download import promised_hash
from mmfakd.cli import main
from mmfakd.utils import resolve_model_cfg
from tests.helpers.mdistiller_zoo import zoo_state_dict
from tests.helpers.toy import classifier, feature_distill

REPOSITORY = Path(__file__).resolve().parents[1]
# Each builds on what those before have left in the folder.
PAGES = {
    name: (REPOSITORY / f'docs/en/{name}.md').read_text()
    for name in ('image_folder', 'own_backbone', 'detector', 'own_data')
}
NAMES = ('daisy', 'dandelion', 'rose', 'sunflower', 'tulip')


def find_blocks(text):
    return re.findall(r'^```(python|bash)\n(.*?)^```', text, re.M | re.S)


def name_of(block):
    return re.match(r'# (\w+\.py)\n', block)[1]


BLOCKS = {name: find_blocks(page) for name, page in PAGES.items()}
SMALL = (
    "pipeline=[dict(type='LoadImageFromFile'), "
    "dict(type='RandomResizedCrop', scale=64), dict(type='PackInputs')]"
)
# One short epoch on small images; nothing else is changed.
SHORT = {
    'pipeline={{_base_.train_pipeline}}': SMALL,
    'pipeline={{_base_.test_pipeline}}': SMALL,
    'max_epochs=30': 'max_epochs=1',
    'T_max=30': 'T_max=1',
    'epochs = 32, 5, 30': 'epochs = 32, 5, 1',
    'epoch_30': 'epoch_1',
    'epoch_12': 'epoch_1',
    '(640, 480)': '(96, 64)',
    'num_workers=2': 'num_workers=0, persistent_workers=False',
    '--expected 90': '--expected 0',
    # timm has its own way to download.
    'pretrained=True': 'pretrained=False',
}


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    """A folder with images, annotations, weights and the page's configs."""
    folder = tmp_path_factory.mktemp('own_data')
    rng = np.random.default_rng(0)

    def image(path, *size):
        path.parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(path), rng.integers(0, 256, (*size, 3), np.uint8))

    for split in ('train', 'val'):
        for kind in NAMES:
            image(folder / f'data/flowers/{split}/{kind}/1.jpg', 40, 50)
    (folder / 'data/bccd/annotations').mkdir(parents=True)
    names = ('RBC', 'WBC', 'Platelets')
    for split in ('trainval', 'test'):
        images, boxes = [], []
        for i in (6, 7):
            file = f'BloodImage_0000{i}.jpg'
            image(folder / 'data/bccd/images' / file, 64, 96)
            images.append(dict(id=i, file_name=file, height=64, width=96))
            for j in (1, 2, 3):
                place = dict(id=len(boxes) + 1, image_id=i, category_id=j, iscrowd=0)
                boxes.append(dict(place, bbox=[20 * j, 5 * j, 30, 40], area=1200))
        categories = [dict(id=i + 1, name=name) for i, name in enumerate(names)]
        content = dict(images=images, annotations=boxes, categories=categories)
        path = folder / f'data/bccd/annotations/{split}.json'
        path.write_text(json.dumps(content))
    torch.save(dict(model=zoo_state_dict('resnet56')), folder / 'ckpt_epoch_240.pth')
    for kind, text in itertools.chain(*BLOCKS.values()):
        if kind == 'python':
            (folder / name_of(text)).write_text(shorten(text))
    with open(folder / 'my_detector.py', 'a') as file:
        file.write(
            'train_cfg = dict(max_epochs=1)\n'
            # After one step a detector is sure of nothing.
            'model.update(test_cfg=dict(score_thr=0.0))\n'
            'for loader in (train_dataloader, val_dataloader):\n'
            '    loader.update(num_workers=0, persistent_workers=False)\n'
        )
    return folder


def shorten(text):
    for long, short in SHORT.items():
        text = text.replace(long, short)
    return text


RESNET34 = 'resnet34_8xb32_in1k_20210831-f257d4e6.pth'
# Where MMEngine and torch keep what they have downloaded.
DOWNLOADS = {
    'mmpretrain::resnet/resnet18_8xb32_in1k.py': [
        'hub/checkpoints/resnet18_8xb32_in1k_20210831-fbbb1da6.pth'
    ],
    'mmpretrain::resnet/resnet34_8xb32_in1k.py': [
        f'checkpoints/{RESNET34}',
        f'hub/checkpoints/{RESNET34}',
    ],
    'mmdet::retinanet/retinanet_r50_fpn_1x_coco.py': [
        'checkpoints/retinanet_r50_fpn_1x_coco_20200130-c2398f9e.pth'
    ],
    'mmdet::retinanet/retinanet_r18_fpn_1x_coco.py': [
        'hub/checkpoints/retinanet_r18_fpn_1x_coco_20220407_171055-614fd399.pth'
    ],
}
# Detectors whose backbones torchvision publishes.
TORCHVISION = {
    'mmdet::retinanet/retinanet_r18_fpn_1x_coco.py': 'resnet18-f37072fd.pth',
    'mmdet::retinanet/retinanet_r50_fpn_1x_coco.py': 'resnet50-0676ba61.pth',
}


@pytest.fixture(scope='module')
def home(folder):
    """Random weights where downloaded ones would lie."""
    home = folder / 'home'
    for path, files in DOWNLOADS.items():
        cfg, _ = resolve_model_cfg(dict(cfg_path=path))
        weights = dict(MODELS.build(cfg).state_dict())
        for file in files:
            (home / file).parent.mkdir(parents=True, exist_ok=True)
            torch.save(dict(state_dict=weights), home / file)
        if file := TORCHVISION.get(path):
            start = 'backbone.'
            backbone = {k[9:]: v for k, v in weights.items() if k.startswith(start)}
            torch.save(backbone, home / 'hub/checkpoints' / file)
    return home


@pytest.fixture
def place(folder, home, monkeypatch):
    """Work in the folder, without a network."""
    monkeypatch.setenv('MMENGINE_HOME', str(home))
    monkeypatch.setenv('TORCH_HOME', str(home))
    # Random weights have no hash that a name could promise.
    monkeypatch.setattr(download, 'file_hash', lambda path: promised_hash(path) or '')
    monkeypatch.chdir(folder)


def run(command):
    """Run a command of the page, mmfakd's own in this process; its exit status."""
    program, *arguments = shlex.split(shorten(command), comments=True)
    if program == 'python':
        exec(compile(Path(arguments[0]).read_text(), arguments[0], 'exec'), {})
        return None
    assert program == 'mmfakd'
    try:
        main(arguments)
    except SystemExit as error:
        return error.code
    return None


def commands(name):
    """The commands of a page, and its scripts, in their order."""
    for kind, block in BLOCKS[name]:
        if kind == 'bash':
            yield from re.sub(r'\\\n\s*', '', block).splitlines()
        elif not re.search(r'^(model|_base_) = |^class ', block, re.M):
            yield f'python {name_of(block)}'


def run_page(name, capfd):
    """Run a page; what its commands said."""
    said = {}
    for command in commands(name):
        if command.startswith(('export ', 'pip ')):
            continue
        capfd.readouterr()
        status = run(command)
        said[command] = capfd.readouterr().out
        # A teacher at random has warnings.
        right = (None, 0, 3) if ' check ' in command else (None, 0)
        assert status in right, f'{command}: {status}\n{said[command]}'
    return said


@pytest.mark.slow
def test_every_command(place, capfd, monkeypatch):
    """In one test: each page builds on the one before."""
    pages = [name for name in PAGES if find_spec('timm') or name != 'own_backbone']
    # As `PYTHONPATH=.` does.
    monkeypatch.syspath_prepend('.')
    said = {}
    for name in pages:
        said.update(run_page(name, capfd))
    for command, out in said.items():
        if 'check-teacher' in command:
            score = {'_kd': 'accuracy/top1', '_own': 'coco/bbox_mAP'}
            known = [score[kind] for kind in score if f'{kind}.py' in command]
            assert (known or ['its score cannot be computed here'])[0] in out
        elif '--inherit' in command:
            assert 'bbox_head' in out
        elif 'classify' in command:
            assert out.splitlines()[-1].endswith(NAMES)
        elif 'detect.py' in command:
            assert "('RBC', 'WBC', 'Platelets')" in out
        elif 'compare' in command:
            assert '| taught |' in out
    assert len(said) >= 25 + 5 * (pages == [*PAGES])
    assert not run('mmfakd train my_detector_from_coco.py')


def test_every_block_is_run():
    """By name, or as the base or the module of what is."""
    blocks = [*itertools.chain(*BLOCKS.values())]
    configs = {name_of(block) for kind, block in blocks if kind == 'python'}
    text = ' '.join(command for name in PAGES for command in commands(name))
    assert len(configs) >= 15
    others = {'my_detector_from_coco.py', 'my_net.py'}
    assert configs <= {*re.findall(r'\w+\.py', text)} | others


def test_the_quoted_error_is_the_real_one():
    logits = dict(fc=dict(type='mmrazor.ModuleOutputs', source='head.fc'))
    mapping = dict(
        preds_S=dict(recorder='fc', from_student=True),
        preds_T=dict(recorder='fc', from_student=False),
    )
    with pytest.raises(ValueError) as error:
        feature_distill(
            architecture=classifier(num_classes=5),
            teacher=classifier(num_classes=1000),
            distiller=dict(
                type='mmrazor.ConfigurableDistiller',
                student_recorders=logits,
                teacher_recorders=logits,
                distill_losses=dict(loss_kl=dict(type='mmrazor.KLDivergence')),
                loss_forward_mappings=dict(loss_kl=mapping),
            ),
        )
    quoted = ' '.join(re.findall(r'^> (.*)$', PAGES['own_data'], re.M))
    assert str(error.value) == f'{quoted} See docs/en/own_data.md.'
