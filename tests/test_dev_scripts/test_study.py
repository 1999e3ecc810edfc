# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""Fit, pull and gain of connectors, from trainings to table and figure."""

import json
import sys
from types import SimpleNamespace

import pytest
import study_fit
import torch
from study_table import write_study

from mmfakd.engine.hooks.first_step_hook import FILE
from tests.helpers.tiny_runs import distillation, run_config, save_teacher, train


def level(prediction, teacher):
    return SimpleNamespace(prediction=prediction, teacher=teacher)


def test_what_is_left_unexplained():
    teacher = torch.randn(6, 4, 5, 3) * torch.arange(1, 5).view(4, 1, 1) + 7
    means = teacher.mean((0, 2, 3), keepdim=True)
    assert study_fit.unexplained(level(teacher, teacher)) == 0
    assert study_fit.unexplained(level(means, teacher)) == pytest.approx(1)
    half = (teacher + means) / 2
    assert study_fit.unexplained(level(half, teacher)) == pytest.approx(0.25)
    # No better for a constant that is the same in all channels.
    assert study_fit.unexplained(level(means.mean(), teacher)) > 1


def logged(method, scores, added=0, **measured):
    runs = [dict(seed=seed, last=last) for seed, last in enumerate(scores)]
    for run in runs:
        run.update(measured)
    return dict(method=method, runs=runs, added=added)


@pytest.fixture
def log():
    methods = [
        logged('student alone', (0.3, 0.4)),
        logged('good', (0.4, 0.6), 1_500_000, fit=[0.2, 0.4], pull=[1, 3]),
        logged('poor', (0.3,), None, fit=[0.5], pull=[0.07]),
    ]
    return dict(metric='coco/bbox_mAP', methods=methods, teacher=None)


def test_table(log):
    assert [line.split(' | ') for line in write_study(log)[2:]] == [
        ['| student alone', '0.00 M', '', '', '35.0', '', '2 |'],
        ['| good', '1.50 M', '0.300', '2', '50.0', '+15.0 ± 5.0', '2 |'],
        ['| poor', '0.00 M', '0.500', '0.07', '30.0', '+0.0', '1 |'],
    ]


def test_figure(log):
    figure = study_fit.draw(log)
    [axis], [legend] = figure.axes, figure.legends
    assert [text.get_text() for text in legend.get_texts()] == ['good', 'poor']
    points = [container[0].get_xydata()[0].tolist() for container in axis.containers]
    assert points == [pytest.approx([0.3, 15]), pytest.approx([0.5, 0])]


def test_trainings_are_measured_once(tmp_path, monkeypatch):
    folder = tmp_path / 'run'
    hooks = [dict(type='mmfakd.FirstStepHook')]
    model = distillation(save_teacher(tmp_path))
    train(run_config(folder, model, 1, hooks=hooks, validate=True))
    runs = [dict(seed=0, last=50.0, work_dir=str(folder))]
    alone = [dict(seed=0, last=40.0, work_dir=str(tmp_path))]
    methods = [dict(method='alone', runs=alone), dict(method='taught', runs=runs)]
    path, plot = tmp_path / 'log.json', tmp_path / 'figure.png'
    text = json.dumps(dict(metric='accuracy/top1', methods=methods, teacher=None))
    path.write_text(text)
    monkeypatch.setattr(sys, 'argv', ['', str(path), '--plot', str(plot)])
    study_fit.main()
    alone, [run] = (
        method['runs'] for method in json.loads(path.read_text())['methods']
    )
    assert alone == methods[0]['runs'] and plot.stat().st_size > 5_000
    reported = json.loads((folder / FILE).read_text())['levels']
    assert run['pull'] == [level['ratio'] for level in reported]
    assert len(run['fit']) == len(reported) and min(run['fit']) > 0
    (folder / FILE).write_text('not read again')
    study_fit.main()
    assert json.loads(path.read_text())['methods'][1]['runs'] == [run]
