# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""What a stranger's config may have called: nothing but what is registered."""

import sys

import pytest
import torch
from mmengine.registry import DATASETS, HOOKS, MODELS, TASK_UTILS, TRANSFORMS

import mmfakd  # noqa: F401
from mmfakd.model_zoo.build import build_without_weights
from mmfakd.model_zoo.registered_types import registered_types_only
from tests.helpers.toy import classifier

RUNS = 'from pathlib import Path\nPath("ran").touch()\nmodel = dict(type="ResNet")\n'


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder with modules and files of a stranger, from which Python imports."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / 'evil_of_a_stranger.py').write_text(RUNS)
    package = tmp_path / 'package_of_a_stranger'
    package.mkdir()
    (package / '__init__.py').write_text(RUNS)
    (package / 'registry.py').write_text(RUNS)
    (tmp_path / 'victim.txt').write_text('mine')
    yield tmp_path
    for name in [name for name in sys.modules if 'of_a_stranger' in name]:
        del sys.modules[name]


@pytest.mark.parametrize(
    'model',
    [
        dict(type='evil_of_a_stranger'),
        dict(type='mmpretrain.get_model', model='evil_of_a_stranger.py'),
        dict(type='mmpretrain.apis.get_model', model='evil_of_a_stranger.py'),
        dict(type='mmdet.apis.DetInferencer', model='evil_of_a_stranger.py'),
        dict(
            type='mmengine.logging.MMLogger',
            name='a',
            logger_name='a',
            log_file='victim.txt',
            file_mode='w',
        ),
        dict(type='os.system', command='touch ran'),
        dict(type='mmpretrain.package_of_a_stranger.Net'),
        dict(type='package_of_a_stranger.Net'),
    ],
    ids=lambda model: model['type'],
)
@pytest.mark.parametrize('scope', ['mmpretrain', 'mmengine', 'mmdet', 'mmfakd'])
@pytest.mark.parametrize('nested', [False, True])
def test_nothing_is_run(folder, model, nested, scope):
    cfg = dict(classifier(), backbone=model) if nested else model
    with pytest.raises(ValueError, match='cannot be built without weights'):
        build_without_weights(cfg, scope)
    assert not (folder / 'ran').exists()
    assert (folder / 'victim.txt').read_text() == 'mine'


@pytest.mark.parametrize(
    ('registry', 'kind'),
    [
        (MODELS, 'torch.nn.Identity'),
        (MODELS, 'mmpretrain.models.backbones.resnet.ResNet'),
        (MODELS, 'mmpretrain.ResNet'),
        (TASK_UTILS, 'mmdet.models.task_modules.assigners.MaxIoUAssigner'),
        (DATASETS, 'mmpretrain.datasets.CustomDataset'),
        # Of no registry.
        (DATASETS, 'mmengine.dataset.BaseDataset'),
        (TRANSFORMS, 'mmengine.dataset.Compose'),
        (HOOKS, 'mmengine.hooks.EMAHook'),
    ],
)
def test_what_is_meant_to_be_built_is_found(registry, kind):
    with registered_types_only():
        assert registry.get(kind).__name__ == kind.rpartition('.')[2]


@pytest.mark.parametrize('models_only', [False, True])
def test_mmpretrain_s_registries_without_a_root(models_only):
    """As texts of its configs in Python's own style have it, with classes as types."""
    kind = 'mmpretrain.models.utils.batch_augments.mixup.Mixup'
    augments = dict(augments=[dict(type=kind, alpha=0.2)])
    with registered_types_only(models_only):
        model = MODELS.build(dict(classifier(), train_cfg=augments))
    [mixup] = model.data_preprocessor.batch_augments.augments
    assert type(mixup).__name__ == 'Mixup'


def test_no_part_of_a_model_is_one_of_a_file(folder):
    part = dict(type='mmfakd.FeatureDistill', teacher=classifier())
    part.update(architecture=dict(cfg_path='evil_of_a_stranger.py'))
    part.update(distiller=dict(type='mmrazor.ConfigurableDistiller'))
    cfg = dict(classifier(), backbone=part)
    with pytest.raises(ValueError, match='is a file, which would be run'):
        build_without_weights(cfg, 'mmpretrain')
    (folder / 'evil_of_a_stranger.py').write_text(f'model = {classifier()!r}\n')
    build_without_weights(cfg, 'mmpretrain', trusted=True)


def test_models_are_made_of_no_hooks():
    with registered_types_only(models_only=True):
        assert MODELS.get('torch.nn.Identity') is torch.nn.Identity
        assert MODELS.get('mmengine.hooks.EMAHook') is None
    assert MODELS.get('mmengine.hooks.EMAHook') is not None


def test_a_config_of_one_s_own_names_what_it_likes(folder):
    (folder / 'evil_of_a_stranger.py').write_text(
        'from mmengine.model import BaseModel\n'
        'class Own(BaseModel):\n    def forward(self, inputs):\n        return inputs\n'
        'def net():\n    return Own()\n'
    )
    cfg = dict(type='evil_of_a_stranger.net')
    with pytest.raises(ValueError, match='cannot be built without weights'):
        build_without_weights(cfg, 'mmpretrain')
    model = build_without_weights(cfg, 'mmpretrain', trusted=True)
    assert type(model).__name__ == 'Own'


def test_recorders_import_no_module_of_a_stranger(folder):
    recorder = dict(
        type='mmrazor.MethodOutputsRecorder', source='evil_of_a_stranger.Own.forward'
    )
    with registered_types_only(), pytest.raises(ImportError, match='not imported'):
        TASK_UTILS.build(recorder)
    assert not (folder / 'ran').exists()
    with pytest.raises(AssertionError, match='Own is not in'):
        TASK_UTILS.build(recorder)
    assert (folder / 'ran').exists()


def test_nothing_but_plain_files_is_read(folder):
    head = dict(
        type='mmpretrain.VQAGenerationHead',
        decoder=dict(type='mmpretrain.LeNet5'),
        inference_method='rank',
        num_ans_candidates=1,
        answer_list_path='answers.pkl',
    )
    (folder / 'answers.pkl').write_bytes(b'cos\nsystem\n(Vtouch ran\ntR.')
    with pytest.raises(ValueError, match='a pickle is named by the config'):
        build_without_weights(head, 'mmpretrain')
    assert not (folder / 'ran').exists()
