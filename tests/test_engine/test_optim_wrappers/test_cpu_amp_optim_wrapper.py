# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""Mixed precision on a CPU."""

import pytest
import torch
from mmengine.hooks import Hook

from mmfakd.engine import CpuAmpOptimWrapper
from mmfakd.engine.launch import merge_train_options
from tests.helpers.tiny_runs import distillation, run_config, save_teacher, train


def wrapper(**options):
    weight = torch.nn.Linear(2, 2)
    optimizer = torch.optim.SGD(weight.parameters(), lr=0.1)
    return weight, CpuAmpOptimWrapper(optimizer=optimizer, **options)


class Watch(Hook):
    """Notes the dtype in which the student's first convolution computes."""

    def before_train(self, runner):
        self.dtypes, self.losses = set(), []
        layer = next(
            module
            for module in runner.model.architecture.modules()
            if isinstance(module, torch.nn.Conv2d)
        )
        layer.register_forward_hook(lambda _, args, out: self.dtypes.add(out.dtype))

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        self.losses.append(outputs['loss'].item())


def test_forward_passes_are_in_bfloat16_and_weights_are_not():
    layer, optimizer = wrapper()
    before = layer.weight.detach().clone()
    with optimizer.optim_context(layer):
        out = layer(torch.ones(3, 2))
    assert out.dtype == torch.bfloat16
    optimizer.update_params(out.float().sum())
    assert layer.weight.dtype == torch.float32
    # d sum / d weight = 3 everywhere.
    assert torch.allclose(before - layer.weight.detach(), torch.tensor(0.3))
    assert layer(torch.ones(3, 2)).dtype == torch.float32


def test_accumulates():
    layer, optimizer = wrapper(accumulative_counts=2)
    before = layer.weight.detach().clone()
    for step in range(2):
        assert torch.equal(layer.weight, before), step
        with optimizer.optim_context(layer):
            loss = layer(torch.ones(1, 2)).float().sum()
        optimizer.update_params(loss)
    assert not torch.equal(layer.weight, before)


@pytest.mark.parametrize('dtype', ['float16', torch.float16, 'float64'])
def test_other_dtypes_are_refused(dtype):
    with pytest.raises(ValueError, match='expected bfloat16, .* leave `dtype` out'):
        wrapper(dtype=dtype)


def test_weights_elsewhere_would_not_be_cast():
    layer = torch.nn.Linear(2, 2, device='meta')
    optimizer = torch.optim.SGD(layer.parameters(), lr=0.1)
    with pytest.raises(ValueError, match="on 'meta': expected .*='AmpOptimWrapper'"):
        CpuAmpOptimWrapper(optimizer=optimizer)


@pytest.mark.parametrize('asked', [{}, dict(loss_scale=512.0), dict(dtype='bfloat16')])
def test_option_trains_and_resumes(tmp_path, monkeypatch, asked):
    monkeypatch.setattr('mmfakd.engine.launch.get_device', lambda: 'cpu')
    model = distillation(save_teacher(tmp_path))
    hooks = [dict(type='mmfakd.ResumeHook'), dict(type='mmfakd.EpochSeedHook')]
    cfg = run_config(tmp_path / 'run', model, hooks=hooks)
    cfg.optim_wrapper.update(asked)
    cfg = merge_train_options(cfg, amp=True)
    whole = Watch()
    train(cfg, whole)
    assert whole.dtypes == {torch.bfloat16}
    cfg.update(resume=True, load_from=str(tmp_path / 'run/epoch_1.pth'))
    rest = Watch()
    train(cfg, rest)
    assert rest.losses == whole.losses[-len(rest.losses) :]
    assert 0 < len(rest.losses) < len(whole.losses)


def test_option_on_an_accelerator_is_mmengines_own(tmp_path, monkeypatch):
    monkeypatch.setattr('mmfakd.engine.launch.get_device', lambda: 'cuda')
    cfg = run_config(tmp_path / 'run', distillation(save_teacher(tmp_path)))
    cfg = merge_train_options(cfg, amp=True)
    assert cfg.optim_wrapper.type == 'AmpOptimWrapper'
    assert cfg.optim_wrapper.loss_scale == 'dynamic'
