# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""The benchmark: what it counts and reports, not how fast anything is."""

import json
import re
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.logging import MessageHub
from mmengine.registry import MODELS, init_default_scope
from torch.profiler import profile
from torch.utils.flop_counter import FlopCounterMode

from mmfakd import cli
from mmfakd.analysis.benchmark import growth, limits, random_batch, step, suites
from mmfakd.analysis.benchmark import measure as measuring
from mmfakd.analysis.benchmark import naive_layers as naive
from mmfakd.analysis.benchmark.report import format_growth, format_suite
from mmfakd.analysis.benchmark.run import STEP_CONFIGS
from mmfakd.models.layers import FrequencyAttention, LocalCrossAttention
from mmfakd.utils import convert_famkd_state_dict

ROOT = Path(__file__).resolve().parents[2]
DIGITS = ROOT / 'configs/fakd/digits'
PAIR = 'r18w32_r18w4_1xb50_digits'
STEP = [str(DIGITS / f'{method}_{PAIR}.py') for method in ('fakd_review', 'reviewkd')]
needs_gpu = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason='needs a GPU'),
]


def run(*arguments):
    """Call the command with few and short rounds."""
    few = ['--rounds', '2', '--min-time', '0.001', '--threads', '1']
    cli.main(['benchmark', *few, *arguments])


ONLY = '|'.join(
    [
        'Attention, batch 2, 64 channels, 8 px',
        'R56-R20',
        'digits',
        '^batch 2, (16|32) channels, 28 px',
        '^batch 2, 64 channels, (7|14) px',
    ]
)


@pytest.fixture(scope='module')
def measured(tmp_path_factory):
    """All suites, at two images a batch: what is printed, written and drawn."""
    folder = tmp_path_factory.mktemp('benchmark')
    arguments = ['--batch-size', '2', '--only', ONLY, '--config', *STEP]
    arguments += ['--json', str(folder / 'b.json'), '--plot', str(folder / 'b.png')]
    with pytest.MonkeyPatch.context() as patch:
        printed = []
        patch.setattr('builtins.print', lambda *a, **k: printed.append((a[0], k)))
        run(*arguments)
    text = '\n'.join(line for line, kwargs in printed if 'file' not in kwargs)
    return folder, json.loads((folder / 'b.json').read_text()), text


@pytest.fixture
def report(measured):
    return measured[1]


def all_cases(report):
    return [case for cases in report['suites'].values() for case in cases]


def sides_of(report, suite, case):
    [found] = [c for c in report['suites'][suite] if case in c['name']]
    return {side['name']: side for side in found['sides']}


def parameters(report, suite, case):
    sides = sides_of(report, suite, case)
    return {name: side['parameters'] for name, side in sides.items()}


# What is reported.


def test_report_says_how_it_was_measured(report):
    machine, settings = report['machine'], report['settings']
    assert machine['torch'] == torch.__version__ and machine['cuda'] is None
    assert machine['processor'] and machine['tf32'] == []
    assert machine['flop_per_second'] > 1e8 and machine['bytes_per_second'] > 1e8
    expected = dict(device='cpu', threads=1, rounds=2, amp='none', batch_size=2)
    assert expected.items() <= settings.items()
    assert settings['config'] == [Path(path).name for path in STEP]
    names = ['layers', 'limits', 'pyramid', 'step', 'growth']
    assert list(report['suites']) == names


def test_statistics_follow_from_the_rounds(report):
    for case in all_cases(report):
        base = case['sides'][0]
        for side in case['sides']:
            rounds = np.array(side['seconds']['rounds'])
            assert len(rounds) == 2 and (rounds > 0).all() and side['calls'] >= 1
            ratios = rounds / base['seconds']['rounds']
            assert side['time_ratio']['rounds'] == pytest.approx(ratios)
            for name, values in (('seconds', rounds), ('time_ratio', ratios)):
                q1, median, q3 = np.quantile(values, [0.25, 0.5, 0.75])
                assert side[name]['median'] == pytest.approx(median)
                assert (side[name]['q1'], side[name]['q3']) == pytest.approx((q1, q3))
                assert side[name]['iqr'] == pytest.approx(q3 - q1)
            # Parts of layers may write to what is there.
            assert side['peak_bytes'] > 0 or side['parameters'] == 0
            ratio = side['peak_bytes'] / base['peak_bytes']
            assert side['memory_ratio'] == pytest.approx(ratio)
            ratio = side['parameters'] / base['parameters']
            assert side['parameter_ratio'] == pytest.approx(ratio)


def frequency_attention(channels, frequencies):
    """Complex filter, 1x1 convolution with bias, two gates."""
    return 2 * channels**2 * frequencies + channels**2 + channels + 2


def independent(size):
    """Frequencies of a real square map: up to four are their own mirror image."""
    return (size**2 + (1 if size % 2 else 4)) // 2


def cross_attention(channels):
    """Three projections, and three offsets a channel."""
    return 3 * channels**2 + 3 * channels


def test_parameters_of_layers(report):
    """Complex numbers count twice."""
    assert independent(8) == 34
    assert parameters(report, 'layers', 'Frequency') == {
        'mmfakd': frequency_attention(64, independent(8)),
        'naive': frequency_attention(64, 8 * 8),
    }
    assert parameters(report, 'layers', 'Local') == dict.fromkeys(
        ['mmfakd', 'naive'], cross_attention(64)
    )


def pyramid(channels, frequencies):
    """FAM-KD with the student's channels: see ``ReviewConnector``."""
    total = 0
    for c, count in zip(channels, frequencies):
        total += frequency_attention(c, count) + 2 * c  # and the norm
    for c, deeper in zip(channels, channels[1:]):
        total += cross_attention(c) + (deeper * c + 2 * c if deeper != c else 0)
    return total


def review_kd(channels, mid):
    """1x1 and 3x3 convolutions with norms, and the fusions' two maps."""
    levels = sum(c * mid + 2 * mid + 9 * mid * c + 2 * c for c in channels)
    return levels + (len(channels) - 1) * (2 * mid * 2 + 2)


def test_parameters_of_pyramids(report):
    channels, sizes = [16, 32, 64, 64], [32, 16, 8, 1]
    assert parameters(report, 'pyramid', 'R56-R20') == {
        'FAM-KD': pyramid(channels, map(independent, sizes)),
        'ReviewKD': review_kd(channels, mid=64),
        'FAM-KD, naive layers': pyramid(channels, [size**2 for size in sizes]),
    }


def test_parameters_of_the_imagenet_pyramid():
    """As published 105 M; each independent number once is just over half."""
    channels, sizes = [64, 128, 256, 512, 512], [56, 28, 14, 7, 1]
    cfg = dict(type='mmfakd.ReviewConnector', sizes=sizes)
    connector = MODELS.build(dict(cfg, in_channels=channels, out_channels=channels))
    count = sum(p.numel() for p in connector.parameters())
    assert count == pyramid(channels, map(independent, sizes)) == 54_345_738


def test_parameters_of_steps(report):
    """What learns: the student of 11,302 parameters, and the connectors."""
    ours, review = (Path(path).stem for path in STEP)
    counts = parameters(report, 'step', ours)
    student = counts.pop('student alone')
    assert student == 11302 == counts.pop(step.FLOOR)
    added = {name: count - student for name, count in counts.items()}
    for name, path in zip((ours, review), STEP):
        init_default_scope('mmpretrain')
        connector = MODELS.build(Config.fromfile(path).model.distiller.connector)
        assert added.pop(name) == sum(p.numel() for p in connector.parameters())
    [(name, count)] = added.items()
    assert name == f'{ours}, naive layers'
    extra = sum(
        2 * ci * co * (size**2 - independent(size))
        for ci, co, size in ((4, 32, 8), (8, 64, 4), (16, 128, 2), (16, 128, 1))
    )
    assert count == counts[ours] - student + extra


def test_parts_of_layers(report):
    parts = ['Fourier transforms', 'products of spectra', 'memory']
    sides = sides_of(report, 'limits', 'Frequency')
    assert list(sides) == ['mmfakd', 'naive', 'parts alone', *parts]
    sides = sides_of(report, 'limits', 'Local')
    assert list(sides)[3:] == ['projections', 'exponentials', 'memory']


def parts_of(kind):
    """The parts alone of a layer of 8 channels, 4 images of 12 x 12 pixels."""
    sides = limits._sides(kind, suites.Size(4, 8, 12), measuring.Options())
    return {side.name: side for side in sides}


def test_parts_of_the_filter_do_the_work_of_a_pass():
    sides = parts_of(FrequencyAttention)
    with FlopCounterMode(display=False) as counter:
        sides['products of spectra'].run()
    # A product forward and two backward for each frequency.
    assert counter.get_total_flops() == 3 * independent(12) * 2 * 4 * 8 * 8
    with profile() as events:
        sides['Fourier transforms'].run()
    names = [event.name for event in events.events()]
    assert [names.count(f'aten::_fft_{kind}') for kind in ('r2c', 'c2r')] == [2, 2]


def test_parts_of_the_window_do_the_work_of_a_pass(monkeypatch):
    sides = parts_of(LocalCrossAttention)
    pixels = 4 * 8 * 12 * 12
    with FlopCounterMode(display=False) as counter:
        sides['projections'].run()
    assert counter.get_total_flops() == 3 * 2 * pixels * 3 * 8
    taken = []
    monkeypatch.setattr(torch, 'exp2', lambda x, out: taken.append(x.numel()))
    sides['exponentials'].run()
    assert 0 <= sum(taken) - 2 * 9 * pixels < limits._IN_CACHE


@pytest.mark.parametrize(
    ('kind', 'numbers'),
    [
        (FrequencyAttention, 5 * 4608 + 3 * 2 * 64 * independent(12)),
        (LocalCrossAttention, 8 * 4608),
    ],
)
def test_memory_that_layers_cannot_do_without(kind, numbers):
    """Each number copied is read and written."""
    copy = parts_of(kind)['memory'].run
    assert 2 * copy.args[0].numel() == 2 * copy.func.__self__.numel() == numbers


def test_memory_of_the_filter(report):
    """At two images, weights are what counts; the naive gradient is twice as large."""
    sides = sides_of(report, 'layers', 'Frequency')
    for side in sides.values():
        assert side['peak_bytes'] >= 4 * side['parameters']
    gradient = 4 * sides['naive']['parameters']
    feature = 4 * 2 * 64 * 8 * 8
    assert sides['naive']['peak_bytes'] >= gradient + feature


def test_table_shows_the_report(measured):
    _, report, text = measured
    for suite, cases in report['suites'].items():
        heading = format_suite(suite, cases).splitlines()[0]
        assert text.splitlines().count(heading) == 1
        for case in cases:
            start = text.index(f'| {case["name"]} |', text.index(heading))
            lines = text[start:].splitlines()[: len(case['sides'])]
            for index, (line, side) in enumerate(zip(lines, case['sides'])):
                cells = [cell.strip() for cell in line.strip('|').split('|')]
                assert cells[:2] == ['' if index else case['name'], side['name']]
                ratio = side['time_ratio']
                shown = '{median:.2f} ({q1:.2f}-{q3:.2f})'.format(**ratio)
                assert cells[2] == (shown if index else '1')
                memory = f'{side["memory_ratio"]:.2f}'
                assert cells[3] == (memory if index else '1')
                milliseconds = float(cells[5].split(' ')[0])
                assert milliseconds == pytest.approx(
                    1e3 * side['seconds']['median'], rel=1e-3
                )
                megabytes = side['peak_bytes'] / 1e6
                assert float(cells[6]) == pytest.approx(megabytes, rel=1e-3)
                held = side.get('held_bytes', 4 * side['parameters'])
                assert ('held_bytes' in side) == (
                    suite == 'step' or 'forward' in side['name']
                )
                megabytes += held / 1e6
                assert float(cells[7]) == pytest.approx(megabytes, rel=1e-3)
                assert cells[8] == f'{side["parameters"]:,}'
    first = text.splitlines()[0]
    assert first.startswith(f'{report["machine"]["processor"]}, 1 CPU thread, torch')
    assert first.endswith('GB/s. 2 rounds.')


# How it is measured.


def test_sides_take_turns():
    """Forwards and backwards by turns, so that a drift hits both alike."""
    calls = []
    sides = [
        measuring.Side(name, lambda name=name: calls.append(name), count)
        for name, count in (('a', 1), ('b', 3))
    ]
    options = measuring.Options(rounds=4, min_time=0)
    result = measuring.measure(
        measuring.Case('case', lambda: sides, dict(batch=5)), options
    )
    turns = ''.join(calls)
    for name in 'ab':
        turns = re.sub(f'{name}+', name, turns)
    # Memory; number of calls; the rounds a b, b a, a b, b a.
    assert turns == 'ab' + 'ab' + 'ababa'
    assert result['name'] == 'case' and result['batch'] == 5
    assert [side['parameter_ratio'] for side in result['sides']] == [1, 3]
    # Nothing is allocated: there is no ratio to the first.
    assert [side['memory_ratio'] for side in result['sides']] == [None, None]


def allocate(device):
    kept = [torch.empty(1024, device=device)]

    def call():
        """4 KiB more, 8 KiB with the old ones, then 2 KiB."""
        first = torch.empty(1024, device=device)
        second = torch.empty(1024, device=device)
        kept[0] = torch.empty(1024, device=device)
        del first, second
        kept[0] = torch.empty(512, device=device)
        kept[0] = torch.empty(1024, device=device)

    return call


@pytest.mark.parametrize('device', ['cpu', pytest.param('cuda', marks=needs_gpu)])
def test_peak_memory_is_exact(device):
    """Three KiB-blocks at once beside the one that was there before."""
    assert measuring.peak_bytes(allocate(device), device) == 3 * 4096


def test_peak_memory_of_a_layer():
    """Forward and backward of a 1x1 convolution: output, and gradients of all."""
    conv = torch.nn.Conv2d(8, 16, 1, bias=False)
    side = measuring.training_pass(
        'conv', conv, [torch.randn(4, 8, 32, 32)], measuring.Options()
    )
    output, gradient, weight = 4 * 16 * 32**2, 4 * 8 * 32**2, 8 * 16
    peak = measuring.peak_bytes(side.run, 'cpu')
    assert 4 * (gradient + weight) <= peak <= 4 * 2 * (output + gradient + weight)
    assert side.parameters == weight


@pytest.mark.parametrize('as_list', [False, True])
def test_training_pass_reaches_everything_and_leaves_nothing(as_list, monkeypatch):
    module = torch.nn.ModuleDict(dict(a=torch.nn.Conv2d(2, 3, 1)))
    taken = []

    def forward(*inputs):
        inputs = inputs[0] if as_list else inputs
        taken.append(inputs)
        return tuple(module['a'](x) for x in inputs)

    monkeypatch.setattr(module, 'forward', forward)
    reached = []
    features = [torch.randn(2, 2, 4, 4) for _ in range(2)]
    side = measuring.training_pass(
        'x', module, features, measuring.Options(), as_list=as_list
    )
    tensors = [*taken[0], *module.parameters()]
    for tensor in tensors:
        tensor.register_post_accumulate_grad_hook(
            lambda tensor: reached.append(tensor.grad.any().item())
        )
    side.run()
    assert len(reached) == 4 and all(reached)
    assert all(tensor.grad is None for tensor in tensors)


def test_naive_pyramid_is_the_same_function():
    """What is compared computes the same: with equal weights, equal predictions."""
    cfg = Config.fromfile(STEP[0]).model.distiller.connector
    ours, theirs = MODELS.build(cfg), MODELS.build(cfg)
    theirs.load_state_dict(ours.state_dict())
    naive.use_naive_layers(theirs)
    assert not naive.our_layers(theirs) and len(naive.our_layers(ours)) == 7
    for mine, other in zip(ours.levels, theirs.levels):
        state = other.transform.layer.famkd_state_dict()
        mine.transform.load_state_dict(convert_famkd_state_dict(state))
        if mine.fusion is not None:
            for name in ('query', 'key', 'value'):
                weight = getattr(other.fusion.layer, name).state_dict()
                getattr(mine.fusion, name).load_state_dict(weight)
            for name in ('row_offset', 'column_offset'):
                getattr(mine.fusion, name).data = getattr(other.fusion.layer, name).data
    features = [
        torch.randn(3, channels, size, size)
        for channels, size in zip(cfg.in_channels, cfg.sizes)
    ]
    for mine, other in zip(ours(features), theirs(features)):
        assert (mine - other).abs().max() <= 1e-5 * other.abs().max()


def test_step_trains_without_moving():
    """A step of every side is a real one, but the rate of learning is 0."""
    [case] = step.step_cases(STEP, measuring.Options(), batch_size=3)
    assert case.settings['pixels'] == 8 and 'batch 3, 8 px' in case.name
    for side in case.build():
        train_step, (data, optim_wrapper) = side.run.func, side.run.args
        assert data['inputs'].shape == (3, 1, 8, 8)
        model = train_step.__self__
        before = {name: p.detach().clone() for name, p in model.named_parameters()}
        side.run()
        assert len(optim_wrapper.optimizer.state) == len(before)
        for name, p in model.named_parameters():
            buffer = optim_wrapper.optimizer.state[p]['momentum_buffer']
            assert buffer.any(), f'{side.name}: no gradient of {name}'
            assert torch.equal(p, before[name])


def test_step_holds_the_teacher_and_the_state_of_the_optimizer():
    [case] = step.step_cases(STEP[:1], measuring.Options(), batch_size=3)
    floor, alone, ours = case.build()[:3]
    held = {}
    for side in (floor, alone, ours):
        side.run()
        held[side.name] = side.held()
    model = ours.run.func.__self__

    def size(module):
        tensors = (*module.parameters(), *module.buffers())
        return sum(t.numel() * t.element_size() for t in tensors)

    # Momentum is as large as what is learned.
    assert held['student alone'] == size(model.architecture) + 4 * alone.parameters
    # Mean and deviation of the images are a few bytes, which not all have.
    near = partial(pytest.approx, abs=100)
    assert held[floor.name] == near(held['student alone'] + size(model.teacher))
    ours_alone = size(model) - size(model.architecture)
    momentum = 4 * (ours.parameters - alone.parameters)
    assert held[ours.name] - held[floor.name] == near(ours_alone + momentum)
    # A teacher in the module tree, as mmrazor's, counts once.
    model.add_module('in_tree', model.teacher)
    assert ours.held() == held[ours.name]


def test_step_after_a_training_is_a_first_one(recwarn):
    """A notebook's hub tells of one that is over, and shorter than the warm-up."""
    hub = MessageHub.get_instance('a-training-before-the-benchmark')
    hub.update_info_dict(dict(iter=7, epoch=0, max_epochs=1))
    run('--suite', 'step', '--config', STEP[0], '--batch-size', '2')
    assert not [w for w in recwarn if 'warm-up' in str(w.message)]


def test_floor_runs_the_teacher_once():
    [case] = step.step_cases(STEP[:1], measuring.Options(), batch_size=2)
    floor, alone = case.build()[:2]
    calls = []
    model = floor.run.func.__self__
    [hook] = model._forward_pre_hooks.values()
    [teacher] = [
        cell.cell_contents
        for cell in hook.__closure__
        if isinstance(cell.cell_contents, torch.nn.Module)
    ]
    teacher.neck.register_forward_hook(lambda m, i, o: calls.append(o))
    floor.run()
    [output] = calls
    output = output[0] if isinstance(output, tuple) else output
    assert not output.requires_grad and not teacher.training
    assert alone.run.func.__self__ is not model
    alone.run()
    assert len(calls) == 1


def test_mixed_precision(tmp_path):
    """Features, and those of the naive layers too, are bfloat16 throughout."""
    seen = set()
    dtypes = lambda module, inputs, output: seen.add((inputs[0].dtype, output.dtype))  # noqa: E731
    path = str(tmp_path / 'amp.json')
    with torch.nn.modules.module.register_module_forward_hook(
        lambda m, i, o: (
            dtypes(m, i, o)
            if isinstance(m, (FrequencyAttention, naive.Float32))
            else None
        )
    ):
        run(
            *['--suite', 'layers', 'step', '--amp', 'bfloat16', '--batch-size', '2'],
            *['--only', 'Frequency.* 64 channels, 8 px|digits', '--json', path],
            *['--config', *STEP],
        )
    assert seen == {(torch.bfloat16, torch.bfloat16)}
    report = json.loads(Path(path).read_text())
    assert report['settings']['amp'] == 'bfloat16'
    assert len(sides_of(report, 'step', 'digits')) == 5


def test_configs_of_detectors():
    """Its images are not square, and its step is a real one, too."""
    pytest.importorskip('mmdet')
    [config] = suites.CONFIGS.glob('bccd/pkd_*.py')
    options = measuring.Options()
    [case] = step.step_cases([config], options, batch_size=2, image_size=60)
    size = {name: case.settings[name] for name in ('pixels', 'width')}
    assert size == dict(pixels=60, width=80) and 'batch 2, 60 x 80 px' in case.name
    floor, alone, pkd = case.build()
    assert floor.parameters == alone.parameters == pkd.parameters
    [data, optim_wrapper] = pkd.run.args
    assert data['inputs'][0].shape == (3, 60, 80)
    labels = torch.cat([s.gt_instances.labels for s in data['data_samples']])
    assert len(labels) == 16 and labels.max() < 3
    pkd.run()
    model = pkd.run.func.__self__
    for name, p in model.architecture.backbone.named_parameters():
        assert optim_wrapper.optimizer.state[p]['exp_avg'].any(), name


def test_step_of_neither_is_an_error():
    cfg = Config(dict(data_preprocessor=dict()))
    with pytest.raises(ValueError, match='Linear, has neither `head.num_classes` nor'):
        random_batch.random_batch(cfg, torch.nn.Linear(1, 1), 1, (8, 8), 'cpu')


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason='needs a GPU')
@pytest.mark.parametrize('amp', ['none', 'float16', 'bfloat16'])
def test_on_gpu(amp, tmp_path):
    path = str(tmp_path / 'gpu.json')
    only = ['--only', ONLY, '--config', *STEP, '--batch-size', '2']
    run('--device', 'cuda', '--amp', amp, '--json', path, *only)
    report = json.loads(Path(path).read_text())
    assert report['machine']['processor'] == torch.cuda.get_device_name()
    for case in all_cases(report):
        assert all(side['peak_bytes'] > 0 for side in case['sides']), case['name']


# Detection.


def detection_cases(**kwargs):
    pytest.importorskip('mmdet')
    from mmfakd.analysis.benchmark.detection import detection_cases

    return detection_cases(measuring.Options(), **kwargs)


def test_connectors_of_a_detector():
    """Maps of the strides 4 to 64 of 64 x 107 pixels, padded to 128."""
    connectors, step_of = detection_cases(height=64)
    assert 'R101-R50, batch 2, 64 x 107 px' in connectors.name
    assert step_of.name == connectors.name.replace('connectors', 'step')
    sides = {side.name: side.parameters for side in connectors.build()}
    assert list(sides) == ['FAM-KD', 'ReviewKD', 'FAM-KD, layer to layer']
    assert sides['ReviewKD'] == review_kd([256] * 5, mid=256)
    frequencies = [independent(modes) / 16 for modes in (16, 16, 16, 16, 12)]
    assert sides['FAM-KD'] == pyramid([256] * 5, frequencies)


def test_detection_is_a_suite_of_the_tool():
    pytest.importorskip('mmdet')
    with pytest.raises(SystemExit) as stopped:
        run('--suite', 'detection', '--only', 'neither')
    assert 'connectors of Faster R-CNN R101-R50, batch 2, 800 x 1333' in str(
        stopped.value
    )


@pytest.mark.matrix
def test_step_of_a_detector():
    """The student learns with the teacher beside it; then come the connectors."""
    _, case = detection_cases(batch_size=1, height=64)
    floor, *connectors = case.build()
    train_step, (data, _) = floor.run.func, floor.run.args
    assert [tuple(image.shape) for image in data['inputs']] == [(3, 64, 107)]
    losses = floor.run()
    assert {'loss_rpn_cls', 'loss_bbox'} <= set(losses)
    assert floor.name == step.FLOOR and len(connectors) == 3
    learned = train_step.__self__.parameters()
    assert floor.parameters == sum(p.numel() for p in learned if p.requires_grad)


# Growth.


def test_growth_covers_its_quantities():
    """Thirteen sizes on three lines that cross in the middle."""
    cases = suites.growth_cases(measuring.Options())
    assert len(cases) == len({case.name for case in cases}) == 13
    for quantity, values in suites.GROWTH.items():
        along = [c.settings for c in cases if quantity in c.settings['varied']]
        assert tuple(sorted(point[quantity] for point in along)) == values
        for other in set(suites.GROWTH) - {quantity}:
            assert len({point[other] for point in along}) == 1
    smaller = suites.growth_cases(measuring.Options(), batch_size=8)
    batches = {case.settings['batch'] for case in smaller}
    assert batches == {2, 4, 8, 16, 32}


def growing(quantity, values, power):
    """Cases of two sides whose cost grows with a power of the quantity."""

    def side(name, factor):
        seconds = [factor * value**power / 1e3 for value in values]
        return [
            dict(
                name=name,
                seconds=dict(median=s, q1=0.9 * s, q3=1.2 * s),
                peak_bytes=factor * 1000 * value,
            )
            for s, value in zip(seconds, values)
        ]

    return [
        {quantity: value, 'varied': [quantity], 'sides': list(sides)}
        for value, *sides in zip(values, side('FAM-KD', 3), side('ReviewKD', 1))
    ]


def test_exponents():
    """Cost ~ pixels ** 2; the table says so, whatever the order of the cases."""
    cases = growing('pixels', [32, 8, 16], power=2)
    lines = growth.growth_lines(cases)
    assert list(lines) == ['pixels']
    points = lines['pixels']['FAM-KD']
    assert [point['value'] for point in points] == [8, 16, 32]
    assert growth.exponent(points, 'seconds') == pytest.approx(2)
    assert growth.exponent(points, 'bytes') == pytest.approx(1)
    table = format_growth(cases).splitlines()
    assert table[2] == '| pixels | 16 to 32 | FAM-KD | 2.00 | 1.00 |'
    assert len(table) == 4 and format_growth(cases[:1]) == ''


def test_picture_of_growth():
    values = [8, 16, 32]
    cases = growing('pixels', values, power=2) + growing('batch', values[:2], power=1)
    figure = growth.draw_growth(cases)
    time, time_by_batch, memory, _ = figure.axes
    assert time.get_xscale() == time.get_yscale() == memory.get_yscale() == 'log'
    assert memory.get_xlabel() == 'height and width, pixels'
    assert [axis.get_ylabel() for axis in (time, memory)] == [
        'forward and backward, ms',
        'peak memory, MB',
    ]
    for axis, factor, power in ((time, 1, 2), (memory, 1e-3, 1)):
        for line, scale in zip(axis.lines, (3, 1)):
            assert list(line.get_xdata()) == values
            expected = [scale * factor * value**power for value in values]
            np.testing.assert_allclose(line.get_ydata(), expected)
        labels = [f'{name}, slope {power}.0' for name in ('FAM-KD', 'ReviewKD')]
        assert [line.get_label() for line in axis.lines] == labels
        written = {text.get_text(): text.get_color() for text in axis.texts}
        assert written == {line.get_label(): line.get_color() for line in axis.lines}
        looks = {(line.get_color(), line.get_marker()) for line in axis.lines}
        assert len(looks) == 2
    low, high = time.collections[0].get_paths()[0].get_extents().get_points()[:, 1]
    assert (low, high) == pytest.approx((0.9 * 3 * 8**2, 1.2 * 3 * 32**2))
    assert not memory.collections
    assert list(time_by_batch.lines[0].get_xdata()) == values[:2]


def test_measured_growth_is_drawn(measured):
    folder, report, text = measured
    lines = growth.growth_lines(report['suites']['growth'])
    assert {q: len(sides['FAM-KD']) for q, sides in lines.items()} == {
        'pixels': 2,
        'channels': 2,
    }
    assert format_growth(report['suites']['growth']) in text
    assert (folder / 'b.png').read_bytes().startswith(b'\x89PNG')


def test_one_size_is_no_line():
    with pytest.raises(ValueError, match='nothing to draw: a line needs two sizes'):
        growth.draw_growth(growing('pixels', [8], power=1))


# Refusals.


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        (['--only', 'Fourier'], 'fits none of the cases:\nFrequencyAttention, batch'),
        (['--suite', 'layers', '--plot', 'x.png'], '--suite and --only leave nothing'),
        (['--only', 'R56', '--plot', 'x.png'], '--suite and --only leave nothing'),
        (['--only', '('], 'unterminated subpattern'),
        (
            ['--suite', 'layers', 'limits', '--config', 'nowhere.py'],
            '--config has no effect on --suite layers limits: it is for step.',
        ),
        (['--suite', 'growth', '--cfg-options', 'a=1'], '--cfg-options has no effect'),
        (
            ['--suite', 'pyramid', '--image-size', '8'],
            'it is for step, detection, launches',
        ),
        (['--amp', 'float16'], 'no half precision but bfloat16'),
        (
            ['--config', str(DIGITS / 'r18w4_1xb50_digits.py')],
            'r18w4_1xb50_digits.py: its model, ImageClassifier, has no teacher',
        ),
        (['--config', 'nowhere.py'], 'nowhere.py'),
        (
            ['--suite', 'step', '--config', STEP[0], STEP_CONFIGS[0]],
            'fakd_review_r56_r20_1xb64_cifar100 has another student',
        ),
    ],
)
def test_refused_commands(arguments, message):
    with pytest.raises(SystemExit) as stopped:
        run('--batch-size', '2', *arguments)
    assert message in str(stopped.value)


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        (['--suite', 'speed'], "invalid choice: 'speed'"),
        (['--rounds', '0'], '0: expected a positive number'),
        (['--min-time', 'nan'], 'nan: expected seconds, 0 or more'),
        (['--min-time=-1'], '-1: expected seconds'),
        (['--min-time', '1e999'], '1e999: expected seconds'),
        (['--min-time', 'x'], 'x: expected seconds'),
    ],
)
def test_refused_options(arguments, message, capsys):
    with pytest.raises(SystemExit):
        run(*arguments)
    assert message in capsys.readouterr().err


def test_runs_in_any_folder(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    run('--suite', 'layers', '--only', 'Local.* 8 px', '-o', 'layers.json')
    report = json.loads(Path('layers.json').read_text())
    [case] = report['suites']['layers']
    assert [side['name'] for side in case['sides']] == ['mmfakd', 'naive']


@pytest.mark.parametrize(
    'layer',
    [
        FrequencyAttention(2, 2, modes=4),
        FrequencyAttention(2, 2, size=4, with_local=False),
        LocalCrossAttention(2, kernel_size=5),
    ],
)
def test_layers_without_a_naive_version(layer):
    assert not naive.has_naive_version(layer)
    with pytest.raises(ValueError, match='no naive version of .*Attention'):
        naive.naive_layer(layer)


def test_filters_of_modes_have_no_naive_side():
    transform = {'model.distiller.connector.transform.modes': 4}
    transform['model.distiller.connector.transform.type'] = 'mmfakd.FrequencyAttention'
    cases = step.step_cases(
        STEP[:1], measuring.Options(), batch_size=2, overrides=transform
    )
    names = [side.name for side in cases[0].build()]
    assert names == [step.FLOOR, 'student alone', Path(STEP[0]).stem]


def test_images_of_unknown_size(tmp_path):
    path = tmp_path / 'config.py'
    path.write_text(f'_base_ = {STEP[0]!r}\ntrain_pipeline = []\n')
    cfg = Config.fromfile(path)
    cfg.train_dataloader.dataset.dataset.pipeline = []
    cfg.dump(path)
    with pytest.raises(ValueError, match='config: its transforms say no size.*--image'):
        step.step_cases([path], measuring.Options())
    [case] = step.step_cases([path], measuring.Options(), image_size=6)
    assert case.settings['pixels'] == 6


def test_default_configs_are_there():
    """The step's and the pyramids' configs, and that a size is found in them."""
    names = {Path(path).name for path in STEP_CONFIGS}
    assert len(names) == 2
    [case] = step.step_cases(STEP_CONFIGS, measuring.Options())
    assert (case.settings['batch'], case.settings['pixels']) == (64, 32)
    for ours, review, _ in suites.PYRAMIDS.values():
        for path in (ours, review):
            assert (suites.CONFIGS / path).is_file()
