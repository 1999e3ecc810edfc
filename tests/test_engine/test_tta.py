# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""`mmfakd test --tta` on real models, against an average made by hand."""

import copy

import pytest
import torch
from mmengine.config import Config
from mmengine.fileio import load
from mmengine.registry import DATASETS, MODELS, init_default_scope

from mmfakd.checkpoints.student import export_student
from mmfakd.cli import main
from mmfakd.engine.tta import add_tta
from tests.helpers.tiny_runs import distillation, run_config, save_teacher, student
from tests.helpers.toy_detectors import detection_run, pyramid_distiller, retinanet

RESIZE = [dict(type='Resize')]
FLIPS = [dict(type='mmpretrain.RandomFlip', prob=prob) for prob in (0.0, 1.0)]


def save(folder, cfg):
    """Write a config, a checkpoint of its model and the student's file."""
    cfg.dump(folder / 'config.py')
    init_default_scope(cfg.default_scope)
    model = copy.deepcopy(cfg.model)
    if 'data_preprocessor' in cfg:
        model.data_preprocessor = cfg.data_preprocessor
    torch.manual_seed(0)
    model = MODELS.build(model)
    checkpoint = dict(
        state_dict=model.state_dict(), meta=dict(cfg=cfg.pretty_text, dataset_meta={})
    )
    torch.save(checkpoint, folder / 'all.pth')
    if 'architecture' in cfg.model:
        torch.save(export_student(checkpoint), folder / 'student.pth')
    return model


def run(folder, checkpoint, *options, item='pred'):
    out = str(folder / f'{item}.pkl')
    command = (
        'test',
        str(folder / 'config.py'),
        str(folder / checkpoint),
        '--out',
        out,
    )
    main([*command, '--out-item', item, '--work-dir', str(folder / 'run'), *options])
    return load(out)


@pytest.mark.parametrize(
    ('distilled', 'collate'), [(True, 'default_collate'), (False, 'pseudo_collate')]
)
def test_classifier(tmp_path, distilled, collate):
    path = save_teacher(tmp_path)
    model = distillation(path) if distilled else student()
    cfg = run_config(tmp_path / 'run', model, validate=True)
    cfg.test_dataloader.collate_fn.type = collate
    model = save(tmp_path, cfg).eval()
    init_default_scope('mmpretrain')
    dataset = DATASETS.build(cfg.test_dataloader.dataset)
    images = torch.stack([dataset[i]['inputs'] for i in range(len(dataset))])
    scores = [
        torch.stack([sample.pred_score for sample in model.test_step(dict(inputs=x))])
        for x in (images, images.flip(-1))
    ]
    expected = (scores[0] + scores[1]) / 2
    assert not torch.allclose(expected, scores[0], rtol=0, atol=1e-4)
    for file in ('all.pth', 'student.pth') if distilled else ('all.pth',):
        found = torch.stack([one['pred_score'] for one in run(tmp_path, file, '--tta')])
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)
    plain = torch.stack([one['pred_score'] for one in run(tmp_path, 'all.pth')])
    torch.testing.assert_close(plain, scores[0], rtol=1e-5, atol=1e-6)


def test_detector(tmp_path):
    cfg = detection_run(
        tmp_path,
        dict(
            type='mmfakd.FeatureDistill',
            architecture=retinanet(),
            teacher=retinanet(),
            distiller=pyramid_distiller(),
        ),
    )
    save(tmp_path, cfg)
    once = run(tmp_path, 'all.pth')
    twice = [run(tmp_path, file, '--tta') for file in ('all.pth', 'student.pth')]
    for mine, theirs, plain in zip(*twice, once):
        mine, theirs = mine['pred_instances'], theirs['pred_instances']
        torch.testing.assert_close(mine['scores'], theirs['scores'])
        # Boxes of both images, ten of each, less those that are the same.
        assert len(plain['pred_instances']['scores']) == 10 < len(mine['scores']) <= 20


def test_what_a_config_says_comes_first():
    merge = dict(type='mmpretrain.AverageClsScoreTTA', marked=True)
    own = [dict(type='LoadImageFromFile'), dict(type='TestTimeAug', transforms=[])]
    pipeline = [dict(type='LoadImageFromFile'), dict(type='PackInputs')]
    inner = dict(type='Any', pipeline=pipeline)
    cfg = dict(
        default_scope='mmpretrain',
        data_preprocessor=dict(mean=[0.0]),
        model=dict(type='ImageClassifier'),
        test_dataloader=dict(
            dataset=dict(
                type='ConcatDataset',
                datasets=[inner, dict(type='RepeatDataset', times=1, dataset=inner)],
            )
        ),
    )
    given = Config(dict(cfg, tta_model=merge, tta_pipeline=own))
    add_tta(given)
    assert given.model.marked and given.model.module.type == 'ImageClassifier'
    # Of the model, not of what is around it.
    assert given.model.module.data_preprocessor == dict(mean=[0.0])
    assert given.data_preprocessor is None
    default = Config(copy.deepcopy(cfg))
    add_tta(default)
    assert default.model.type == 'mmpretrain.AverageClsScoreTTA'
    mirrored = [
        pipeline[0],
        dict(type='TestTimeAug', transforms=[FLIPS, [pipeline[1]]]),
    ]
    for found, expected in ((given, own), (default, mirrored)):
        first, second = found.test_dataloader.dataset.datasets
        assert first.pipeline == second.dataset.pipeline == expected


@pytest.mark.parametrize(
    ('changes', 'message'),
    [
        (dict(default_scope='other'), "no default for models of 'other'.*tta_model"),
        (dict(test_dataloader=None), 'no `test_dataloader`'),
        (
            dict(test_dataloader=dict(dataset=dict(type='A', pipeline=RESIZE))),
            "ends in 'Resize'",
        ),
    ],
)
def test_what_is_missing(changes, message):
    cfg = dict(default_scope='mmpretrain', model=dict(type='ImageClassifier'))
    with pytest.raises(ValueError, match=message):
        add_tta(Config(dict(cfg, **changes)))
