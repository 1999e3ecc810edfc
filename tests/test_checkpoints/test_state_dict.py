# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""Weights are found in checkpoints of all kinds, long lists of keys are cut."""

from collections import OrderedDict
from functools import partial

import mmengine
import pytest
import torch
from mmengine.model import ExponentialMovingAverage, StochasticWeightAverage
from mmengine.runner import load_checkpoint
from torch import nn

from mmfakd.checkpoints.load import load_weights
from mmfakd.checkpoints.state_dict import find_state_dict, some, without_wrappers
from mmfakd.checkpoints.student import export_student
from mmfakd.checkpoints.write import write_weights
from tests.helpers.toy import feature_distill


def test_mmengine_shows_no_control_characters_of_names(tmp_path, capfd):
    """They may be a stranger's, and a terminal obeys them."""
    layer = nn.BatchNorm1d(2)
    content = layer.state_dict()
    content['a\x1b[2Jb'] = torch.ones(1)
    torch.save(content, tmp_path / 'a.pth')
    load_checkpoint(layer, str(tmp_path / 'a.pth'))
    said = ''.join(capfd.readouterr())
    assert r'unexpected key in source state_dict: a\x1b[2Jb' in said
    assert '\x1b[2J' not in said


def test_names_that_the_model_has_stay(tmp_path):
    """Such as those of classes, from a file with other ends of lines."""
    trained, layer = (nn.ModuleDict({'a\r': nn.Linear(2, 2)}) for _ in range(2))
    torch.save({**trained.state_dict(), 'b\r': torch.ones(1)}, tmp_path / 'a.pth')
    load_checkpoint(layer, str(tmp_path / 'a.pth'))
    assert torch.equal(layer['a\r'].weight, trained['a\r'].weight)


@pytest.mark.parametrize(
    'wrap', [dict, lambda s: {'state_dict': s, 'model': 3}, lambda s: {'model': s}]
)
def test_tensors_are_found(wrap):
    layer = torch.nn.BatchNorm2d(2)
    found = find_state_dict(wrap(layer.state_dict()))
    assert isinstance(found, OrderedDict)
    assert found.keys() == layer.state_dict().keys()
    assert all(torch.equal(found[key], value) for key, value in found.items())


def test_layout_versions_are_kept():
    state_dict = torch.nn.BatchNorm2d(2).state_dict()
    assert find_state_dict(dict(model=state_dict))._metadata == state_dict._metadata
    assert find_state_dict(dict(weight=torch.ones(1)))._metadata == {}


def test_what_is_no_tensor_is_left_out():
    found = find_state_dict(dict(epoch=3, weight=torch.ones(1)))
    assert list(found) == ['weight']


@pytest.mark.parametrize('checkpoint', [{}, dict(epoch=3), dict(state_dict={}, meta=1)])
def test_no_weights(checkpoint):
    keys = ', '.join(checkpoint) or 'none'
    with pytest.raises(ValueError, match=rf'x\.pth holds no weights: .*keys {keys}\.'):
        find_state_dict(checkpoint, 'x.pth')


def test_weights_without_names():
    numbered = {i: torch.ones(1) for i in range(9)}
    for checkpoint in (
        numbered,
        dict(state_dict=numbered),
        {'a': torch.ones(1), **numbered},
    ):
        with pytest.raises(
            ValueError, match=r'x\.pth has weights under 0, 1, 2, 3 and'
        ):
            find_state_dict(checkpoint, 'x.pth')
    # What is no weight may have any key.
    assert list(find_state_dict({'a': torch.ones(1), 3: 'lr'})) == ['a']


def test_lists_are_cut():
    assert some([]) == 'none'
    assert some('abcd') == 'a, b, c, d'
    assert some('abcdef') == 'a, b, c, d and 2 more'
    assert some(iter('abc'), 2, '; ', '; ...') == 'a; b; ... and 1 more'


def net():
    return nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))


WRAPPERS = {
    'parallel': nn.DataParallel,
    'compiled': torch.compile,
    'parallel, compiled': lambda model: torch.compile(nn.DataParallel(model)),
    'compiled, parallel': lambda model: nn.DataParallel(torch.compile(model)),
    'twice': lambda model: nn.DataParallel(nn.DataParallel(model)),
    'a compiled part': lambda model: nn.Sequential(torch.compile(model[0]), model[1]),
    'all': lambda model: nn.DataParallel(
        torch.compile(nn.Sequential(torch.compile(model[0]), model[1]))
    ),
    'none': lambda model: model,
}


@pytest.mark.parametrize('wrapper', WRAPPERS)
def test_names_of_wrappers_are_undone(wrapper, tmp_path):
    model = net()
    state_dict = WRAPPERS[wrapper](model).state_dict()
    plain = without_wrappers(state_dict)
    assert list(plain) == list(model.state_dict())
    assert plain._metadata['1'] == dict(version=2)
    path = str(tmp_path / 'wrapped.pth')
    torch.save(dict(state_dict=state_dict), path)
    for load in (
        lambda other: load_weights(other, path, 'teacher'),
        lambda other: load_checkpoint(other, path),
    ):
        other = net()
        load(other)
        torch.testing.assert_close(dict(other.state_dict()), dict(model.state_dict()))


AVERAGED = {
    'torch': torch.optim.swa_utils.AveragedModel,
    'mmengine': ExponentialMovingAverage,
    'of a parallel one': lambda model: StochasticWeightAverage(nn.DataParallel(model)),
    'in a parallel one': lambda model: nn.DataParallel(
        torch.optim.swa_utils.AveragedModel(model)
    ),
}


@pytest.mark.parametrize('average', AVERAGED)
def test_counters_of_averaged_models_are_left_out(average, tmp_path):
    model, path = net(), str(tmp_path / 'averaged.pth')
    state_dict = AVERAGED[average](model).state_dict()
    plain = without_wrappers(state_dict)
    assert list(plain) == list(model.state_dict())
    assert plain._metadata['1'] == dict(version=2)
    for checkpoint in (state_dict, dict(model_ema=state_dict)):
        torch.save(checkpoint, path)
        for load in (partial(load_weights, role='teacher'), load_checkpoint):
            other = net()
            load(other, path)
            torch.testing.assert_close(other.state_dict(), model.state_dict())


@pytest.mark.parametrize('average', ['torch', 'mmengine'])
def test_a_model_that_is_averaged_itself_has_the_counter(average):
    first, again = (AVERAGED[average](net()) for _ in range(2))
    state_dict = first.state_dict()
    mmengine.runner.checkpoint.load_state_dict(again, state_dict, strict=True)
    torch.testing.assert_close(again.state_dict(), state_dict)


@pytest.mark.parametrize('steps', [None, torch.ones(3)])
def test_what_is_called_like_a_counter_stays(steps):
    names = {'module.weight': torch.ones(1), 'steps': steps}
    assert list(without_wrappers(names)) == list(names)
    assert list(without_wrappers(dict(n_averaged=torch.tensor(1)))) == ['n_averaged']


def test_weights_beside_their_average():
    """Loose ones are the weights themselves."""
    own = net().state_dict()
    average = {key: torch.full_like(value, 7) for key, value in own.items()}
    found = find_state_dict({**own, 'ema': average, 'best_acc1': torch.tensor(69.7)})
    assert all(torch.equal(found[key], own[key]) for key in own)


def test_wrapped_distillation_is_exported():
    layer = nn.ModuleDict(dict(architecture=net(), distiller=nn.Linear(1, 1)))
    for wrap in (nn.DataParallel, torch.compile):
        exported = export_student(dict(state_dict=wrap(layer).state_dict()))
        assert exported['state_dict'].keys() == net().state_dict().keys()


def test_mmengine_loads_a_compiled_model_into_a_compiled_one(tmp_path):
    """Whose own names are those of the file."""
    path = str(tmp_path / 'wrapped.pth')
    source, target = (torch.compile(net()) for _ in range(2))
    torch.save(source.state_dict(), path)
    load_checkpoint(target, path, strict=True)
    torch.testing.assert_close(dict(source.state_dict()), dict(target.state_dict()))


def test_a_part_called_module_stays():
    names = ['module.weight', 'head.weight']
    assert list(without_wrappers(dict.fromkeys(names))) == names


class Keeper(nn.Linear):
    """A layer that keeps more than tensors."""

    kept = None

    def get_extra_state(self):
        return dict(scale=self.kept)

    def set_extra_state(self, state):
        self.kept = state['scale']


def keeper(kept):
    model = nn.Sequential(Keeper(2, 2))
    model[0].kept = kept
    return model


@pytest.mark.parametrize('key', [None, 'state_dict', 'anything'])
@pytest.mark.parametrize('prefix', ['', 'module.', 'architecture.'])
def test_what_modules_keep_beside_tensors(key, prefix, tmp_path):
    weights = {f'{prefix}{k}': v for k, v in keeper(3.0).state_dict().items()}
    path = str(tmp_path / 'model.pth')
    torch.save({key: weights} if key else weights, path)
    loaded = keeper(1.0)
    load_checkpoint(loaded, path)
    assert loaded[0].kept == 3
    weight = loaded[0].weight
    assert torch.equal(weight, weights[f'{prefix}0.weight'])
    for required in (('',), None):
        loaded = keeper(1.0)
        assert '0._extra_state' in load_weights(loaded, path, 'student', required)
        assert loaded[0].kept == 3 and torch.equal(loaded[0].weight, weight)


def test_state_dicts_without_a_file():
    loaded = keeper(1.0)
    mmengine.runner.checkpoint.load_state_dict(loaded, keeper(3.0).state_dict())
    assert loaded[0].kept == 3


def test_a_distillation_takes_what_its_student_keeps():
    model = feature_distill()
    model.architecture.keeper = keeper(1.0)
    weights = model.architecture.state_dict()
    model.load_state_dict({**weights, 'keeper.0._extra_state': dict(scale=3.0)}, False)
    assert model.architecture.keeper[0].kept == 3


def test_safetensors_hold_tensors_alone(tmp_path):
    pytest.importorskip('safetensors')
    checkpoint = dict(state_dict=keeper(3.0).state_dict())
    with pytest.raises(ValueError, match=r'0\._extra_state: no tensor.* write a \.pth'):
        write_weights(checkpoint, tmp_path / 'model.safetensors')
