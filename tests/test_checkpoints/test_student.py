# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""An exported student is a stock checkpoint: no process needs mmfakd to use it."""

import os
import subprocess
import sys
from collections import OrderedDict

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.registry import MODELS, DefaultScope

from mmfakd.checkpoints.student import (
    export_file,
    export_plain,
    export_student,
    stock_config,
    student_config,
    student_state_dict,
)
from tests.helpers.tiny_runs import distillation, run_config, student
from tests.helpers.toy import LEVELS, classifier


def stock_python(code, folder):
    """Run code in a process that neither sees this checkout nor needs mmfakd."""
    env = {key: value for key, value in os.environ.items() if key != 'PYTHONPATH'}
    code += """
import sys
taken = [name for name in sys.modules if name.split('.')[0] in ('mmfakd', 'mmrazor')]
assert not taken, taken
"""
    process = subprocess.run(
        [sys.executable, '-c', code],
        cwd=folder,
        env=env,
        capture_output=True,
        text=True,
    )
    assert process.returncode == 0, f'{code}\n{process.stdout}\n{process.stderr}'


def checkpoint(cfg, model=None, **meta):
    """A checkpoint as MMEngine writes it, of a model built from the config."""
    if model is None:
        built = dict(cfg.model)
        outer = cfg.get('data_preprocessor')
        if outer is not None:
            built.setdefault('data_preprocessor', outer)
        model = MODELS.build(Config(dict(model=built)).model)
    return dict(
        meta=dict(cfg=cfg.pretty_text, epoch=3, seed=0, **meta),
        state_dict=model.state_dict(),
        optimizer=dict(state={}),
        message_hub=dict(log_scalars={}),
        param_schedulers=[],
    )


# ---- state dicts


def test_only_the_leading_prefix_is_stripped():
    state_dict = OrderedDict(
        {
            'architecture.backbone.weight': torch.zeros(1),
            'architecture.architecture.weight': torch.ones(1),
            'architecture.head.architecture.bias': torch.ones(2),
            'architectures.weight': torch.ones(3),
            'teacher.architecture.weight': torch.ones(4),
            'distiller.connectors.review.weight': torch.ones(5),
        }
    )
    student = export_student(dict(state_dict=state_dict))['state_dict']
    assert list(student) == [
        'backbone.weight',
        'architecture.weight',
        'head.architecture.bias',
    ]
    assert (
        student['architecture.weight'] is state_dict['architecture.architecture.weight']
    )


def test_bare_state_dict():
    exported = export_student({'architecture.weight': torch.ones(1)})
    assert exported == dict(
        meta=dict(dataset_meta={}), state_dict={'weight': torch.ones(1)}
    )


def test_layout_versions_are_kept():
    outer = torch.nn.Module()
    outer.architecture = torch.nn.Sequential(torch.nn.BatchNorm1d(2))
    outer.other = torch.nn.BatchNorm1d(2)
    stripped = student_state_dict(outer.state_dict())
    assert stripped._metadata == outer.architecture.state_dict()._metadata
    assert stripped._metadata['0']['version'] == 2


@pytest.mark.parametrize(
    'state_dict',
    [{'backbone.weight': torch.ones(1)}, {'my_architecture.w': torch.ones(1)}],
)
def test_checkpoint_of_a_plain_model(state_dict):
    with pytest.raises(ValueError) as error:
        export_student(dict(state_dict=state_dict, meta={}))
    assert "No key begins with 'architecture.'" in str(error.value)
    assert next(iter(state_dict)) in str(error.value)


@pytest.mark.parametrize(
    ('given', 'said'),
    [
        (
            dict(state_dict=[torch.ones(1)]),
            'state dict is a list; expected tensors',
        ),
        (dict(state_dict={1: torch.ones(1)}), 'one with the keys 1; expected tensors'),
        ({2: torch.ones(1)}, 'one with the keys 2; expected tensors'),
        (
            dict(state_dict={'architecture.w': torch.ones(1)}, meta=[1]),
            "'meta' is a list; expected a dict",
        ),
    ],
)
def test_other_things_in_the_place_of_weights(given, said, tmp_path):
    for export in (export_student, export_plain):
        with pytest.raises(ValueError, match=said):
            export(given)
    path = tmp_path / 'odd.pth'
    torch.save(given, path)
    with pytest.raises(ValueError, match=f'odd.pth: .*{said}'):
        export_file(str(path), str(tmp_path / 'out.pth'))


# ---- meta information


def test_meta_information_and_nothing_else():
    exported = export_student(
        dict(
            state_dict={'architecture.weight': torch.ones(1)},
            meta=dict(
                epoch=2, iter=9, seed=1, cfg='', hostname='x', dataset_meta=dict(a=1)
            ),
            optimizer={},
            ema_state_dict={},
            message_hub={},
        )
    )
    assert exported.keys() == {'meta', 'state_dict'}
    assert exported['meta'] == dict(epoch=2, iter=9, seed=1, dataset_meta=dict(a=1))


@pytest.mark.parametrize(
    ('given', 'expected'),
    [([dict(a=1), dict(a=2)], dict(a=1)), ((dict(a=1),), dict(a=1)), ([], {})],
)
def test_meta_information_of_joined_data_sets(given, expected):
    """Inferencers take a dict alone."""
    state_dict = {'architecture.weight': torch.ones(1)}
    exported = export_student(
        dict(state_dict=state_dict, meta=dict(dataset_meta=given))
    )
    assert exported['meta']['dataset_meta'] == expected


def test_meta_information_of_data_sets_becomes_plain(tmp_path):
    """Arrays and configs would be refused by `weights_only`."""
    meta = Config(dict(m=dict(classes=('a', 'b'), nested=dict(deep=[dict(x=1)])))).m
    meta['palette'] = np.array([[1, 2], [3, 4]])
    meta['count'] = np.int64(3)
    exported = export_student(
        dict(
            state_dict={'architecture.weight': torch.ones(1)},
            meta=dict(dataset_meta=meta),
        )
    )
    torch.save(exported, tmp_path / 'student.pth')
    stock_python(
        """
import torch
meta = torch.load('student.pth', weights_only=True)['meta']['dataset_meta']
assert meta == dict(
    classes=('a', 'b'), nested=dict(deep=[dict(x=1)]), palette=[[1, 2], [3, 4]], count=3
), meta
""",
        tmp_path,
    )


# ---- configs


def config(**kwargs):
    return Config(dict(run_config('work_dir', distillation('teacher.pth')), **kwargs))


def test_student_takes_the_place_of_the_algorithm():
    cfg = config()
    stock = student_config(cfg)
    assert stock.model == dict(
        {k: v for k, v in student().items() if k != '_scope_'},
        data_preprocessor=cfg.data_preprocessor,
    )
    # The given config is not changed, the rest of it is kept.
    assert cfg.model.type == 'mmfakd.FeatureDistill'
    assert stock.train_dataloader == cfg.train_dataloader
    assert stock.default_scope == 'mmpretrain'


def test_hooks_and_imports_of_ours_are_gone():
    cfg = config(
        custom_hooks=[
            dict(type='mmfakd.EpochSeedHook'),
            dict(type='EMAHook'),
            dict(type='mmrazor.StopDistillHook', detach_epoch=1),
            dict(type='mmfakd.StudentCheckpointHook'),
        ],
        default_hooks=dict(
            checkpoint=dict(type='CheckpointHook'),
            finite=dict(type='mmfakd.CheckFiniteHook'),
            logger=None,
        ),
        custom_imports=dict(
            imports=['mmfakd', 'mmrazor.models', 'json', 'mmfakd_extras'],
            allow_failed_imports=True,
        ),
    )
    stock = student_config(cfg)
    assert stock.custom_hooks == [dict(type='EMAHook')]
    assert stock.default_hooks == dict(
        checkpoint=dict(type='CheckpointHook'), logger=None
    )
    assert stock.custom_imports == dict(
        imports=['json', 'mmfakd_extras'], allow_failed_imports=True
    )


@pytest.mark.parametrize(
    'imports', [dict(imports='mmfakd'), dict(imports=['mmfakd']), None, dict()]
)
def test_no_import_is_left(imports):
    assert 'custom_imports' not in student_config(config(custom_imports=imports))


def test_hooks_given_as_classes(tmp_path):
    """Configs of MMEngine's newer, pure-Python style."""
    path = tmp_path / 'lazy.py'
    path.write_text("""
from mmengine.config import read_base
from mmengine.hooks import CheckpointHook, EMAHook
from mmfakd.engine.hooks import EpochSeedHook
custom_hooks = [dict(type=EpochSeedHook), dict(type=EMAHook)]
default_hooks = dict(checkpoint=dict(type=CheckpointHook))
model = dict(architecture=dict(type='M'))
""")
    cfg = Config.fromfile(str(path))
    for given in (cfg, Config.fromstring(cfg.pretty_text, '.py')):
        stock = student_config(given)
        assert len(stock.custom_hooks) == len(stock.default_hooks) == 1
        assert 'mmfakd' not in stock.pretty_text


def test_how_the_distillation_was_run_is_gone():
    cfg = config(
        launcher='pytorch',
        load_from='distillation.pth',
        resume=True,
        model_wrapper_cfg=dict(type='MMDistributedDataParallel', device_ids=None),
    )
    stock = student_config(cfg)
    for key in ('launcher', 'load_from', 'resume', 'model_wrapper_cfg'):
        assert key in cfg and key not in stock
    assert stock.work_dir == 'work_dir'


@pytest.mark.parametrize(
    ('default_scope', 'architecture', 'scope', 'inner_scope'),
    [
        # Libraries that only trained it do not stay the scope.
        ('mmfakd', dict(_scope_='mmdet', type='M'), 'mmdet', None),
        ('mmrazor', dict(_scope_='mmdet', type='M'), 'mmdet', None),
        ('mmrazor', dict(type='mmdet.M'), 'mmdet', None),
        (None, dict(_scope_='mmdet', type='M'), 'mmdet', None),
        (None, dict(type='M'), None, None),
        ('mmdet', dict(_scope_='mmdet', type='M'), 'mmdet', None),
        ('mmdet', dict(type='M'), 'mmdet', None),
        ('mmpretrain', dict(_scope_='mmdet', type='M'), 'mmpretrain', 'mmdet'),
    ],
)
def test_scopes(default_scope, architecture, scope, inner_scope):
    cfg = Config(
        dict(model=dict(type='mmfakd.FeatureDistill', architecture=architecture))
    )
    if default_scope:
        cfg.default_scope = default_scope
    stock = student_config(cfg)
    assert stock.get('default_scope') == scope
    assert stock.model.get('_scope_') == inner_scope


@pytest.mark.parametrize('given', [dict(), dict(model=dict(type='M'))])
def test_config_without_a_student(given):
    with pytest.raises(ValueError, match=r'`model\.architecture` is missing'):
        student_config(Config(given))


def test_preprocessor_of_mmrazors_configs_is_named_as_mmpretrain_does():
    given = dict(
        type='mmengine.ImgDataPreprocessor',
        mean=[1],
        std=[2],
        bgr_to_rgb=True,
        pad_value=3,
        non_blocking=True,
    )
    cfg = config()
    cfg.model.data_preprocessor = given
    assert student_config(cfg).model.data_preprocessor == dict(
        mean=[1], std=[2], to_rgb=True, pad_value=3
    )
    cfg.default_scope = cfg.model.architecture['_scope_'] = 'mmdet'
    assert student_config(cfg).model.data_preprocessor == given


# ---- the whole way: stock processes load what real algorithms wrote

INHERITED = student()
# Without a scope of its own, as `{{_base_.model}}` of a stock config has none.
INHERITED.pop('_scope_')
RESNET = 'mmpretrain::resnet/resnet18_8xb16_cifar10.py'
STUDENTS = dict(
    inherited=INHERITED,
    scope=student(),
    cfg_path=dict(
        cfg_path=RESNET,
        backbone=dict(in_channels=1, stem_channels=2, base_channels=2),
        head=dict(in_channels=16),
    ),
)


# Names of the files: kind of student config, default scope.
CASES = [
    ('inherited', 'mmpretrain'),
    *(
        (kind, s)
        for kind in ('scope', 'cfg_path')
        for s in ('mmpretrain', 'mmrazor', 'mmfakd', None)
    ),
    ('stock_algorithm', 'mmpretrain'),
]


@pytest.fixture(scope='module')
def classifiers(tmp_path_factory):
    """Folder of exported students, from every kind of config."""
    folder = tmp_path_factory.mktemp('students')
    for kind, scope in CASES:
        cfg = run_config(
            'work_dir',
            distillation(None),
            hooks=[dict(type='mmfakd.StudentCheckpointHook')],
            custom_imports=dict(imports=['mmfakd']),
            validate=True,
        )
        cfg.default_scope = scope
        if kind in STUDENTS:
            cfg.model.architecture = STUDENTS[kind]
        else:
            # As mmrazor's own configs have it.
            cfg.model.update(
                type='mmrazor.SingleTeacherDistill',
                data_preprocessor=dict(
                    type='ImgDataPreprocessor', mean=[77.8], std=[95.9], bgr_to_rgb=True
                ),
            )
        if kind == 'cfg_path':
            # It has a fourth stage, which is not distilled.
            distiller = cfg.model.distiller
            distiller.student_levels = distiller.teacher_levels = LEVELS[:3]
            for key in ('in_channels', 'out_channels', 'sizes'):
                distiller.connector[key] = distiller.connector[key][:3]
        with DefaultScope.overwrite_default_scope(scope):
            meta = dict(classes=tuple('0123456789'))
            exported = export_student(checkpoint(cfg, dataset_meta=meta))
        torch.save(exported, folder / f'{kind}-{scope}.pth')
    return folder


def test_stock_mmpretrain_loads_and_classifies(classifiers):
    assert len(list(classifiers.glob('*.pth'))) == len(CASES) == 10
    stock_python(
        """
from pathlib import Path
import numpy as np
import torch
from mmengine.config import Config
from mmpretrain import ImageClassificationInferencer, get_model

for path in sorted(Path().glob('*.pth')):
    print(path)
    checkpoint = torch.load(path, weights_only=True)
    assert checkpoint.keys() == {'meta', 'state_dict'}
    text = checkpoint['meta']['cfg']
    for word in ('teacher', 'distiller', 'mmrazor', 'StudentCheckpointHook'):
        assert word not in text, word
    cfg = Config.fromstring(text, '.py')
    model = get_model(cfg, pretrained=str(path))
    model.load_state_dict(checkpoint['state_dict'], strict=True)
    for key, value in model.state_dict().items():
        assert torch.equal(value, checkpoint['state_dict'][key]), key
    # The student's own normalisation is in the file, too.
    assert model.data_preprocessor.mean.tolist() == [[[torch.tensor(77.8).item()]]]
    result, = ImageClassificationInferencer(model)([np.zeros((8, 8, 1), np.uint8)])
    assert result['pred_class'] in '0123456789'
""",
        classifiers,
    )


def tiny_detector(channels):
    return dict(
        type='RetinaNet',
        data_preprocessor=dict(
            type='DetDataPreprocessor',
            mean=[123.675, 116.28, 103.53],
            std=[58.395, 57.12, 57.375],
            bgr_to_rgb=True,
            pad_size_divisor=32,
        ),
        backbone=dict(
            type='ResNet',
            depth=18,
            base_channels=channels,
            stem_channels=channels,
            out_indices=(2, 3),
        ),
        neck=dict(
            type='FPN',
            in_channels=[4 * channels, 8 * channels],
            out_channels=channels,
            num_outs=2,
        ),
        bbox_head=dict(
            type='RetinaHead',
            num_classes=2,
            in_channels=channels,
            stacked_convs=1,
            feat_channels=channels,
            anchor_generator=dict(
                type='AnchorGenerator', scales=[4], ratios=[1.0], strides=[16, 32]
            ),
            bbox_coder=dict(type='DeltaXYWHBBoxCoder'),
        ),
        test_cfg=dict(
            nms_pre=100,
            min_bbox_size=0,
            score_thr=0.0,
            nms=dict(type='nms', iou_threshold=0.5),
            max_per_img=10,
        ),
    )


@pytest.mark.parametrize('scope', ['mmdet', 'mmfakd'])
def test_stock_mmdet_detects_with_the_file_alone(scope, tmp_path):
    pipeline = [
        dict(type='LoadImageFromFile'),
        dict(type='Resize', scale=(64, 64), keep_ratio=True),
        dict(
            type='PackDetInputs',
            meta_keys=('img_id', 'img_path', 'ori_shape', 'img_shape', 'scale_factor'),
        ),
    ]
    cfg = Config(
        dict(
            default_scope=scope,
            custom_imports=dict(imports=['mmfakd']),
            custom_hooks=[dict(type='mmfakd.StudentCheckpointHook')],
            model=dict(
                type='mmfakd.FeatureDistill',
                architecture=dict(tiny_detector(8), _scope_='mmdet'),
                teacher=dict(tiny_detector(16), _scope_='mmdet'),
                distiller=dict(
                    type='mmfakd.ReviewDistiller',
                    student_levels='neck',
                    teacher_levels='neck',
                    connector=dict(
                        type='mmfakd.ReviewConnector',
                        in_channels=[8, 8],
                        out_channels=[16, 16],
                    ),
                ),
            ),
            test_dataloader=dict(
                dataset=dict(
                    type='CocoDataset', ann_file='none.json', pipeline=pipeline
                )
            ),
            visualizer=dict(
                type='DetLocalVisualizer', vis_backends=[dict(type='LocalVisBackend')]
            ),
        )
    )
    model = MODELS.build(cfg.model)
    exported = export_student(
        checkpoint(cfg, model, dataset_meta=dict(classes=('cat', 'dog')))
    )
    torch.save(exported, tmp_path / 'student.pth')
    stock_python(
        f"""
import numpy as np
import torch
from mmdet.apis import DetInferencer
inferencer = DetInferencer(weights='student.pth', device='cpu', show_progress=False)
saved = torch.load('student.pth', weights_only=True)['state_dict']
loaded = inferencer.model.state_dict()
assert loaded.keys() == saved.keys() and len(saved) == {len(exported['state_dict'])}
assert all(torch.equal(loaded[key], saved[key]) for key in saved)
assert inferencer.model.dataset_meta['classes'] == ('cat', 'dog')
image = np.random.RandomState(0).randint(0, 256, (60, 80, 3), dtype=np.uint8)
prediction, = inferencer(image)['predictions']
assert prediction['scores'], prediction
assert set(prediction['labels']) <= {{0, 1}}
""",
        tmp_path,
    )


@pytest.mark.parametrize('prefix', ['mmrazor.', ''])
def test_loops_of_a_distillation_are_none_of_the_student(prefix):
    """mmrazor's scores a teacher, too, and asserts that there is one."""
    loop = dict(type=f'{prefix}SingleTeacherDistillValLoop', fp16=True)
    own = dict(type='ValLoop')
    cfg = Config(dict(model=classifier(), val_cfg=loop, test_cfg=own))
    stock = stock_config(cfg)
    assert stock.val_cfg == dict(fp16=True) and stock.test_cfg == own
    assert cfg.val_cfg.type == loop['type']
