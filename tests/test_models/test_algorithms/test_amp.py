# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""Training in mixed precision: float16 with scaled gradients, bfloat16."""

import copy

import pytest
import torch
from mmengine.registry import MODELS
from torch.utils._python_dispatch import TorchDispatchMode

from mmfakd.models.layers import FrequencyAttention, LocalCrossAttention
from tests.helpers.half_precision import needs_cpu_float16
from tests.helpers.tiny_runs import (
    Recorder,
    distillation,
    run_config,
    save_teacher,
    train,
)
from tests.helpers.toy import (
    LEVELS,
    batch,
    feature_distill,
    layer_distiller,
    losses_of,
    review_distiller,
    reviewkd_distiller,
    without_gradient,
)

HAS_GPU = torch.cuda.is_available()
ON_GPU = [pytest.mark.gpu, pytest.mark.skipif(not HAS_GPU, reason='needs a GPU')]


CPU_FLOAT16 = pytest.param(
    'cpu',
    torch.float16,
    marks=needs_cpu_float16,
    id='cpu-float16',
)
PRECISIONS = [
    pytest.param('cpu', torch.bfloat16, id='cpu-bfloat16'),
    CPU_FLOAT16,
    pytest.param('cuda', torch.bfloat16, marks=ON_GPU, id='cuda-bfloat16'),
    pytest.param('cuda', torch.float16, marks=ON_GPU, id='cuda-float16'),
]


DISTILLERS = dict(
    fam_kd=review_distiller(),
    reviewkd=reviewkd_distiller(),
    checkpointed=reviewkd_distiller(with_cp=True),
    fft_loss=layer_distiller(loss='mmfakd.FFTFeatureLoss'),
)


@pytest.mark.parametrize('distiller', DISTILLERS.values(), ids=DISTILLERS)
@pytest.mark.parametrize(('device', 'dtype'), PRECISIONS)
def test_losses_and_gradients(distiller, device, dtype):
    model = feature_distill(distiller=distiller).to(device)
    data = batch()
    expected = losses_of(model, copy.deepcopy(data))
    recorded = []
    for network in (model.architecture, model.teacher):
        for level in LEVELS[:3]:
            network.get_submodule(level).register_forward_hook(
                lambda module, inputs, output: recorded.append(output.dtype)
            )
    with torch.autocast(device, dtype=dtype):
        losses = losses_of(model, data)
    assert recorded == [dtype] * 6, 'the networks, the teacher too, save memory'
    for name, loss in losses.items():
        assert loss.dtype == torch.float32, name
        assert loss.item() == pytest.approx(expected[name].item(), rel=0.03), name
    model.parse_losses(losses)[0].backward()
    assert without_gradient(model) == []
    assert all(p.grad.isfinite().all() for p in model.parameters())


class Dtypes(TorchDispatchMode):
    """Notes the types of the tensors that operations get."""

    def __init__(self):
        super().__init__()
        self.seen = {}

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        dtypes = {x.dtype for x in args if isinstance(x, torch.Tensor)}
        self.seen.setdefault(str(func.overloadpacket), set()).update(dtypes)
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize(('device', 'dtype'), PRECISIONS)
def test_level_losses_compute_in_float32(device, dtype):
    model = feature_distill().to(device)
    with torch.autocast(device, dtype=dtype), Dtypes() as dtypes:
        losses_of(model, batch())
    assert dtypes.seen['aten.mse_loss'] == {torch.float32}
    # As opposed to the networks.
    assert dtype in dtypes.seen['aten.convolution']


@pytest.mark.parametrize(('device', 'dtype'), PRECISIONS)
@pytest.mark.parametrize('size', [8, 32])
def test_layers_compute_in_float32(device, dtype, size):
    """Only their outputs are rounded."""
    inputs = [torch.randn(2, 8, size, size, device=device).to(dtype) for _ in 'xy']
    layers = FrequencyAttention(8, 4, size=size), LocalCrossAttention(8)
    for layer, given in zip(layers, (inputs[:1], inputs)):
        layer.to(device)
        expected = layer(*(x.float() for x in given))
        with torch.autocast(device, dtype=dtype):
            output = layer(*given)
        torch.testing.assert_close(output, expected.to(dtype))


LOSSES = [
    dict(type='mmfakd.HierarchicalContextLoss'),
    *[
        dict(type='mmfakd.FFTFeatureLoss', domain=domain, focal_alpha=alpha)
        for domain in ('complex', 'amplitude', 'phase', 'log_amplitude')
        for alpha in (0.0, 1.0)
    ],
]
# They lean on what autocast computes in float32, and that is more on a GPU.
STOCK_LOSSES = [
    pytest.param(dict(cfg, type=f'mmrazor.{name}'), marks=ON_GPU, id=name)
    for name, cfg in dict(
        L2Loss=dict(normalize=False, div_element=True),
        ATLoss=dict(),
        OFDLoss=dict(),
        KLDivergence=dict(tau=4),
    ).items()
]


@needs_cpu_float16
@pytest.mark.parametrize('cfg', LOSSES + STOCK_LOSSES)
@pytest.mark.parametrize('scale', [1.0, 300.0, 3e4])
def test_losses_of_features_whose_squares_overflow(cfg, scale):
    """float16 ends at 65504, the square of 256."""
    loss = MODELS.build(cfg)
    names = ('preds_S', 'preds_T') if 'tau' in cfg else ('s_feature', 't_feature')
    device = 'cuda' if 'mmrazor' in cfg['type'] else 'cpu'
    features = [
        (scale * torch.rand(2, 4, 8, 8, device=device) * sign).half().requires_grad_()
        for sign in (1, -1)
    ]
    with torch.autocast(device, dtype=torch.float16):
        value = loss(**dict(zip(names, features)))
    expected = loss(**dict(zip(names, (x.double() for x in features))))
    assert value.item() == pytest.approx(expected.item(), rel=1e-3)


@pytest.mark.parametrize(('device', 'dtype'), [CPU_FLOAT16, PRECISIONS[-1]])
def test_level_losses_of_features_whose_squares_overflow(device, dtype):
    """The mean squared error that `level_loss=None` stands for."""
    distiller = feature_distill().distiller
    prediction = torch.full((2, 4, 8, 8), 3e4, dtype=dtype, device=device)
    with torch.autocast(device, dtype=dtype):
        loss = distiller._compare(prediction.requires_grad_(), -prediction.detach())
    assert loss.item() == pytest.approx(3.6e9, rel=1e-3)


@pytest.mark.parametrize(('device', 'dtype'), [CPU_FLOAT16, PRECISIONS[-1]])
def test_scaled_gradients(device, dtype):
    """As AmpOptimWrapper takes a step, which a CPU is refused."""
    model = feature_distill().to(device)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    scaler = torch.amp.GradScaler(device, init_scale=2.0**8)
    data, totals = batch(), []
    for _ in range(8):
        with torch.autocast(device, dtype=dtype):
            losses = losses_of(model, copy.deepcopy(data))
        total = model.parse_losses(losses)[0]
        optimizer.zero_grad()
        scaler.scale(total).backward()
        scaler.step(optimizer)
        scaler.update()
        totals.append(total.item())
    assert scaler.get_scale() == 2.0**8, 'no gradient overflowed'
    assert totals[-1] < totals[0]


@pytest.mark.gpu
@pytest.mark.skipif(not HAS_GPU, reason='needs a GPU')
@pytest.mark.parametrize(
    'amp',
    [
        dict(loss_scale='dynamic'),
        dict(dtype='bfloat16', loss_scale=dict(enabled=False)),
    ],
)
def test_run_on_gpu(tmp_path, amp):
    """MMEngine's own wrapper, from a config; gradients that overflowed are skipped."""
    cfg = run_config(
        tmp_path / 'run', distillation(save_teacher(tmp_path)), epochs=5, validate=True
    )
    cfg.optim_wrapper.update(type='AmpOptimWrapper', **amp)
    recorder = Recorder()
    runner = train(cfg, recorder)
    totals = [losses['loss'] for losses in recorder.losses]
    assert all(total == total and total < float('inf') for total in totals)
    assert min(totals[-2:]) < totals[0]
    assert (tmp_path / 'run' / 'epoch_5.pth').is_file()
    assert all(p.isfinite().all() for p in runner.model.parameters())
