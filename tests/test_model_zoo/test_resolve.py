# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""Models of other configs, with overrides that take effect."""

import sys

import pytest
from mmengine.config import Config, ConfigDict
from mmengine.registry import MODELS, DefaultScope
from mmrazor.registry.registry import sub_model

from mmfakd.checkpoints.student import student_config
from mmfakd.compat.config_literals import find_risk
from mmfakd.model_zoo.inline_models import inline_models
from mmfakd.model_zoo.plain_files import plain_files_only
from mmfakd.model_zoo.resolve import model_files
from mmfakd.utils import resolve_model_cfg

RESNET18 = 'mmpretrain::resnet/resnet18_8xb32_in1k.py'
IMAGENET_MEAN = [123.675, 116.28, 103.53]


def write(folder, text, name='config.py'):
    path = folder / name
    path.write_text(text)
    return str(path)


def test_overrides_take_effect():
    """MMEngine's own `cfg_path` ignores them."""
    cfg, weights = resolve_model_cfg(
        dict(cfg_path=RESNET18, head=dict(num_classes=10), backbone=dict(depth=34))
    )
    assert weights is None
    assert cfg['_scope_'] == 'mmpretrain'
    assert 'cfg_path' not in cfg and 'pretrained' not in cfg
    assert cfg.data_preprocessor.mean == IMAGENET_MEAN
    # What is not overridden stays.
    assert cfg.head.in_channels == 512
    assert cfg.head.loss.type == 'CrossEntropyLoss'
    model = MODELS.build(cfg)
    assert model.head.fc.out_features == 10
    assert len(model.backbone.layer3) == 6
    assert model.data_preprocessor.mean.flatten().tolist() == pytest.approx(
        IMAGENET_MEAN
    )


def test_delete_inside_an_override_replaces():
    cfg, _ = resolve_model_cfg(
        dict(
            cfg_path=RESNET18,
            head=dict(loss=dict(_delete_=True, type='FocalLoss', gamma=1.5)),
            neck=dict(_delete_=True, type='GeneralizedMeanPooling'),
        )
    )
    assert cfg.head.loss == dict(type='FocalLoss', gamma=1.5)
    assert cfg.head.num_classes == 1000
    assert cfg.neck == dict(type='GeneralizedMeanPooling')
    assert '_delete_' not in repr(cfg)


def test_pretrained_gives_the_address_of_the_metafile():
    cfg, weights = resolve_model_cfg(dict(cfg_path=RESNET18, pretrained=True))
    assert weights.startswith('https://') and 'resnet18' in weights
    assert 'pretrained' not in cfg


def test_input_is_not_changed():
    given = dict(cfg_path=RESNET18, head=dict(num_classes=10))
    outer = dict(mean=[0.0])
    resolved, _ = resolve_model_cfg(given, outer)
    resolved.data_preprocessor.mean.append(1.0)
    assert given == dict(cfg_path=RESNET18, head=dict(num_classes=10))
    assert outer == dict(mean=[0.0])


def test_plain_config_stays_as_it_is():
    given = dict(type='ImageClassifier', backbone=dict(type='ResNet', depth=18))
    cfg, weights = resolve_model_cfg(given)
    assert isinstance(cfg, ConfigDict)
    assert (cfg, weights) == (given, None)


# Where data preprocessors stand: within the given config, around it, within the
# model of `cfg_path`, at that config's top level -> the one that counts.
@pytest.mark.parametrize(
    ('within', 'around', 'model', 'top', 'expected'),
    [
        (1, 2, 3, 4, 1),
        (None, 2, 3, 4, 2),
        (None, 2, None, 4, 2),
        (None, None, 3, 4, 3),
        (None, None, None, 4, 4),
        (None, None, None, None, None),
    ],
)
def test_priority_of_data_preprocessors(within, around, model, top, expected, tmp_path):
    def entry(value):
        return '' if value is None else f'data_preprocessor=dict(mean=[{value}])'

    path = write(tmp_path, f'model = dict(type="M", {entry(model)})\n{entry(top)}')
    given = dict(cfg_path=path)
    if within:
        given['data_preprocessor'] = dict(mean=[within])
    cfg, _ = resolve_model_cfg(given, around and dict(mean=[around]))
    assert cfg.get('data_preprocessor') == (expected and dict(mean=[expected]))


@pytest.mark.parametrize('own', [None, dict(mean=[1])])
def test_data_preprocessor_of_an_inherited_model(own):
    """`architecture={{_base_.model}}`: that of the config around moves in."""
    given = dict(type='ImageClassifier')
    if own:
        given['data_preprocessor'] = own
    cfg, _ = resolve_model_cfg(given, dict(mean=[2]))
    assert cfg.data_preprocessor == (own or dict(mean=[2]))


def test_single_values_of_the_data_preprocessor_are_overridden():
    cfg, _ = resolve_model_cfg(
        dict(cfg_path=RESNET18, data_preprocessor=dict(to_rgb=False))
    )
    assert cfg.data_preprocessor.to_rgb is False
    assert cfg.data_preprocessor.mean == IMAGENET_MEAN


def test_scope_of_a_package_and_of_a_file(tmp_path):
    assert resolve_model_cfg(dict(cfg_path=RESNET18))[0]['_scope_'] == 'mmpretrain'
    # A part of a package's config has no default_scope of its own.
    part = 'mmdet::_base_/models/retinanet_r50_fpn.py'
    assert resolve_model_cfg(dict(cfg_path=part))[0]['_scope_'] == 'mmdet'
    path = write(tmp_path, 'model = dict(type="M")\ndefault_scope = "mmdet"')
    assert resolve_model_cfg(dict(cfg_path=path))[0]['_scope_'] == 'mmdet'
    path = write(tmp_path, 'model = dict(type="M")', 'no_scope.py')
    assert '_scope_' not in resolve_model_cfg(dict(cfg_path=path))[0]


@pytest.mark.parametrize('where', ['override', 'model'])
def test_explicit_scope_goes_first(where, tmp_path):
    inner = '_scope_="mmrazor"' if where == 'model' else ''
    path = write(tmp_path, f'model = dict(type="M", {inner})\ndefault_scope = "mmdet"')
    given = dict(cfg_path=path)
    if where == 'override':
        given['_scope_'] = 'mmrazor'
    assert resolve_model_cfg(given)[0]['_scope_'] == 'mmrazor'


def test_default_scope_of_a_config_goes_before_its_package(monkeypatch):
    """mmfakd's digits configs hold models of mmpretrain.

    An `mmfakd::` path needs an installed mmfakd, so only its content is given.
    """
    monkeypatch.setattr(
        sys.modules[resolve_model_cfg.__module__],
        'get_config',
        lambda path, pretrained: Config(
            dict(model=dict(type='M'), default_scope='mmpretrain')
        ),
    )
    cfg, _ = resolve_model_cfg(dict(cfg_path='mmfakd::fakd/digits/student.py'))
    assert cfg['_scope_'] == 'mmpretrain'


def test_model_builds_from_another_default_scope():
    with DefaultScope.overwrite_default_scope('mmdet'):
        cfg, _ = resolve_model_cfg(dict(cfg_path=RESNET18))
        assert type(MODELS.build(cfg)).__module__.startswith('mmpretrain.')


@pytest.mark.parametrize(
    ('given', 'error', 'message'),
    [
        (dict(cfg_path='no/file.py'), FileNotFoundError, "'no/file.py' is no file"),
        (
            dict(cfg_path='mmpretrain::resnet/resnet19.py'),
            FileNotFoundError,
            'resnet19.py" does not exist',
        ),
        (
            dict(cfg_path='mmpretrain::resnet/resnet18_8xb32_in1kk.py'),
            FileNotFoundError,
            "Near names: 'mmpretrain::resnet/resnet18_8xb32_in1k.py'",
        ),
        (
            dict(cfg_path='mmpretrain::resnet18_8xb32_in1k.py'),
            ValueError,
            "Near names: 'mmpretrain::resnet/resnet18_8xb32_in1k.py'",
        ),
        (
            dict(cfg_path=None),
            TypeError,
            'cfg_path=None: expected the path',
        ),
        (dict(cfg_path=['a']), TypeError, 'expected the path of a config file or'),
        (
            dict(cfg_path=RESNET18, type='ImageClassifier'),
            ValueError,
            "type='ImageClassifier' stands beside cfg_path=.*leave out one.*_delete_=T",
        ),
        (
            dict(cfg_path='mmpretrian::resnet/resnet18_8xb32_in1k.py'),
            ModuleNotFoundError,
            "'mmpretrian' is not installed.*Near names: mmpretrain",
        ),
        (
            dict(cfg_path='json::resnet/resnet18.py'),
            ValueError,
            "cfg_path='json::resnet/resnet18.py': .*does not support",
        ),
        (
            dict(cfg_path='mmpretrain::resnet18.py'),
            ValueError,
            'specify the package name and relative config path',
        ),
        (
            dict(cfg_path='mmpretrain::_base_/default_runtime.py'),
            ValueError,
            'has no `model`',
        ),
        (
            dict(cfg_path='mmpretrain::_base_/models/resnet18.py', pretrained=True),
            ValueError,
            'has no weights in the metafiles.*`teacher_ckpt`',
        ),
    ],
)
def test_errors(given, error, message):
    with pytest.raises(error, match=message):
        resolve_model_cfg(given)


def test_package_that_is_not_installed(monkeypatch):
    """MMEngine would install it, into the first Python on the path."""
    monkeypatch.setattr('mmengine.utils.package_utils.call_command', pytest.fail)
    with pytest.raises(ModuleNotFoundError, match="package 'mmyolo' is not installed"):
        resolve_model_cfg(
            dict(cfg_path='mmyolo::yolov5/yolov5_s-v61_syncbn_8xb16-300e_coco.py')
        )


def test_no_pretrained_weights_of_a_file(tmp_path):
    path = write(tmp_path, 'model = dict(type="M")')
    with pytest.raises(
        ValueError, match="is a file.*'package::' names.*`teacher_ckpt`"
    ):
        resolve_model_cfg(dict(cfg_path=path, pretrained=True))


def test_near_files(tmp_path):
    write(tmp_path, 'model = dict(type="M")', 'teacher.py')
    with pytest.raises(FileNotFoundError, match='Near names: .*teacher.py'):
        resolve_model_cfg(dict(cfg_path=str(tmp_path / 'teachr.py')))


MODEL = """
default_scope = 'mmpretrain'
data_preprocessor = dict(type='ClsDataPreprocessor', mean=[1.0], std=[2.0])
model = dict(type='ImageClassifier', backbone=dict(type='ResNet', depth=18))
"""


def test_a_file_is_not_run_for_everybody(tmp_path):
    path = write(tmp_path, MODEL)
    assert resolve_model_cfg(dict(cfg_path=path))[0].backbone.depth == 18
    with pytest.raises(ValueError, match=f'{path}.* is a file, which would be run'):
        resolve_model_cfg(dict(cfg_path=path), files=False)
    with plain_files_only(), pytest.raises(ValueError, match='would be run'):
        resolve_model_cfg(dict(cfg_path=path))
    assert resolve_model_cfg(dict(cfg_path=RESNET18), files=False)[0].backbone


@pytest.mark.parametrize('start', ['', 'resnet/../../../..'])
def test_nothing_outside_of_a_package(start, tmp_path):
    """MMEngine's hub runs an absolute path."""
    marker = tmp_path / 'marker'
    path = write(tmp_path, f'open({str(marker)!r}, "w").close(){MODEL}')
    name = f'mmpretrain::{start}{path}'
    with pytest.raises(ValueError, match='leaves the folder of the package'):
        resolve_model_cfg(dict(cfg_path=name))
    assert not marker.exists()
    # Wherever in a text it stands, such as in what mmrazor's `sub_model` builds.
    text = (
        f"model = dict(a=[dict(type='mmrazor.sub_model', cfg=dict(cfg_path='{name}'))])"
    )
    assert 'outside of a package' in find_risk(text)
    assert find_risk(f"model = dict(cfg_path='{RESNET18}')") is None


def pruned(cfg, kind='mmrazor.sub_model', **kwargs):
    """Config of a model with a choice of its channels, or none."""
    return dict(dict(type=kind, cfg=cfg, fix_subnet=dict()), **kwargs)


@pytest.mark.parametrize('kind', ['mmrazor.sub_model', 'sub_model', sub_model])
@pytest.mark.parametrize(
    ('within', 'beside', 'around', 'expected'),
    [(1, 2, 3, 1), (None, 2, 3, 2), (None, None, 3, 3), (None, None, None, None)],
)
def test_data_preprocessor_of_a_pruned_model(within, beside, around, expected, kind):
    """mmrazor's `sub_model` throws away what stands beside its `cfg`."""
    texts = [value and dict(mean=[value]) for value in (within, beside, around)]
    inner = dict(type='M', **(dict(data_preprocessor=texts[0]) if within else {}))
    given = pruned(inner, kind)
    if beside:
        given['data_preprocessor'] = texts[1]
    cfg, weights = resolve_model_cfg(given, texts[2])
    assert weights is None and 'data_preprocessor' not in cfg
    assert cfg.cfg.get('data_preprocessor') == (expected and dict(mean=[expected]))
    # Once more changes nothing.
    assert resolve_model_cfg(cfg, texts[2])[0] == cfg


def test_pruned_model_of_a_config(tmp_path):
    """With its overrides and its preprocessor, also from within a file."""
    inner = dict(cfg_path=RESNET18, head=dict(num_classes=10))
    cfg, _ = resolve_model_cfg(pruned(inner))
    assert cfg.cfg == resolve_model_cfg(inner)[0]
    model = MODELS.build(cfg)
    assert model.head.fc.out_features == 10
    mean = model.data_preprocessor.mean.flatten().tolist()
    assert mean == pytest.approx(IMAGENET_MEAN)
    _, weights = resolve_model_cfg(pruned(dict(inner, pretrained=True)))
    assert 'resnet18' in weights
    text = f'model = {pruned(inner)}\ndata_preprocessor = dict(mean=[4.0])'
    path = write(tmp_path, text)
    outer, _ = resolve_model_cfg(dict(cfg_path=path))
    assert outer.cfg.data_preprocessor.mean == [4.0]
    with pytest.raises(ValueError, match='is a file, which would be run'):
        resolve_model_cfg(pruned(dict(cfg_path=path)), files=False)


def test_pruned_models_of_files_in_a_training(tmp_path):
    path = write(tmp_path, MODEL)
    given = pruned(pruned(dict(cfg_path=path)))
    cfg = Config(dict(model=dict(architecture=given, teacher=dict(type='M'))))
    inline_models(cfg)
    assert model_files(cfg.model) == []
    assert cfg.model.architecture.cfg.cfg == resolve_model_cfg(dict(cfg_path=path))[0]


@pytest.mark.parametrize('outer', [None, dict(mean=[3.0])])
def test_a_training_has_its_models_in_its_config(outer, tmp_path):
    """They are what `FeatureDistill` would make of the files."""
    path = write(tmp_path, MODEL)
    student = dict(cfg_path=path, backbone=dict(depth=34))
    model = dict(architecture=student, teacher=dict(cfg_path=path))
    cfg = Config(dict(model=model, **(dict(data_preprocessor=outer) if outer else {})))
    inline_models(cfg)
    assert model_files(model) == [path, path] and model_files(cfg.model) == []
    assert cfg.model.architecture == resolve_model_cfg(student, outer)[0]
    assert cfg.model.teacher == resolve_model_cfg(model['teacher'])[0]
    mean = cfg.model.architecture.data_preprocessor.mean
    assert mean == ([3.0] if outer else [1.0])
    # Once more changes nothing, and those of packages stay names.
    again = resolve_model_cfg(cfg.model.architecture, outer)[0]
    assert again == cfg.model.architecture
    cfg = Config(dict(model=dict(architecture=dict(cfg_path=RESNET18))))
    inline_models(cfg)
    assert cfg.model.architecture == dict(cfg_path=RESNET18)


def test_imports_of_the_files_are_those_of_the_training(tmp_path, monkeypatch):
    """The config that is dumped builds its models in another process, too."""
    monkeypatch.syspath_prepend(tmp_path)
    for name in ('own_nets', 'shared_nets', 'teacher_nets'):
        (tmp_path / f'{name}.py').write_text('')
    imports = ['shared_nets', 'teacher_nets', 'not_there']
    text = f'custom_imports = dict(imports={imports}, allow_failed_imports=True)\n'
    with pytest.warns(UserWarning, match='not_there'):
        path = write(tmp_path, text + MODEL)
        Config.fromfile(path)
    model = dict(architecture=dict(type='Any'), teacher=dict(cfg_path=path))
    own = dict(imports='own_nets', allow_failed_imports=False)
    for given, names in (
        (None, ['shared_nets', 'teacher_nets']),
        (own, ['own_nets', 'shared_nets', 'teacher_nets']),
        (dict(imports=['shared_nets']), ['shared_nets', 'teacher_nets']),
    ):
        cfg = Config(dict(model=model, **(dict(custom_imports=given) if given else {})))
        with pytest.warns(UserWarning, match='not_there'):
            inline_models(cfg)
        expected = dict(imports=names, allow_failed_imports=False)
        assert cfg.custom_imports == expected
        # A student that is exported needs none of them.
        student = student_config(cfg)
        kept = [name for name in names if name in str(given)]
        assert student.get('custom_imports', {}).get('imports', []) == kept
        assert 'teacher_imports' not in student
        cfg.dump(tmp_path / 'dumped.py')
        Config.fromfile(tmp_path / 'dumped.py')
    cfg = Config(dict(model=model, custom_imports=dict(imports=imports[:2])))
    with pytest.warns(UserWarning, match='not_there'):
        inline_models(cfg)
    assert 'teacher_imports' not in cfg
