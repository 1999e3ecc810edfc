# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""Parameters of the models that configs of trainings describe."""

from pathlib import Path

import pytest
from mmengine.config import Config
from mmengine.registry import init_default_scope

from mmfakd.analysis.count_parameters import count_parameters
from tests.helpers.compared_runs import size
from tests.helpers.tiny_runs import (
    student,
)
from tests.helpers.toy import classifier, layer_distiller, review_distiller


def test_parameters(methods):
    """Student and connectors, counted apart; the teacher's file is gone."""
    kept, added = size(student()), size(review_distiller(width=2, teacher_width=4))
    assert count_parameters(methods['alone'][0].config) == (kept, 0)
    assert count_parameters(methods['fam'][1].config) == (kept, added)


def test_parameters_under_mmrazor(tmp_path):
    """Its teacher is a module of the model, and loaded while that is built."""
    model = dict(
        type='mmrazor.SingleTeacherDistill',
        architecture=classifier(),
        teacher=classifier(width=8),
        teacher_ckpt=str(tmp_path / 'gone.pth'),
        distiller=layer_distiller(),
    )
    expected = size(classifier()), size(layer_distiller())
    assert count_parameters(Config(dict(model=model))) == expected


def test_parameters_of_detectors(monkeypatch):
    """Models by the paths of stock configs, whose weights are not fetched."""
    pytest.importorskip('mmcv.ops', reason='detection needs the full mmcv')
    monkeypatch.setattr(
        'mmengine.runner.checkpoint.CheckpointLoader.load_checkpoint',
        lambda *args, **kwargs: pytest.fail('weights were loaded'),
    )
    path = 'mmdet::retinanet/retinanet_r18_fpn_1x_coco.py'
    recorders = dict(neck=dict(type='mmrazor.ModuleOutputs', source='neck'))
    connector = dict(
        type='mmfakd.FrequencyAttentionConnector',
        in_channels=256,
        out_channels=256,
        mid_channels=16,
        modes=4,
    )
    distiller = dict(
        type='mmrazor.ConfigurableDistiller',
        student_recorders=recorders,
        teacher_recorders=recorders,
        connectors=dict(fam=connector),
        distill_losses=dict(loss=dict(type='mmrazor.L2Loss')),
        loss_forward_mappings=dict(
            loss=dict(
                s_feature=dict(
                    recorder='neck', data_idx=0, from_student=True, connector='fam'
                ),
                t_feature=dict(recorder='neck', data_idx=0, from_student=False),
            )
        ),
    )
    init_default_scope('mmdet')
    expected = size(Config.fromfile(detector_file(path)).model), size(connector)
    for algorithm in ('mmfakd.FeatureDistill', 'mmrazor.SingleTeacherDistill'):
        model = dict(
            type=algorithm,
            architecture=dict(cfg_path=path),
            teacher=dict(cfg_path=path, pretrained=True),
            distiller=distiller,
        )
        config = Config(dict(model=model, default_scope='mmdet'))
        assert count_parameters(config) == expected, algorithm


def detector_file(path):
    import mmdet

    return Path(mmdet.__file__).parent / '.mim/configs' / path.partition('::')[2]
