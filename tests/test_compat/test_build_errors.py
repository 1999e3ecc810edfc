# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""What the registries say of a slip: what was given, what there is, what to do."""

import importlib.util
import json

import pytest
from mmengine.config import Config
from mmengine.registry import DATASETS, HOOKS, MODELS

from mmfakd.compat import build_errors
from mmfakd.compat.how_to_install import how_to_install
from tests.helpers.toy import classifier, feature_distill, review_distiller
from tests.helpers.toy_detectors import write_images
from tests.helpers.weight_server import weight_server


def message_of(call, *args, **kwargs):
    with pytest.raises(Exception) as caught:
        call(*args, **kwargs)
    return str(caught.value.args[0])


@pytest.mark.parametrize(
    ('registry', 'kind', 'near'),
    [
        (MODELS, 'mmfakd.FeatureDistil', 'mmfakd.FeatureDistill'),
        (MODELS, 'FeatureDistill', 'mmfakd.FeatureDistill'),
        (MODELS, 'ReviewDistiler', 'mmfakd.ReviewDistiller'),
        (MODELS, 'ReviewConnector', 'mmfakd.ReviewConnector'),
        (MODELS, 'FrequencyAtention', 'mmfakd.FrequencyAttention'),
        (MODELS, 'mmfakd.L2Loss', 'mmrazor.L2Loss'),
        (MODELS, 'ConfigurableDistiller', 'mmrazor.ConfigurableDistiller'),
        (MODELS, 'mmdet.RetinaNett', 'mmdet.RetinaNet'),
        (HOOKS, 'CheckFiniteHook', 'mmfakd.CheckFiniteHook'),
        (DATASETS, 'Digit', 'mmfakd.Digits'),
    ],
)
def test_near_types(registry, kind, near):
    if kind.startswith('mmdet.'):
        pytest.importorskip('mmdet')
    with pytest.raises(KeyError) as caught:
        registry.build(dict(type=kind))
    message = caught.value.args[0]
    assert message.startswith(f'type={kind!r} is not registered among the ')
    assert f'{near!r}' in message.partition('Near names: ')[2]
    assert 'custom_imports' in message


@pytest.mark.parametrize('kind', ['ModuleOutput', 'mmrazor.ModuleOutpts'])
def test_near_recorders_as_a_config_names_them(kind):
    recorders = dict(a=dict(type=kind, source='backbone'))
    cfg = dict(review_distiller(), student_recorders=recorders)
    message = message_of(MODELS.build, cfg)
    assert message.startswith(f'type={kind!r} is not')
    assert "Near names: 'mmrazor.ModuleOutputs'," in message


def test_unknown_and_missing_packages(monkeypatch):
    pytest.importorskip('mmdet.models')
    message = message_of(MODELS.build, dict(type='mmdt.RetinaNet'))
    assert "no models of 'mmdt'; packages: 'mmdet'" in message
    assert "'mmdet.RetinaNet'" in message
    find = importlib.util.find_spec
    monkeypatch.setattr(
        build_errors, 'find_spec', lambda name: None if name == 'mmdet' else find(name)
    )
    message = build_errors.unknown_type(MODELS, 'mmdet.RetinaNet')
    install = how_to_install('mmdet')
    assert message.endswith(f'mmdet is not installed: {install}.')
    monkeypatch.setattr(build_errors, 'find_spec', lambda name: None)
    message = build_errors.unknown_type(MODELS, 'mmseg.EncoderDecoder')
    assert message.endswith(f'{how_to_install("mmseg")}.')


@pytest.mark.parametrize(
    ('change', 'kind', 'argument', 'near'),
    [
        (dict(teachr_ckpt='x'), 'mmfakd.FeatureDistill', 'teachr_ckpt', 'teacher_ckpt'),
        (
            dict(distiller=review_distiller(student_level=[])),
            'mmfakd.ReviewDistiller',
            'student_level',
            'student_levels',
        ),
        (
            # Handed up, from class to class.
            dict(distiller=review_distiller(distill_loses={})),
            'mmfakd.ReviewDistiller',
            'distill_loses',
            'distill_losses',
        ),
        (
            dict(
                distiller=review_distiller(
                    level_loss=dict(type='mmfakd.FFTFeatureLoss', domains='phase')
                )
            ),
            'mmfakd.FFTFeatureLoss',
            'domains',
            'domain',
        ),
        (
            dict(
                teacher=dict(
                    classifier(), neck=dict(type='GlobalAveragePooling', dimm=2)
                )
            ),
            'GlobalAveragePooling',
            'dimm',
            'dim',
        ),
    ],
)
def test_unknown_arguments(change, kind, argument, near):
    with pytest.raises(TypeError) as caught:
        feature_distill(**change)
    message = str(caught.value)
    assert message.startswith(
        f'type={kind!r} got an unexpected keyword argument {argument!r}. '
        f'Near names: {near!r}'
    )
    assert ' It takes ' in message


def test_delete_of_what_no_base_has(tmp_path):
    base = dict(type='mmfakd.FFTFeatureLoss')
    level_loss = dict(type='mmrazor.L2Loss', _delete_=True)
    for name, inherited in (('with', dict(level_loss=base)), ('without', {})):
        Config(inherited).dump(tmp_path / f'{name}_base.py')
        mine = f"_base_ = './{name}_base.py'\nlevel_loss = {level_loss}\n"
        (tmp_path / f'{name}.py').write_text(mine)
    there = Config.fromfile(tmp_path / 'with.py').level_loss
    assert MODELS.build(there).loss_weight == 1
    missing = Config.fromfile(tmp_path / 'without.py').level_loss
    with pytest.raises(TypeError, match='nothing: leave `_delete_` out') as e:
        MODELS.build(missing)
    message = str(e.value)
    assert message.startswith("type='mmrazor.L2Loss' got an unexpected keyword argu")
    assert 'Near names' not in message


def test_missing_arguments():
    cfg = dict(type='mmfakd.FeatureDistill', architecture={}, teacher={})
    with pytest.raises(TypeError) as caught:
        MODELS.build(cfg)
    assert str(caught.value).startswith(
        "type='mmfakd.FeatureDistill' needs 'distiller', which the config does not "
        "give. It gives 'architecture', 'teacher'. It takes 'architecture', "
    )


def test_configs_that_are_none():
    message = message_of(MODELS.build, dict(in_channels=3))
    assert message == (
        "a config of a model has no `type`: it has 'in_channels'. Expected "
        "dict(type='package.Name', ...)."
    )
    assert message_of(HOOKS.build, None).startswith('got None for what is built from')


def test_errors_of_the_classes_themselves_stay():
    """A TypeError from within is none of the config's."""

    @MODELS.register_module(force=True)
    class Failing:
        def __init__(self, depth):
            dict(depth)(x=1)

    with pytest.raises(TypeError, match="'int' object is not iterable"):
        MODELS.build(dict(type='Failing', depth=3))


# ---- data sets


def coco(folder, **kwargs):
    return dict(
        type='mmdet.CocoDataset',
        ann_file=str(folder / 'boxes.json'),
        data_prefix=dict(img=str(folder / 'images')),
        **kwargs,
    )


@pytest.mark.parametrize(
    ('text', 'why'),
    [('', 'JSONDecodeError'), ('{"images": [', 'JSONDecodeError'), ('{}', 'KeyError')],
)
def test_broken_annotations_are_named(text, why, tmp_path):
    (tmp_path / 'boxes.json').write_text(text)
    with pytest.raises(ValueError) as caught:
        DATASETS.build(coco(tmp_path))
    message = str(caught.value)
    assert message.startswith("The data set type='mmdet.CocoDataset' (ann_file=")
    assert 'boxes.json' in message and f'cannot be read: {why}: ' in message
    assert 'Check `ann_file`, `data_root` and `data_prefix`' in message


def test_missing_annotations(tmp_path):
    with pytest.raises(
        FileNotFoundError, match='type=.mmdet.CocoDataset. .*boxes.json'
    ):
        DATASETS.build(coco(tmp_path))


@pytest.mark.parametrize('how', ['no images', 'filtered'])
def test_empty_data_set(how, tmp_path):
    write_images(tmp_path)
    file = tmp_path / 'boxes.json'
    content = json.loads(file.read_text())
    content['images' if how == 'no images' else 'annotations'] = []
    if how == 'no images':
        content['annotations'] = []
    file.write_text(json.dumps(content))
    names = dict(classes=('a', 'b', 'c'))
    cfg = coco(tmp_path, metainfo=names, filter_cfg=dict(filter_empty_gt=True))
    with pytest.raises(ValueError, match='has no images; .* Check.* stand in the file'):
        DATASETS.build(dict(type='mmdet.RepeatDataset', dataset=cfg, times=2))
    # Without names of its own it has none to look for.
    del cfg['metainfo']
    with pytest.raises(ValueError, match=r'has no images; .*`indices` leave some\.$'):
        DATASETS.build(cfg)


def test_folder_without_images(tmp_path):
    cfg = dict(type='mmpretrain.CustomDataset', data_root=str(tmp_path), pipeline=[])
    with pytest.raises(ValueError, match='Found 0 files in .*Check `ann_file`'):
        DATASETS.build(cfg)


def test_annotations_that_no_server_has(tmp_path, monkeypatch):
    """An HTTPError takes five arguments, and more than words."""
    monkeypatch.setenv('no_proxy', '127.0.0.1')
    with weight_server(tmp_path) as server:
        cfg = coco(tmp_path, backend_args=dict(backend='http'))
        cfg['ann_file'] = f'{server.url}/boxes.json'
        with pytest.raises(
            OSError, match='boxes.json.* cannot be read: HTTPError: .*404'
        ):
            DATASETS.build(cfg)
