# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""Users' configs inherit every shipped one, and MMEngine's hub builds them."""

import functools
import pickle
import re
from pathlib import Path

import mmengine
import mmengine.config.utils
import mmengine.hub
import pytest
import torch
from mmengine import registry
from mmengine.config import Config
from mmengine.hub import get_config, get_model
from mmengine.registry import MODELS, DefaultScope
from mmengine.runner import Runner

from mmfakd.compat import load_checkpoint_file
from mmfakd.model_zoo.find import package_folder
from mmfakd.model_zoo.inheritance import own_config
from mmfakd.model_zoo.resolve import resolve_model_cfg

FOLDER = package_folder('mmfakd') / 'configs'
LEAVES = sorted(str(p.relative_to(FOLDER)) for p in (FOLDER / 'fakd').rglob('*.py'))
DIGITS = [leaf for leaf in LEAVES if '/digits/' in leaf]
TEACHER = 'fakd/digits/r18w32_1xb50_digits.py'
STUDENT = 'fakd/digits/r18w4_1xb50_digits.py'
REVIEW = 'fakd/digits/fakd_review_r18w32_r18w4_1xb50_digits.py'
# One of each folder and library, alone and distilled; the others are as they are.
BUILT = {
    STUDENT,
    REVIEW,
    'fakd/cifar100/wrn40-2_1xb64_cifar100.py',
    'fakd/cifar100/fitnet_r56_r20_1xb64_cifar100.py',
    'fakd/cifar100/dkd_r32x4_shuv1_1xb64_cifar100.py',
    'fakd/imagenet/r18_8xb32_in1k.py',
    'fakd/bccd/gfl_r18w16_1xb8_bccd.py',
    'fakd/coco/pkd_gfl_r101_r50_8xb2_coco.py',
}
# And with `-m matrix` every one.
EVERY, EPOCHS = (
    [pytest.param(x, marks=() if x in few else pytest.mark.matrix) for x in leaves]
    for leaves, few in ((LEAVES, BUILT), (DIGITS, (STUDENT, REVIEW)))
)
# The libraries have nothing in these, and functions are not built.
NO_REGISTRY = ('FUNCTIONS', 'INFERENCERS', 'STRATEGIES')
REGISTRIES = [
    value
    for name, value in vars(registry).items()
    if isinstance(value, registry.Registry) and name not in NO_REGISTRY
]
FUNCTIONS = {'default_collate', 'nms', 'soft_nms', 'RoIAlign'}


def write(folder, text, name='config.py'):
    (folder / name).write_text(text)
    return folder / name


def inherit(folder, leaf, text=''):
    """A user's config, read."""
    return Config.fromfile(write(folder, f"_base_ = 'mmfakd::{leaf}'\n{text}"))


def without_scopes(cfg):
    if isinstance(cfg, dict):
        return {k: without_scopes(v) for k, v in cfg.items() if k != '_scope_'}
    if isinstance(cfg, (list, tuple)):
        return type(cfg)(map(without_scopes, cfg))
    return cfg


def typed(cfg, scope):
    """Yield scope and type of all that is built from a config."""
    if isinstance(cfg, dict):
        scope = cfg.get('_scope_') or scope
        if isinstance(cfg.get('type'), str):
            yield scope, cfg['type']
        for value in cfg.values():
            yield from typed(value, scope)
    elif isinstance(cfg, (list, tuple)):
        for value in cfg:
            yield from typed(value, scope)


@functools.cache
def is_known(scope, kind):
    if kind in FUNCTIONS or registry.FUNCTIONS.get(kind) is not None:
        return True
    for one in REGISTRIES:
        with one.switch_scope_and_registry(scope) as found:
            if found.get(kind) is not None:
                return True
    # A recorder's and a delivery's type lack what mmrazor writes behind them.
    return kind.startswith('mmrazor.') and any(
        registry.TASK_UTILS.get(kind + ending) for ending in ('Recorder', 'Delivery')
    )


@pytest.fixture(scope='module', autouse=True)
def files_once():
    """MMEngine reads each base, and all metafiles of its package, for each heir."""
    read, known = Config._file2dict, {}

    def read_once(filename, *args, **kwargs):
        if not {'_base_', 'mmpretrain', 'mmdet'} & set(Path(filename).parts):
            return read(filename, *args, **kwargs)
        if filename not in known:
            known[filename] = pickle.dumps(read(filename, *args, **kwargs))
        return pickle.loads(known[filename])

    with pytest.MonkeyPatch.context() as patch:
        load = functools.cache(mmengine.config.utils.load)
        patch.setattr(mmengine.config.utils, 'load', load)
        patch.setattr(Config, '_file2dict', staticmethod(read_once))
        yield


def test_every_config_is_inherited_with_known_types(tmp_path):
    assert len(LEAVES) > 200
    unknown = set()
    for leaf in LEAVES:
        cfg = inherit(tmp_path, leaf, 'work_dir = "elsewhere"\n')
        assert cfg.default_scope in ('mmpretrain', 'mmdet'), leaf
        found = set(typed(cfg._cfg_dict.to_dict(), None))
        assert not {kind for scope, kind in found if scope == 'mmfakd'}, leaf
        # Under the scope that is written alone, whatever the user's default is.
        unknown |= {
            (scope or cfg.default_scope, kind)
            for scope, kind in found
            if not is_known(scope or cfg.default_scope, kind)
        }
    assert unknown == set()


@pytest.mark.parametrize('leaf', EVERY)
def test_it_builds_through_both_doors(leaf, tmp_path):
    through_hub = get_model(f'mmfakd::{leaf}')
    cfg = inherit(tmp_path, leaf)
    direct = Config.fromfile(FOLDER / leaf)
    assert without_scopes(cfg._cfg_dict) == without_scopes(direct._cfg_dict)
    # As a user builds it whose own default scope is another.
    with DefaultScope.overwrite_default_scope('mmengine'):
        built = MODELS.build(cfg.model)
    shapes = [
        {name: value.shape for name, value in model.state_dict().items()}
        for model in (through_hub, built)
    ]
    assert type(through_hub) is type(built)
    assert {k: v for k, v in shapes[0].items() if 'data_preprocessor' not in k} == {
        k: v for k, v in shapes[1].items() if 'data_preprocessor' not in k
    }


def train(cfg, folder, **options):
    cfg.merge_from_dict({'train_cfg.max_epochs': 1, 'log_level': 'ERROR', **options})
    cfg.work_dir = str(folder)
    cfg.experiment_name = str(folder)
    runner = Runner.from_cfg(cfg)
    runner.train()
    return runner


@pytest.fixture(scope='module')
def teacher(tmp_path_factory):
    """Weights that a teacher starts with: its own epoch is another test."""
    path = tmp_path_factory.mktemp('teacher') / 'teacher.pth'
    torch.save(get_model(f'mmfakd::{TEACHER}').state_dict(), path)
    return path


@pytest.mark.parametrize('leaf', EPOCHS)
def test_it_trains_an_epoch(leaf, teacher, tmp_path):
    cfg = inherit(tmp_path, leaf)
    distilled = leaf not in (TEACHER, STUDENT)
    options = {'model.teacher_ckpt': str(teacher)} if distilled else {}
    runner = train(cfg, tmp_path / 'run', **options)
    scores = runner.message_hub.get_scalar('val/accuracy/top1').data[0]
    assert scores[-1] > 5
    assert (tmp_path / 'run' / 'epoch_1.pth').is_file()
    if distilled:
        assert (tmp_path / 'run' / 'epoch_1_student.pth').is_file()


def test_parts_are_overridden_deleted_and_referred_to(tmp_path):
    base = 'mmfakd::fakd/digits/reviewkd_r18w32_r18w4_1xb50_digits.py'
    write(tmp_path, f"_base_ = '{base}'\nname = 'mine'\n", 'first.py')
    write(tmp_path, "other_visualizer = dict(type='Visualizer')\n", 'second.py')
    path = write(
        tmp_path,
        """
_base_ = ['./first.py', './second.py']
model = dict(
    architecture=dict(head=dict(topk=(1, 3))),
    distiller=dict(
        connector=dict(fusion=dict(_delete_=True, type='mmfakd.LocalCrossAttention')),
        level_loss=dict(_delete_=True, type='mmfakd.FFTFeatureLoss'),
    ),
)
train_pipeline = [dict(type='mmpretrain.PackInputs')]
train_dataloader = dict(
    batch_size=10,
    dataset=dict(dataset=dict(pipeline=train_pipeline)),
    sampler=dict(_delete_=True, type='mmengine.InfiniteSampler'),
)
val_dataloader = {{_base_.test_dataloader}}
custom_hooks = [dict(type='EMAHook', momentum=0.01)]
alone = _base_.student_model
alone.update(train_cfg=None)
""",
    )
    cfg = Config.fromfile(path)
    assert cfg.name == 'mine' and cfg.model._scope_ == 'mmpretrain'
    assert cfg.train_dataloader.sampler == dict(type='mmengine.InfiniteSampler')
    assert cfg.model.architecture.head.topk == (1, 3)
    fusion = dict(type='mmfakd.LocalCrossAttention')
    assert cfg.model.distiller.connector.fusion == fusion
    with DefaultScope.overwrite_default_scope('mmdet'):
        model = MODELS.build(cfg.model)
        assert type(MODELS.build(cfg.alone)).__name__ == 'ImageClassifier'
    assert 'FFTFeatureLoss' in str(model.distiller)


def test_scope_is_that_of_the_inherited_config(tmp_path):
    """In another library's config a part of each keeps its own."""
    path = write(
        tmp_path,
        """
_base_ = ['mmfakd::fakd/bccd/gfl_r18w16_1xb8_bccd.py']
classifier = dict(cfg_path='mmfakd::fakd/digits/r18w4_1xb50_digits.py')
""",
    )
    cfg = Config.fromfile(path)
    assert cfg.default_scope == cfg.model._scope_ == 'mmdet'
    with DefaultScope.overwrite_default_scope('mmdet'):
        classifier = MODELS.build(resolve_model_cfg(cfg.classifier)[0])
    assert type(classifier).__module__.startswith('mmpretrain.')


def test_parts_take_the_scope_of_the_user(tmp_path):
    path = write(
        tmp_path,
        """
_base_ = ['mmfakd::_base_/models/digits_pair.py', 'mmfakd::_base_/schedules/digits.py']
default_scope = 'mmpretrain'
model = {{_base_.student_model}}
""",
    )
    cfg = Config.fromfile(path)
    assert not cfg.model.get('_scope_')
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        assert type(MODELS.build(cfg.model)).__name__ == 'ImageClassifier'


@pytest.mark.parametrize(
    'name', ['r20_1xb64_cifar100', 'fakd/cifar100/R20_1xb64_cifar100']
)
def test_short_names(name, tmp_path):
    cfg = inherit(tmp_path, name)
    assert cfg.model.backbone == get_config(f'mmfakd::{name}').model.backbone
    assert own_config(f'mmfakd::{name}').endswith('fakd/cifar100/r20_1xb64_cifar100.py')


@pytest.mark.parametrize(
    'read', [inherit, lambda _, leaf: get_config(f'mmfakd::{leaf}')]
)
def test_wrong_names_list_near_ones(read, tmp_path):
    with pytest.raises(FileNotFoundError, match=f'Near names: {STUDENT}, '):
        read(tmp_path, 'fakd/digits/r18w5_1xb50_digits.py')


def test_weights_that_nobody_published():
    name = 'mmfakd::fakd/cifar100/vgg8_1xb64_cifar100.py'
    for door in (get_config, get_model):
        with pytest.raises(ValueError, match=f"'{name}' has no weights .*train"):
            door(name, pretrained=True)
    with pytest.raises(ValueError, match='cfg_path=.* has no weights in the metafiles'):
        resolve_model_cfg(dict(cfg_path=name, pretrained=True))


@pytest.mark.parametrize('leaf', [STUDENT, TEACHER])
def test_published_weights(leaf, no_network):
    """In the hub, and beside `cfg_path`; of a distillation those of its student."""
    file = Path(get_config(f'mmfakd::{leaf}', pretrained=True).model_path)
    assert file.parent == FOLDER.resolve().parent / 'weights'
    weights = load_checkpoint_file(str(file))['state_dict']
    model = get_model(f'mmfakd::{leaf}', pretrained=True)
    for key, value in model.state_dict().items():
        assert torch.equal(value, weights[key].to(value.dtype))
    given = resolve_model_cfg(dict(cfg_path=f'mmfakd::{leaf}', pretrained=True))
    assert given[1] == str(file)


def test_published_weights_of_a_distillation(no_network):
    leaf = 'fakd/digits/fakd_layer_r18w32_r18w4_1xb50_digits.py'
    model = get_model(f'mmfakd::{leaf}', pretrained=True)
    file = get_config(f'mmfakd::{leaf}', pretrained=True).model_path
    weights = load_checkpoint_file(file)['state_dict']
    for key, value in model.architecture.state_dict().items():
        assert torch.equal(value, weights[key].to(value.dtype))


@pytest.mark.parametrize(
    'algorithm', ['mmrazor.SingleTeacherDistill', 'mmfakd.FeatureDistill']
)
def test_cfg_path(algorithm):
    """mmrazor asks MMEngine's hub, mmfakd does it itself."""
    cfg = Config.fromfile(FOLDER / 'fakd/digits/kd_r18w32_r18w4_1xb50_digits.py').model
    cfg.type = algorithm
    cfg.teacher_ckpt = None
    cfg.architecture = dict(cfg_path=f'mmfakd::{STUDENT}')
    cfg.teacher = dict(cfg_path=f'mmfakd::{TEACHER}')
    with DefaultScope.overwrite_default_scope('mmrazor'):
        model = MODELS.build(cfg)
    for part in (model.architecture, model.teacher):
        assert type(part).__module__.startswith('mmpretrain.')


LAZY = """
from mmengine.config import read_base
from torch.optim import AdamW

with read_base():
    from mmfakd.configs.{module} import *
    from mmfakd.configs.fakd.cifar100.wrn40_2_1xb64_cifar100 import model as wide

model.merge(dict(architecture=dict(head=dict(topk=(1, 2)))))
optim_wrapper.merge(dict(optimizer=dict(_delete_=True, type=AdamW, lr=0.001)))
train_dataloader.merge(dict(batch_size=25, dataset=dict(times=3)))
"""


def test_pure_python_configs(teacher, tmp_path):
    module = REVIEW.removesuffix('.py').replace('/', '.')
    path = write(tmp_path, LAZY.format(module=module))
    cfg = Config.fromfile(path)
    assert cfg.wide.backbone.depth == 40
    assert cfg.model._scope_ == cfg.wide._scope_ == 'mmpretrain'
    runner = train(cfg, tmp_path / 'run', **{'model.teacher_ckpt': str(teacher)})
    assert isinstance(runner.optim_wrapper.optimizer, torch.optim.AdamW)
    # What the run has dumped is a config again.
    dumped = Config.fromfile(tmp_path / 'run' / 'config.py')
    assert dumped.model.architecture.head.topk == (1, 2)


def test_every_config_has_a_module_of_its_own(tmp_path):
    names = [re.sub(r'\W', '_', leaf.removesuffix('.py')) for leaf in LEAVES]
    assert len(set(names)) == len(LEAVES)
    wrong = 'fakd.cifar100.wrn40_3_1xb64_cifar100'
    path = write(tmp_path, LAZY.format(module=wrong))
    with pytest.raises(FileNotFoundError, match='.configs.fakd.cifar100.wrn40_2_1xb64'):
        Config.fromfile(path)


def test_shipped_configs_inherit_no_package_but_the_libraries():
    """An inherited config is found from wherever mmfakd is, and once."""
    for path in FOLDER.rglob('*.py'):
        packages = re.findall(r"'(\w+)::", path.read_text())
        assert set(packages) <= {'mmpretrain', 'mmdet'}, path
    assert Path(mmengine.__file__).parent not in FOLDER.parents


def test_doors_of_other_packages_are_as_before(tmp_path):
    cfg = get_config('mmpretrain::resnet/resnet18_8xb32_in1k.py', pretrained=True)
    assert cfg.model_path.endswith('.pth') and '_scope_' not in cfg.model
    path = write(tmp_path, "_base_ = 'mmpretrain::resnet/resnet18_8xb32_in1k.py'\n")
    assert Config.fromfile(path).model._scope_ == 'mmpretrain'
