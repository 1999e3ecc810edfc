# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""Teachers that say something else each time are told, and nothing else changes."""

import random
import threading

import numpy as np
import pytest
import torch
from torch import nn

from mmfakd.models.algorithms import random_features as module
from mmfakd.models.algorithms.random_features import random_features
from tests.helpers.toy import batch, feature_distill, layer_distiller, losses_of


class Noisy(nn.Module):
    """It draws in evaluation mode, too, from one generator; and counts."""

    def __init__(self, draw, counts=False):
        super().__init__()
        self.draw = draw
        self.register_buffer('count', torch.zeros(()))

    def forward(self, x):
        self.count += 1
        return x * self.draw()


DRAWS = {
    'torch': lambda: torch.rand(()) + 0.5,
    'numpy': lambda: np.random.uniform(0.5, 1.5),
    'random': lambda: random.uniform(0.5, 1.5),
    'nothing': lambda: 1.0,
}


def build(draw):
    model = feature_distill(distiller=layer_distiller())
    layers = model.teacher.backbone.layer2
    layers.append(Noisy(DRAWS[draw]))
    return model


def states():
    numpy = np.random.get_state()
    return (
        torch.get_rng_state().tolist(),
        numpy[1].tolist(),
        numpy[2],
        random.getstate(),
    )


@pytest.mark.parametrize('draw', list(DRAWS))
def test_random_teachers_are_told_in_the_first_step(draw):
    model, data = build(draw), batch()
    losses_of(model, data)
    told = [w for w in model.first_step.warnings if 'is not deterministic' in w]
    assert len(told) == (draw != 'nothing')
    assert all('what backbone.layer3 yields' in text for text in told)
    # Once a training.
    noisy = model.teacher.backbone.layer2[-1]
    assert noisy.count == 1
    losses_of(model, data)
    assert noisy.count == 2


@pytest.mark.parametrize('draw', ['torch', 'numpy', 'random'])
def test_it_leaves_no_trace(draw):
    model = build(draw)
    data = model.data_preprocessor(batch(), True)
    teacher, distiller = model._teacher, model.distiller
    teacher.record(distiller, *data.values())
    [recorder] = distiller.teacher_recorders.recorders.values()
    [record] = recorder.data_buffer
    before, values = states(), record.clone()
    assert random_features(teacher, distiller, *data.values()) == ['backbone.layer3']
    assert states() == before
    assert recorder.data_buffer == [record] and torch.equal(record, values)
    assert model.teacher.backbone.layer2[-1].count == 1


@pytest.fixture
def said(monkeypatch):
    texts = []
    monkeypatch.setattr(module, 'print_log', lambda text, **_: texts.append(text))
    return texts


def test_samples_that_cannot_be_copied_end_no_training(said):
    model, data = build('torch'), batch()
    for sample in data['data_samples']:
        sample.set_field(threading.Lock(), 'lock', field_type='metainfo')
    losses_of(model, data)
    [text] = said
    assert 'cannot be run a second time: TypeError: cannot pickle' in text
    assert model.teacher.backbone.layer2[-1].count == 1


@pytest.mark.parametrize('error', [RuntimeError, torch.cuda.OutOfMemoryError])
def test_a_second_pass_that_fails_leaves_no_trace(error, said):
    def draw():
        if noisy.count > 1:
            raise error('no second time')
        return 1.0

    model = build('nothing')
    noisy = model.teacher.backbone.layer2[-1]
    noisy.draw = draw
    data = model.data_preprocessor(batch(), True)
    teacher, distiller = model._teacher, model.distiller
    teacher.record(distiller, *data.values())
    [recorder] = distiller.teacher_recorders.recorders.values()
    [record] = recorder.data_buffer
    assert random_features(teacher, distiller, *data.values()) == []
    assert recorder.data_buffer[0] is record and noisy.count == 1
    assert 'no second time' in said[0]


def test_who_stops_a_training_stops_it(said):
    model = build('nothing')
    data = model.data_preprocessor(batch(), True)
    model._teacher.record(model.distiller, *data.values())

    def interrupt():
        raise KeyboardInterrupt

    model.teacher.backbone.layer2[-1].draw = interrupt
    with pytest.raises(KeyboardInterrupt):
        random_features(model._teacher, model.distiller, *data.values())


@pytest.mark.parametrize('whole', [True, False])
def test_compiled_teachers_run_once(whole):
    model = build('torch')
    data = model.data_preprocessor(batch(), True)
    model._teacher.record(model.distiller, *data.values())
    backbone = model.teacher.backbone
    if whole:
        backbone.compile(backend='eager')
    else:
        model.teacher.backbone = torch.compile(backbone, backend='eager')
    assert not random_features(model._teacher, model.distiller, *data.values())
    assert backbone.layer2[-1].count == 1


def test_what_is_delivered_to_the_student_is_drawn_for_both():
    model = build('torch')
    data = model.data_preprocessor(batch(), True)
    model._teacher.record(model.distiller, *data.values())
    model.distiller.deliveries.deliveries['drawn'] = object()
    assert not random_features(model._teacher, model.distiller, *data.values())


@pytest.mark.parametrize(('mode', 'tokens'), [('auto', 5), ('backbone', 2)])
def test_a_masked_autoencoder_sees_whole_images(mode, tokens):
    arch = dict(embed_dims=12, num_layers=1, num_heads=2, feedforward_channels=12)
    neck = dict(type='MAEPretrainDecoder', patch_size=4, num_patches=4, embed_dim=12)
    neck.update(decoder_embed_dim=4, decoder_depth=1, decoder_num_heads=2)
    loss = dict(type='PixelReconstructionLoss', criterion='L2')
    teacher = dict(
        type='MAE',
        _scope_='mmpretrain',
        backbone=dict(type='MAEViT', arch=arch, patch_size=4, img_size=8),
        neck=neck,
        head=dict(type='MAEPretrainHead', patch_size=4, loss=loss),
    )
    cfg = layer_distiller()
    cfg['teacher_recorders']['feature']['source'] = 'backbone.layers.0'
    model = feature_distill(teacher=teacher, distiller=cfg, teacher_mode=mode)
    data = model.data_preprocessor(batch(), True)
    model._teacher.record(model.distiller, *data.values())
    found = random_features(model._teacher, model.distiller, *data.values())
    # Of four patches one is seen where it masks.
    assert found == ['backbone.layers.0'] * (mode == 'backbone')
    [recorder] = model.distiller.teacher_recorders.recorders.values()
    assert recorder.data_buffer[0].shape == (4, tokens, 12)
