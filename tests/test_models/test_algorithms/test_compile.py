# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""Compiled: MMEngine's whole training step, or the two networks alone."""

import copy
import shutil

import pytest
import torch
from mmengine.optim import OptimWrapper
from mmengine.registry import MODELS
from mmengine.utils import digit_version
from torch._dynamo.backends.registry import lookup_backend

from mmfakd.utils import export_student
from tests.helpers.tiny_runs import (
    Recorder,
    distillation,
    run_config,
    save_teacher,
    student,
    train,
)
from tests.helpers.toy import (
    batch,
    classifier,
    feature_distill,
    review_distiller,
    reviewkd_distiller,
)

pytestmark = pytest.mark.skipif(
    digit_version(torch.__version__) < digit_version('2.6'),
    reason='the compiler of older torch breaks the graph in the layers',
)

# Batch norm in a checkpointed block breaks a compiled step of plain torch there.
CHECKPOINTS = digit_version(torch.__version__) < digit_version('2.14')


@pytest.fixture(autouse=True)
def fresh_compiler():
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


FAM_KD = review_distiller(warmup=dict(by_epoch=False, begin=0, end=20))


def train_steps(model, graphs, count=4):
    """Losses and weights of some steps, and the graphs that the last one ran."""
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3, momentum=0.9)
    wrapper = OptimWrapper(optimizer)
    torch.manual_seed(1)
    data, logs = batch(), []
    for _ in range(count):
        graphs.clear()
        logs.append(model.train_step(copy.deepcopy(data), wrapper))
    return logs, model.state_dict(), list(graphs)


def counted(backend, graphs):
    """A backend that notes every graph as it runs."""

    def compile_graph(module, inputs):
        run = lookup_backend(backend)(module, inputs)

        def call(*args):
            graphs.append(module)
            return run(*args)

        return call

    return compile_graph


def build(distiller, **kwargs):
    torch.manual_seed(0)
    return feature_distill(distiller=distiller, **kwargs)


def compare(plain, compiled, graphs):
    """Train both; return the graphs of a step of the second."""
    logs, state, _ = train_steps(plain, [])
    other_logs, other_state, graphs = train_steps(compiled, graphs)
    for log, other in zip(logs, other_logs):
        assert log.keys() == other.keys()
        for name in log:
            torch.testing.assert_close(other[name], log[name], rtol=1e-4, atol=1e-6)
    assert list(other_state) == list(state), 'no names of wrappers'
    for name in state:
        torch.testing.assert_close(
            other_state[name], state[name], rtol=1e-3, atol=1e-5, msg=name
        )
    return graphs


def compare_step(distiller, backend):
    """As MMEngine's runner compiles it, with the setting `compile`."""
    graphs = []
    model = build(distiller)
    model.train_step = torch.compile(model.train_step, backend=counted(backend, graphs))
    return compare(build(distiller), model, graphs)


@pytest.mark.parametrize(
    ('distiller', 'backend', 'most'),
    [(FAM_KD, 'aot_eager', 8), (reviewkd_distiller(with_cp=CHECKPOINTS), 'eager', 7)],
    ids=['fam_kd', 'reviewkd'],
)
def test_whole_step_in_few_graphs(distiller, backend, most):
    """Batch, teacher, student, distiller, sums of losses, optimizer; the warm-up."""
    assert len(compare_step(distiller, backend)) <= most


def test_networks():
    """Backbone and neck of student and teacher, each one graph; copied and saved."""
    graphs = []
    model = build(FAM_KD, compile_networks=dict(backend=counted('eager', graphs)))
    graphs = compare(build(FAM_KD), model, graphs)
    assert len(graphs) == 4
    assert len(model.eval().val_step(batch())) == 4
    assert list(copy.deepcopy(model).state_dict()) == list(model.state_dict())
    exported = export_student(dict(state_dict=model.state_dict(), meta={}))
    MODELS.build(classifier()).load_state_dict(exported['state_dict'], strict=True)


@pytest.mark.slow
@pytest.mark.skipif(shutil.which('g++') is None, reason='needs a C++ compiler')
def test_inductor():
    """The compiler that users get by default, on what is ours of a step.

    One of the maps has one pixel, which it cannot `expand`.
    """
    cfg = dict(FAM_KD['connector'], sizes=[4, 1])
    connector = MODELS.build(dict(cfg, in_channels=[4, 8], out_channels=[8, 16]))
    features = [torch.rand(3, 4, 4, 4, requires_grad=True), torch.rand(3, 8, 1, 1)]

    def results(connector):
        predictions = connector(features)
        loss = sum(prediction.square().mean() for prediction in predictions)
        inputs = [features[0], *connector.parameters()]
        return [*predictions, *torch.autograd.grad(loss, inputs)]

    compiled = torch.compile(copy.deepcopy(connector), backend='inductor')
    for actual, expected in zip(results(compiled), results(connector)):
        torch.testing.assert_close(actual, expected, rtol=1e-4, atol=1e-5)


def test_run(tmp_path):
    """By a config, with averaged weights, checkpoints and the student's file."""
    teacher = save_teacher(tmp_path)
    runs = {}
    for name, setting in (('plain', False), ('compiled', dict(backend='eager'))):
        recorder = Recorder()
        cfg = run_config(
            tmp_path / name,
            distillation(teacher),
            epochs=2,
            hooks=[
                dict(type='EMAHook', momentum=0.1),
                dict(type='mmfakd.StudentCheckpointHook'),
            ],
            compile=setting,
        )
        train(cfg, recorder)
        runs[name] = (
            recorder.losses,
            {
                file.name: torch.load(file, weights_only=False)
                for file in (tmp_path / name).glob('epoch_*.pth')
            },
        )
    assert torch._dynamo.utils.counters['stats']['unique_graphs'] > 0
    for plain, compiled in zip(runs['plain'][0], runs['compiled'][0]):
        assert compiled == pytest.approx(plain, rel=1e-4)
    assert runs['plain'][1].keys() == runs['compiled'][1].keys()
    for name, checkpoint in runs['compiled'][1].items():
        plain = runs['plain'][1][name]
        assert checkpoint['state_dict'].keys() == plain['state_dict'].keys()
        for key, value in checkpoint['state_dict'].items():
            torch.testing.assert_close(
                value, plain['state_dict'][key], rtol=1e-3, atol=1e-5
            )
    exported = runs['compiled'][1]['epoch_2_student.pth']
    MODELS.build(student()).load_state_dict(exported['state_dict'], strict=True)


@pytest.mark.parametrize('part', ['layer1', 'layer1.0'])
def test_a_compiled_part_in_place_of_a_recorded_layer(part):
    cfg = dict(
        type='mmfakd.LevelDistiller',
        student_levels=[f'backbone.{part}'],
        teacher_levels=[f'backbone.{part}'],
        level_loss=dict(type='mmrazor.L2Loss'),
    )
    model = feature_distill(teacher=classifier(), distiller=cfg)
    data = batch()
    backbone = model.architecture.backbone

    def loss():
        inputs = model.data_preprocessor(copy.deepcopy(data), True)
        return model(**inputs, mode='loss')['distill.loss_level0']

    expected = loss()
    backbone.layer1 = torch.compile(backbone.layer1, backend='eager')
    assert loss() == expected
