# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""The code in docs/en/export.md runs, and its three ways agree."""

import json
import re
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from mmengine.config import Config

from mmfakd.export.command import export_checkpoint
from tests.test_export.conftest import CLASSES

PAGE = Path(__file__).resolve().parents[2] / 'docs/en/export.md'


def snippets():
    return re.findall(r'^```python\n(.*?)^```', PAGE.read_text(), re.M | re.S)


@pytest.fixture
def folder(classifier_ckpt, detector_ckpt, pictures, tmp_path, monkeypatch):
    """The files that the page speaks of."""
    pytest.importorskip('onnxruntime')
    monkeypatch.chdir(tmp_path)
    for ending in ('onnx', 'torchscript', 'safetensors'):
        export_checkpoint(classifier_ckpt, f'student.{ending}')
    export_checkpoint(detector_ckpt, 'detector.onnx')
    export_checkpoint(detector_ckpt, 'detector.pth', config_out='detector.py')
    shutil.copy(pictures / 'china.png', 'picture.jpg')
    shutil.copy(pictures / 'flower.png', 'cells.jpg')
    return tmp_path


def test_snippets(folder, capsys):
    found = snippets()
    assert len(found) == 4
    seen, logits = {}, []
    for number, code in enumerate(found):
        exec(compile(code, f'{PAGE}, snippet {number}', 'exec'), seen)
        logits.append(np.asarray(seen['logits']))
    for other in logits[1:3]:
        np.testing.assert_allclose(other, logits[0], rtol=1e-4, atol=1e-6)
    # The class that all of them print is that of the largest logit.
    said = capsys.readouterr().out.splitlines()
    assert said.count(CLASSES[logits[0].argmax()]) == 2

    compare_detections(seen['found'])


@pytest.mark.parametrize(
    'pad',
    [
        dict(size=(128, 160), pad_val=dict(img=(100, 114, 130))),
        dict(pad_to_square=True, pad_val=dict(img=114)),
    ],
)
def test_letterboxed_detector(detector_ckpt, pictures, tmp_path, monkeypatch, pad):
    """As RTMDet and YOLOX pad, whose input is larger than their images."""
    pytest.importorskip('onnxruntime')
    monkeypatch.chdir(tmp_path)
    checkpoint = torch.load(detector_ckpt, weights_only=True)
    cfg = Config.fromstring(checkpoint['meta']['cfg'], '.py')
    cfg.test_dataloader.dataset.pipeline.insert(2, dict(type='Pad', **pad))
    cfg.model.architecture.data_preprocessor.update(pad_value=0.5)
    checkpoint['meta']['cfg'] = cfg.pretty_text
    torch.save(checkpoint, 'letterbox.pth')
    export_checkpoint('letterbox.pth', 'detector.onnx')
    export_checkpoint('letterbox.pth', 'detector.pth', config_out='detector.py')
    shutil.copy(pictures / 'flower.png', 'cells.jpg')
    seen = dict(cv2=cv2, json=json, np=np, torch=torch, Config=Config)
    seen['onnxruntime'] = pytest.importorskip('onnxruntime')
    exec(compile(snippets()[-1], str(PAGE), 'exec'), seen)
    assert seen['how']['keep_ratio'] and seen['how']['image_size'] == [96, 96]
    # The larger side is that of the photograph; what it is padded to is another.
    assert (seen['height'], seen['width']) == (64, 96)
    compare_detections(seen['found'])


def compare_detections(ours):
    """What mmdet itself detects."""
    from mmdet.apis import DetInferencer

    detect = DetInferencer('detector.py', 'detector.pth', device='cpu')
    expected = detect('cells.jpg', return_datasamples=True)['predictions'][0]
    expected = expected.pred_instances
    assert len(ours) > 0 and torch.equal(ours.labels, expected.labels)
    np.testing.assert_allclose(ours.scores, expected.scores, rtol=1e-3)
    np.testing.assert_allclose(ours.bboxes, expected.bboxes, atol=0.1)
