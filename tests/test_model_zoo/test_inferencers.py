# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""What inferencers build of a text in a weight file imports and unpickles nothing."""

import pickle
import sys

import pytest
import torch
from mmengine.config import Config
from mmengine.infer import BaseInferencer
from mmengine.registry import DATASETS

import mmfakd  # noqa: F401
from mmfakd.compat.config_literals import find_risk
from mmfakd.model_zoo.inferencers import guard_inferencers
from tests.helpers.strangers_files import Call, save_with_text
from tests.helpers.toy import classifier

RUNS = f'open("ran", "w").close()\nmodel = {classifier()!r}\n'


class Inferencer(BaseInferencer):
    """Builds what mmdet's does: a model, and a data set for its classes."""

    _init_pipeline = preprocess = visualize = postprocess = lambda *a, **kw: None

    def _load_weights_to_model(self, model, checkpoint, cfg):
        if 'test_dataloader' in cfg:
            self.dataset = DATASETS.build(cfg.test_dataloader.dataset)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder with files of a stranger, from which Python imports."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    for name in ('evil_of_a_stranger', 'of_a_strangerRecorder'):
        (tmp_path / f'{name}.py').write_text(RUNS)
    data = pickle.dumps(Call(exec, 'open("ran", "w").close()'))
    (tmp_path / 'a.pkl').write_bytes(data)
    yield tmp_path
    for name in [name for name in sys.modules if 'of_a_stranger' in name]:
        del sys.modules[name]


def text(model=None, **config):
    model = classifier() if model is None else model
    visualizer = dict(type='mmpretrain.UniversalVisualizer')
    scope = dict(default_scope='mmpretrain', model=model, visualizer=visualizer)
    return Config({**scope, **config}).pretty_text


def wrapped(file):
    """Such wrappers build the data set in them to the end, whatever they are told."""
    dataset = dict(type='mmengine.dataset.BaseDataset', ann_file=file)
    wrapper = dict(type='mmengine.dataset.ConcatDataset', datasets=[dataset])
    return dict(dataset=dict(wrapper, lazy_init=True))


def distillation(recorder):
    distiller = dict(type='mmrazor.ConfigurableDistiller')
    distiller.update(student_recorders=dict(a=recorder))
    models = dict(architecture=classifier(), teacher=classifier())
    return dict(type='mmrazor.SingleTeacherDistill', distiller=distiller, **models)


OF_FILE = dict(
    type='mmfakd.FeatureDistill',
    architecture=dict(cfg_path='evil_of_a_stranger.py'),
    teacher=classifier(),
    distiller=dict(type='mmrazor.ConfigurableDistiller'),
)
RECORDER = dict(type='of_a_stranger', source='backbone')
STRANGE = {
    'a model of a file': text(OF_FILE),
    'a part of a model of a file': text(dict(classifier(), backbone=OF_FILE)),
    'a name that is put together': text(distillation(RECORDER)),
    'a pickle in a wrapped data set': text(test_dataloader=wrapped('a.pkl')),
}


@pytest.mark.parametrize('model', [None, {}], ids=['no model', 'empty'])
@pytest.mark.parametrize('payload', STRANGE)
def test_text_runs_nothing(payload, model, folder):
    save_with_text('a.pth', STRANGE[payload])
    assert find_risk(STRANGE[payload]) is None
    meant = 'would be run|is no type|not registered|not in the|a pickle is named'
    with pytest.raises((KeyError, ValueError), match=meant):
        Inferencer(model, weights='a.pth')
    assert not (folder / 'ran').exists()


@pytest.mark.parametrize('payload', STRANGE)
def test_config_of_one_s_own_is_trusted(payload, folder):
    (folder / 'own.py').write_text(STRANGE[payload])
    try:
        Inferencer('own.py')
    except (TypeError, ValueError) as error:
        print(error)
    assert (folder / 'ran').exists()


@pytest.mark.parametrize('old', [False, True], ids=['zip', 'before torch 1.6'])
def test_what_trainings_write_is_built(old, folder):
    """MMEngine's data set is registered nowhere."""
    (folder / 'a.json').write_text('{"metainfo": {}, "data_list": [{"img_path": "1"}]}')
    loader = wrapped('a.json')
    key = dict(type='mmcv.transforms.KeyMapper', transforms=[])
    loader['dataset']['datasets'][0]['pipeline'] = [key]
    save_with_text('a.pth', text(test_dataloader=loader))
    if old:
        content = torch.load('a.pth', weights_only=True)
        torch.save(content, 'a.pth', _use_new_zipfile_serialization=False)
    inferencer = Inferencer(weights='a.pth')
    assert type(inferencer.model).__name__ == 'ImageClassifier'
    assert len(inferencer.dataset) == 1


def test_guard_is_repeatable():
    before = BaseInferencer.__init__
    guard_inferencers()
    assert BaseInferencer.__init__ is before
