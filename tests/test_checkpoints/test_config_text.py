# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""Texts of configs are read as what they are, and never run."""

import ast
import sys
import tracemalloc
from pathlib import Path

import pytest
from mmengine.config import Config

from mmfakd.checkpoints.config_text import read_config_text
from mmfakd.compat.config_literals import find_risk
from mmfakd.compat.named_types import TYPE_KEYS

CONFIGS = Path(__file__).parents[2] / 'configs'
LEAVES = sorted(
    file
    for file in CONFIGS.rglob('*.py')
    if '_base_' not in file.relative_to(CONFIGS).parts
)


@pytest.mark.parametrize('path', LEAVES[::12], ids=lambda path: path.stem)
def test_shipped_config_is_read_as_it_is(path):
    check(path)


@pytest.mark.matrix
@pytest.mark.parametrize('path', LEAVES, ids=lambda path: path.stem)
def test_each_shipped_config_is_read_as_it_is(path):
    check(path)


def check(path):
    if path.parent.name in ('bccd', 'coco'):
        pytest.importorskip('mmdet')
    cfg = Config.fromfile(path)
    text = cfg.pretty_text
    assert read_config_text(text).to_dict() == cfg.to_dict()
    assert find_risk(text) is None


def test_all_that_pretty_text_writes():
    cfg = Config(
        dict(
            numbers=[1, -2, 0.5, -1e-3, 1e300, 2 + 3j, -1j, True, None],
            infinite=[float('inf'), -float('inf')],
            texts=['', "it's", 'a\nb', '\\', 'ü', b'\x00'],
            tuples=((), (1,), ((1, 2), [3])),
            sets=[{1}, set(), frozenset({2})],
            spans=[range(3), range(1, 9, 2), slice(None, 3)],
            dicts={'1x': 1, 'a-b': dict(c={2: dict()}), 'd': [dict(e=[{}])]},
            empty=dict(),
        )
    )
    text = cfg.pretty_text
    assert read_config_text(text).to_dict() == cfg.to_dict()
    assert str(read_config_text('a = nan')['a']) == 'nan'


@pytest.mark.parametrize(
    ('text', 'line', 'found'),
    [
        ('a = 1\nb = open("x")', 2, "open('x')"),
        ('import os', 1, 'import os'),
        ('a = 1\n\nprint()', 3, 'print()'),
        ('a = b = 1', 1, 'a = b = 1'),
        ('a.b = 1', 1, 'a.b = 1'),
        ('a = [1,\n x]', 2, 'x'),
        ('a = dict(b=dict(\nc=1 if x else 2))', 2, '1 if x else 2'),
        ('a = dict(**{"b": 1})', 1, "dict(**{'b': 1})"),
        ('a = {**b}', 1, '{**b}'),
        ('a = [*b]', 1, '*b'),
        ('a = list()', 1, 'list()'),
        ('a = set(range(9))', 1, 'set(range(9))'),
        ('a = frozenset(range(9))', 1, 'frozenset(range(9))'),
        ('a = dict([range(9)])', 1, 'dict([range(9)])'),
        ('a = tuple(range(9))', 1, 'tuple(range(9))'),
        ('a = [*range(9)]', 1, '*range(9)'),
        ('a = dict.fromkeys([1])', 1, 'dict.fromkeys([1])'),
        ('a = (dict)(b=1).c', 1, 'dict(b=1).c'),
        ('a = range(stop=1)', 1, 'range(stop=1)'),
        ('a = f"{1}"', 1, "f'{1}'"),
        ('a = 1 + 1', 1, '1 + 1'),
        ('a = 9 ** 9 ** 9', 1, '9 ** 9 ** 9'),
        ('a = "x" * 10', 1, "'x' * 10"),
        ('a = -"x"', 1, "-'x'"),
        ('a = not 1', 1, 'not 1'),
        ('a = (b := 1)', 1, '(b := 1)'),
        ('a = [i for i in b]', 1, '[i for i in b]'),
        ('def f(): pass', 1, 'def f():'),
        ('a: int = 1', 1, 'a: int = 1'),
        ('a += 1', 1, 'a += 1'),
        ('a = 1 if b else 2', 1, '1 if b else 2'),
        ('class A: pass', 1, 'class A:'),
    ],
)
def test_error_names_line_and_what_is_there(text, line, found):
    with pytest.raises(ValueError) as error:
        read_config_text(text)
    message = str(error.value)
    assert f'line {line} has {found!r}'[:-1] in message
    assert 'literals and dict(...) calls' in message
    assert find_risk(text) == message


@pytest.mark.parametrize(
    'text',
    [
        'a = ' + '(' * 5000 + ')' * 5000,
        'a = ' + '[' * 150 + ']' * 150 + '\nb = ' + '-' * 20000 + '1',
        'a = ' + '1+' * 20000 + '1',
        'a = b' + '.c' * 20000,
        'a = ' + 'dict(a=' * 90 + '()' * 20000 + ')' * 90,
        'a = "\x00"',
        'a = (',
        'a = {[]: 1}',
        'a = {{}}',
        'a = ' + '9' * 5000,
        'a = dict(1)',
        'a = range("x")',
        'filename = 1',
        'pretty_text = 1',
    ],
    ids=lambda text: ascii(text[:16]),
)
def test_whatever_stands_there_is_an_ordinary_error(text):
    with pytest.raises(ValueError, match='This is no text of a config'):
        read_config_text(text)


def test_a_short_text_takes_little_memory():
    tracemalloc.start()
    try:
        for text in ('set(range(N))', 'frozenset(range(N))', 'dict([range(N)])'):
            with pytest.raises(ValueError, match='This is no text of a config'):
                read_config_text(f'a = {text.replace("N", "5000000")}')
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 5e6


@pytest.mark.parametrize(
    'deep',
    [
        *('-' * 20_000 + '1', '1+' * 20_000 + '1', 'not ' * 20_000 + '1'),
        # The parser takes these, and the stack does not hold them.
        *('1' + '+1' * 200_000, 'b' + '.c' * 200_000, 'b' + '()' * 200_000),
    ],
    ids=lambda deep: f'{deep[:4]} {len(deep)}',
)
def test_depth_does_not_hang_on_the_limit_of_python(deep):
    """mmrazor sets it to a million levels, and Python 3.9 crashes long before."""
    before = sys.getrecursionlimit()
    sys.setrecursionlimit(2**20)
    try:
        with pytest.raises(ValueError, match='nested too deeply'):
            read_config_text('a = ' + deep)
    finally:
        sys.setrecursionlimit(before)
    assert read_config_text('a = ' + 'dict(a=' * 60 + '1' + ')' * 60)


@pytest.mark.parametrize(
    ('text', 'reason'),
    [
        ("_base_ = ['a.py']", 'inherits another file'),
        ("a = '{{ fileDirname }}'", 'template'),
        ("custom_imports = dict(imports='antigravity')", "imports 'antigravity'"),
        ("custom_imports = dict(imports=['mmdet', 'this'])", "imports 'this'"),
        ("custom_imports = ['os', 7]", "imports '7'"),
        ("model = dict(a=[(dict(type='os.system'),)])", "type='os.system'"),
        ("model = dict(type='torch.hub.load')", 'torch.hub.load'),
        ("model = dict(type='mmengine.load')", 'mmengine.load'),
        ("model = dict(type='mmengine.utils.call_command')", 'call_command'),
        ("model = dict(type='builtins.eval')", 'builtins.eval'),
        ("model = dict(type='mmpretrain.get_model', model='evil.py')", 'get_model'),
        ("model = dict(type='mmdet.apis.DetInferencer', model='evil.py')", 'DetInf'),
        ("model = dict(type='mmpretrain.ImageClassificationInferencer')", 'Inferencer'),
        ("model = dict(type='mmengine.logging.MMLogger', log_file='a')", 'MMLogger'),
        ("model = dict(type='mmengine.runner.Runner')", 'Runner'),
        ("model = dict(type='mmstranger.Net')", 'mmstranger.Net'),
        ("model = dict(backbone=dict(type='antigravity'))", 'name of a module'),
        ("model = dict(type='__main__')", 'name of a module'),
        ("model = dict(type='mmpretrain.this.Net')", "imports 'this'"),
        ("model = dict(_scope_='antigravity')", "scope 'antigravity' is a module"),
        ("default_scope = 'antigravity.x'", "scope 'antigravity.x' is a module"),
        ("a = dict(type='mmengine.fileio.LocalBackend')", 'reads files'),
        ("a = dict(type='mmengine.MemcachedBackend')", 'reads files'),
        ("a = dict(backend_args=dict(sys_path='.'))", 'imports from a folder'),
        ("model = dict(type='mmengine.model.base_module.FileHandler')", 'is logging.F'),
        ("model = dict(type='mmengine.utils.progressbar.Pool')", 'BaseContext.Pool'),
        ("model = dict(type='mmpretrain.ModelHub')", 'is mmpretrain.apis.model.Mod'),
        ("model = dict(type='torch.nn.modules.module.OrderedDict')", 'is collections.'),
        (
            "model = dict(type='mmengine.dataset.utils.torch_default_collate')",
            'torch.u',
        ),
        ("model = dict(type='mmengine.runner.checkpoint.FileClient')", 'reads files'),
        ("model = dict(type='mmpretrain.models.multimodal.ram.gradio_demo.A')", 'none'),
        ("model = dict(type='mmpretrain.datasets.CustomDataset')", 'is a data set'),
        ("model = dict(type='mmengine.dataset.RepeatDataset')", 'is a data set'),
        ("test_pipeline = dict(type='mmpretrain.datasets.CIFAR10')", 'is a data set'),
        # Metrics remove and write what their arguments name.
        ("model = dict(type='mmdet.evaluation.CityScapesMetric')", 'is nothing that m'),
        (
            "data_preprocessor = dict(type='mmdet.evaluation.DumpProposals')",
            'is nothing that mod',
        ),
        ("visualizer = dict(type='mmengine.evaluator.DumpResults')", 'is nothing that'),
        ("vis_backends = [dict(type='mmengine.hooks.EMAHook')]", 'is nothing that mod'),
        (
            "tta_model = dict(type='mmdet.evaluation.CocoMetric')",
            'is nothing that models, dat',
        ),
        ("dataset = dict(type='mmdet.evaluation.CocoMetric')", 'is nothing that model'),
        (
            "pipeline = dict(resize_type='mmengine.runner.EpochBasedTrainLoop')",
            "its resize_type='mmengine.runner.EpochBasedTrainLoop' is nothing that",
        ),
        ("model = dict(head=dict(answer_list_path='a.pkl'))", "path='a.pkl' is of a"),
        ("model = dict(fix_subnet='a.yaml')", "fix_subnet='a.yaml' is of a format"),
        ("model = dict(answer_list_path='yml')", "answer_list_path='yml' is of a"),
        ("test_pipeline = [dict(decode_backend='pickle')]", "='pickle' is of a format"),
        ("a = dict(ann_file='http://a.org/a.pkl')", "a.pkl' is of a format"),
        ("a = dict(dataset=dict(extra_ann_file='a.pkl'))", "a.pkl' is of a format"),
        ("model = dict(prototype=dict(split_file='a'))", 'unpickles a file'),
        ('model = dict(a=dict(trust_remote_code=True))', 'trust_remote_code'),
        ("a = [dict(dtype='hub.load()')]", "dtype='hub.load()' would be executed"),
        ("a = dict(nms=dict(type='len(x)'))", "type='len(x)' would be executed"),
        ("a = dict(warp_mode='eval')", "warp_mode='eval' would be executed"),
        ("a = dict(search_op='a()')", "search_op='a()' would be executed"),
        ('model = {"a\']": 1}', 'its key "a\']" would be executed'),
        (
            "model = dict(act_cfg_list=['ReLU', ['os.abort']])",
            "its act_cfg_list='os.abort' is none of",
        ),
        (
            "a = dict(type='MethodOutputs', source='antigravity.A.b')",
            "imports a module to find 'antigravity.A.b'",
        ),
        (
            "a = dict(source='this.f', type='mmrazor.FunctionInputsRecorder')",
            "imports a module to find 'this.f'",
        ),
        ("a = dict(type='MethodOutputs', method_path='this.A.b')", "find 'this.A.b'"),
        ("a = dict(type='FunctionOutputs', func_path='this.f')", "find 'this.f'"),
        ("a = dict(tracer=dict(skipped_methods=['this.A.b']))", "find 'this.A.b'"),
        ("a = dict(no_observer_modules=('this.A',))", "find 'this.A'"),
    ],
)
def test_plain_values_that_would_run(text, reason):
    """MMEngine follows, imports or calls what they name."""
    ast.parse(text)
    assert reason in find_risk(text)


@pytest.mark.parametrize('key', TYPE_KEYS)
def test_each_key_that_registries_look_for(key):
    """Of a name without dots a module is imported; one with dots is called."""
    module = find_risk(f"model = dict(a=[dict({key}='antigravity')])")
    assert f"its {key}='antigravity' is the name of a module" in module
    called = find_risk(f"model = dict({key}='os.system')")
    assert f"its {key}='os.system' is none of" in called
    assert find_risk(f"model = dict({key}='BN', b=dict({key}=None))") is None


@pytest.mark.parametrize(
    'text',
    [
        "custom_imports = dict(imports=['mmfakd', 'mmpretrain.models', 'json'])",
        'custom_imports = None',
        'custom_imports = dict(allow_failed_imports=False)',
        "model = dict(type='mmdet.ResNet', norm_cfg=dict(type='BN'))",
        "model = dict(type='mmdet.models.backbones.resnet.ResNet')",
        "dataset = dict(type='mmdet.iSAIDDataset')",
        # As Python's own library has a module of that name.
        "log = dict(type='mmengine.logging.MessageHub')",
        "hook = dict(type='mmengine.hooks.logger_hook.LoggerHook')",
        "vis = [dict(type='mmengine.visualization.LocalVisBackend')]",
        "vis_backends = [dict(type='mmengine.LocalVisBackend')]",
        "model = dict(type='mmrazor.registry.sub_model')",
        "pipeline = [dict(type='mmpretrain.torchvision/Resize', size=9)]",
        "auto_wrap = dict(type='torch.distributed.fsdp.wrap.always_wrap_policy')",
        "train_cfg = dict(type='mmengine.runner.EpochBasedTrainLoop')",
        "collate_fn = dict(type='mmengine.dataset.utils.pseudo_collate')",
        "model = dict(type='mmrazor.sub_model', cfg=dict(type='torch.nn.ReLU'))",
        "optimizer = dict(type='torch.optim.sgd.SGD')",
        "default_scope = 'mmdet'; model = dict(_scope_='mmpretrain')",
        'default_scope = None',
        # A registry of a user's own, which is no module.
        "default_scope = 'the_scope_of_somebody'",
        "model = dict(init_cfg=dict(type='Pretrained', checkpoint='R-50.pkl'))",
        "data = dict(dataset=dict(ann_file='a.pkl', proposal_file='b.pkl'))",
        "test_evaluator = dict(type='DumpResults', out_file_path='results.pkl')",
        "data = dict(dataset=dict(ann_file='s3://data/a.json'))",
        "data = dict(type='mmdet.datasets.coco.CocoDataset')",
        "dataset = dict(type='mmdet.datasets.CocoDataset', pipeline=[dict(type='A')])",
        "dataset = dict(dataset=dict(type='mmpretrain.datasets.CIFAR10'))",
        "test_evaluator = [dict(type='mmdet.evaluation.CityScapesMetric')]",
        "train_cfg = dict(augments=dict(type='mmpretrain.models.utils.Mixup'))",
        "model = dict(train_cfg=dict(augments=dict(type='mmpretrain.Mixup')))",
        "visualizer = dict(type='mmdet.visualization.DetLocalVisualizer')",
        "train_pipeline = [dict(type='mmdet.datasets.transforms.Resize')]",
        # As MMEngine dumps what configs in pure Python import.
        "pipeline = [dict(type='mmpretrain.datasets.PackInputs')]",
        "pipeline = [dict(type='mmpretrain.datasets.LoadImageFromFile')]",
        "test_pipeline = [dict(type='mmdet.datasets.PackDetInputs')]",
        "test_pipeline = [dict(type='mmseg.datasets.PackSegInputs')]",
        "pipeline = dict(type='mmengine.dataset.Compose')",
        "model = dict(type='mmpretrain.models.ImageClassifier')",
        "sampler = dict(type='mmengine.dataset.DefaultSampler')",
        "collate_fn = dict(type='mmengine.dataset.default_collate')",
        "norm_cfg = dict(type='torch.nn.modules.batchnorm.BatchNorm2d')",
        "model = dict(type='torch.nn.quantized.Linear')",
        # Libraries that are not installed: nothing can be built from them.
        "model = dict(type='mmocr.models.textdet.DBNet')",
        "test_pipeline = [dict(type='mmaction.datasets.SampleFrames')]",
        # Names that a library does not have: those of a later version.
        "model = dict(type='mmpretrain.models.backbones.LaterNet')",
        "model = dict(conv=dict(padding_mode='reflect'), resize_type='Resize')",
        "train_pipeline = [dict(resize_type='mmdet.Resize')]",
        "model = dict(type='TIMMBackbone', norm_layer='torch.nn.BatchNorm2d')",
        "optim_wrapper = dict(constructor='mmrazor.SeparateOptimWrapperConstructor')",
        "custom_hooks = [dict(type='EMAHook', ema_type='ExpMomentumEMA')]",
        "pipeline = [dict(type='torchvision/ConvertImageDtype', dtype='float32')]",
        'optim_wrapper = dict(paramwise_cfg=dict(custom_keys={"a\'b": 1}))',
        "model = dict(test_cfg=dict(nms=dict(type='soft_nms', iou_threshold=0.5)))",
        "model = dict(tracker=dict(motion=dict(warp_mode='cv2.MOTION_EUCLIDEAN')))",
        "model = dict(act_cfg_list=['ReLU', 'mmpretrain.HSwish'])",
        # A module of a model, not of Python.
        "a = dict(type='ModuleOutputs', source='this.layer4')",
        "a = dict(type='MethodOutputs', source='mmdet.models.FPN.forward')",
        "a = dict(type='FunctionOutputs', func_path='torch.nn.functional.relu')",
        "tracer = dict(skipped_methods=['mmpretrain.models.ClsHead._get_loss'])",
    ],
)
def test_what_configs_of_the_libraries_name(text):
    assert find_risk(text) is None
