# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""`load_from` in a distillation: the student is loaded, or it is said why not."""

import pytest
import torch
from mmengine.registry import MODELS
from mmengine.runner import Runner, load_checkpoint

from mmfakd.checkpoints.load import load_weights
from mmfakd.checkpoints.state_dict import find_state_dict
from tests.helpers.tiny_runs import distillation, run_config, save_teacher, student
from tests.helpers.toy import classifier, feature_distill


def plain_student(seed=7):
    torch.manual_seed(seed)
    model = MODELS.build(student())
    model.init_weights()
    return model.state_dict()


def same(model, weights):
    return all(torch.equal(v, weights[k]) for k, v in model.state_dict().items())


def runner_of(folder, path, **model):
    config = run_config(folder, distillation(save_teacher(folder), **model), epochs=1)
    config.load_from = str(path)
    runner = Runner.from_cfg(config)
    runner.load_or_resume()
    return runner


WRAPS = [
    lambda weights: dict(state_dict=weights, meta={}),
    lambda weights: weights,
    lambda weights: dict(model=weights),
    lambda weights: dict(state_dict_ema=weights, epoch=3),
    lambda weights: dict(anything=weights, optimizer=dict(state={}, groups=[])),
    lambda weights: dict(model=weights, rng_state=torch.get_rng_state()),
    lambda weights: dict(
        {f'module.{k}': v for k, v in weights.items()}, n_averaged=torch.tensor(3)
    ),
    lambda weights: dict(state_dict={f'module.{k}': v for k, v in weights.items()}),
    lambda weights: dict(
        state_dict={f'architecture.{k}': v for k, v in weights.items()}
    ),
]


@pytest.mark.parametrize('wrap', WRAPS)
def test_a_plain_student_is_loaded(wrap, tmp_path):
    weights, path = plain_student(), tmp_path / 'student.pth'
    torch.save(wrap(weights), path)
    runner = runner_of(tmp_path, path)
    assert same(runner.model.architecture, weights)


def test_with_averaged_models(tmp_path):
    weights, path = plain_student(), tmp_path / 'student.pth'
    torch.save(dict(state_dict=weights), path)
    config = run_config(
        tmp_path,
        distillation(save_teacher(tmp_path)),
        epochs=1,
        hooks=[dict(type='EMAHook', momentum=1e-6)],
        load_from=str(path),
    )
    runner = Runner.from_cfg(config)
    runner.call_hook('before_run')
    runner.load_or_resume()
    assert same(runner.model.architecture, weights)
    (hook,) = [hook for hook in runner.hooks if hasattr(hook, 'ema_model')]
    assert same(hook.ema_model.module.architecture, weights)


def test_layout_versions_reach_the_modules():
    model = feature_distill()
    weights = model.architecture.state_dict()
    seen = []
    norm = model.architecture.backbone.bn1
    norm._register_load_state_dict_pre_hook(
        lambda state_dict, prefix, metadata, *args: seen.append(metadata)
    )
    model.load_state_dict(weights, strict=False)
    assert seen == [dict(version=2)]


@pytest.mark.parametrize(
    'other',
    [
        classifier(width=4, in_channels=1),
        dict(
            type='mmpretrain.ImageClassifier',
            backbone=dict(type='mmpretrain.MobileNetV2', widen_factor=0.1),
        ),
    ],
)
@pytest.mark.parametrize('prefix', ['', 'architecture.'])
def test_another_model_is_refused(other, prefix, tmp_path):
    weights = MODELS.build(other).state_dict()
    path = tmp_path / 'other.pth'
    torch.save({f'{prefix}{k}': v for k, v in weights.items()}, path)
    with pytest.raises(ValueError, match='it is of another model') as caught:
        runner_of(tmp_path, path)
    for told in ('--student-ckpt', '--teacher-ckpt', 'fit the student of the'):
        assert told in str(caught.value)


def test_a_part_or_another_head_is_loaded(tmp_path):
    weights = plain_student()
    part = {k: v for k, v in weights.items() if k.startswith('backbone.')}
    path = tmp_path / 'part.pth'
    torch.save(dict(part, **{'head.fc.weight': torch.ones(3, 8)}), path)
    runner = runner_of(tmp_path, path)
    found = runner.model.architecture.state_dict()
    assert all(torch.equal(found[k], v) for k, v in part.items())


def test_student_ckpt_of_another_model_with_few_matches(tmp_path):
    model = MODELS.build(student())
    # Only the first layer has the same name.
    weights = model.state_dict()
    kept = ('backbone.conv1', 'backbone.bn1')
    renamed = {k if k.startswith(kept) else f'other.{k}': v for k, v in weights.items()}
    path = tmp_path / 'other.pth'
    torch.save(renamed, path)
    with pytest.raises(ValueError, match='it is of another model'):
        load_weights(model, str(path), 'student', None)


@pytest.mark.parametrize('prefix', ['architecture.', 'architecture.architecture.'])
def test_a_distillation_for_the_student_alone(prefix, tmp_path):
    weights, path = plain_student(), tmp_path / 'epoch_1.pth'
    torch.save({f'{prefix}{k}': v for k, v in weights.items()}, path)
    model = MODELS.build(student())
    load_checkpoint(model, str(path))
    assert same(model, weights)


def test_where_weights_are_found():
    good, averaged = dict(a=torch.ones(1)), dict(a=torch.zeros(1))
    for checkpoint in (
        dict(model_ema=averaged, model=good),
        dict(state_dict_ema=averaged, state_dict=good),
        dict(params=good),
        dict(state=dict(step=1), mine=good),
        # As PyTorch's ImageNet example has them, and with a random state.
        dict(best_acc1=torch.ones(()), state_dict=good),
        dict(rng_state=torch.zeros(9, dtype=torch.uint8), model_ema=averaged, net=good),
    ):
        found = find_state_dict(checkpoint)
        assert found == good
    # Names of parameters may be those of places.
    named = {'model': torch.ones(1), 'weights': torch.ones(2), 'net.a': torch.ones(3)}
    assert find_state_dict(named) == named
    with pytest.raises(ValueError, match='holds no weights'):
        find_state_dict(dict(mine=good, yours=averaged))
