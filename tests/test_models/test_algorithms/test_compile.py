# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""MMEngine's `compile` of the whole training step: recorders, teacher, connectors."""

import copy
import shutil

import pytest
import torch
from mmengine.optim import OptimWrapper
from mmengine.registry import MODELS
from mmengine.utils import digit_version
from torch._dynamo.backends.registry import lookup_backend

from tests.tiny_runs import (
    Recorder,
    distillation,
    run_config,
    save_teacher,
    student,
    train,
)
from tests.toy import batch, feature_distill, review_distiller, reviewkd_distiller

pytestmark = pytest.mark.skipif(
    digit_version(torch.__version__) < digit_version('2.6'),
    reason='the compiler of older torch breaks the graph in the layers',
)


@pytest.fixture(autouse=True)
def fresh_compiler():
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


FAM_KD = review_distiller(warmup=dict(by_epoch=False, begin=0, end=20))


def train_steps(model, train_step, graphs, count=4):
    """Losses and weights of some steps, and the graphs that the last one ran."""
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3, momentum=0.9)
    wrapper = OptimWrapper(optimizer)
    torch.manual_seed(1)
    data, logs = batch(), []
    for _ in range(count):
        graphs.clear()
        logs.append(train_step(copy.deepcopy(data), wrapper))
    return logs, model.state_dict(), list(graphs)


def compare(distiller, backend):
    """Train with and without the compiler; return the graphs of a step."""
    models = []
    for _ in range(2):
        torch.manual_seed(0)
        models.append(feature_distill(distiller=distiller))
    plain, compiled = models
    graphs = []

    def counting(module, inputs):
        run = lookup_backend(backend)(module, inputs)

        def call(*args):
            graphs.append(module)
            return run(*args)

        return call

    # As MMEngine's runner does it.
    compiled.train_step = torch.compile(compiled.train_step, backend=counting)
    logs, state, _ = train_steps(plain, plain.train_step, [])
    other_logs, other_state, graphs = train_steps(compiled, compiled.train_step, graphs)
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


@pytest.mark.parametrize(
    ('distiller', 'backend', 'most'),
    [(FAM_KD, 'aot_eager', 8), (reviewkd_distiller(with_cp=True), 'eager', 7)],
    ids=['fam_kd', 'reviewkd'],
)
def test_same_training_in_few_graphs(distiller, backend, most):
    """Batch, teacher, student, distiller, sums of losses, optimizer; the warm-up."""
    assert len(compare(distiller, backend)) <= most


@pytest.mark.slow
@pytest.mark.skipif(shutil.which('g++') is None, reason='needs a C++ compiler')
def test_inductor():
    """The compiler that users get by default."""
    compare(FAM_KD, 'inductor')


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


def test_copies_of_a_compiled_connector():
    """A part alone, as a script may compile it, is copied and saved as ever."""
    model = feature_distill(distiller=reviewkd_distiller(with_cp=True))
    connector = model.distiller.connectors['review']
    names = list(model.state_dict())
    connector.compile(backend='eager', fullgraph=True)
    features = [torch.rand(2, c, s, s) for c, s in zip((4, 8, 16, 16), (8, 4, 2, 1))]
    expected = [p.detach() for p in connector.eval()(features)]
    copied = copy.deepcopy(model)
    assert list(model.state_dict()) == list(copied.state_dict()) == names
    for prediction, value in zip(
        copied.distiller.connectors['review'](features), expected
    ):
        torch.testing.assert_close(prediction, value)
