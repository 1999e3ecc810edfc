# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""Every snippet of Python in the documents is run, here or in a test of its page.

A config is read and its model built; a part of one is built for what it is; a script
runs on what a training of digits has left.
"""

import re
import shlex
import sys
from inspect import signature
from pathlib import Path
from textwrap import dedent

import mmpretrain
import pytest
import torch
from mmengine.config import Config, ConfigDict
from mmengine.hooks import Hook
from mmengine.optim import OptimWrapper, build_optim_wrapper
from mmengine.registry import init_default_scope

from mmfakd.analysis.count_parameters import count_parameters
from mmfakd.cli import main
from mmfakd.model_zoo.find import config_file
from mmfakd.models.algorithms import FeatureDistill
from mmfakd.registry import HOOKS, MODELS
from tests.helpers.token_models import vit_classifier
from tests.helpers.toy import feature_distill, review_distiller
from tests.test_docs import DOCUMENTS

REPOSITORY = Path(__file__).resolve().parents[1]
# Pages whose snippets build on each other, and the tests that run all of them.
ELSEWHERE = {
    'docs/en/detector.md': 'test_own_data.py',
    'docs/en/export.md': 'test_export/test_snippets.py',
    'docs/en/pictures.md': 'test_engine/test_hooks/test_learning_pictures_hook.py',
    'docs/en/image_folder.md': 'test_own_data.py',
    'docs/en/own_backbone.md': 'test_own_data.py',
    'docs/en/own_data.md': 'test_own_data.py',
    'docs/en/label_free.md': 'test_label_free_recipe.py',
    'docs/en/model_zoo.md': 'test_checkpoints/test_published_file.py',
    'docs/en/plain_pytorch.md': 'test_plain/test_documents.py',
}
# Beginnings of single snippets -> what runs them.
SINGLE = {
    'import mmfakd, torch, torchvision': 'test_plain/test_documents.py',
    '# detect_cells.py': 'test_checkpoints/test_student_detector.py',
    '# my_losses.py': 'test_snippets.py',
    '# my_pair.py': 'test_snippets.py',
    'from mmseg.apis import MMSegInferencer': 'test_segmentation.py',
}
# What parts of configs leave out, as `...` says.
NECESSARY = {
    'mmfakd.ReviewConnector': dict(in_channels=[4, 8], out_channels=[8, 8]),
    'mmfakd.ReviewDistiller': dict(
        student_levels=['a', 'b'],
        teacher_levels=['a', 'b'],
        connector=dict(
            type='mmfakd.ReviewConnector', in_channels=[4, 8], out_channels=[8, 8]
        ),
    ),
}


def snippets():
    """Snippets that have no test of their own: document and code."""
    for document in DOCUMENTS:
        text = (REPOSITORY / document).read_text()
        if document in ELSEWHERE:
            continue
        for code in re.findall(
            r'^ *```python\n(.*?)^ *```', text, re.MULTILINE | re.DOTALL
        ):
            code = dedent(code)
            if not code.startswith(tuple(SINGLE)):
                yield pytest.param(document, code, id=f'{document}-{code[:20]!r}')


@pytest.fixture(scope='module')
def digits(tmp_path_factory):
    """The three trainings of the first page, an epoch each, and their folder."""
    folder = tmp_path_factory.mktemp('digits')
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        for command in first_page('train'):
            options = ['--teacher-ckpt', TEACHER] if 'fakd' in command else []
            main([*command.split(), *options, *SHORT])
    return folder


TEACHER = 'work_dirs/r18w32_1xb50_digits/epoch_1.pth'
SHORT = [
    '--cfg-options',
    'train_cfg.max_epochs=1',
    'train_dataloader.dataset.times=1',
    'train_dataloader.num_workers=0',
    'train_dataloader.persistent_workers=False',
    'val_dataloader.num_workers=0',
    'val_dataloader.persistent_workers=False',
]


def first_page(command, name='docs/en/get_started.md'):
    """Commands of a kind on the first page."""
    page = (REPOSITORY / name).read_text()
    for call in re.findall(r'^mmfakd ((?:.*\\\n)*.*)', page, re.MULTILINE):
        if call.startswith(f'{command} '):
            yield re.sub(r' *#.*|\\\n', '', call)


def test_every_page_with_a_test_has_it():
    for test in {*ELSEWHERE.values(), *SINGLE.values()}:
        assert (REPOSITORY / 'tests' / test).is_file()
    assert set(ELSEWHERE) <= {*DOCUMENTS}


def test_first_page(digits, monkeypatch, capsys):
    """Its commands run as they stand, but for the number of epochs."""
    monkeypatch.chdir(digits)
    [compare], [export] = first_page('compare'), first_page('export')
    main(compare.split())
    table = capsys.readouterr().out
    assert '| alone |' in table and '| taught |' in table and '| teacher |' in table
    main(export.replace('epoch_30', 'epoch_1').split())
    assert (digits / 'student.pth').is_file()
    assert len([*first_page('train')]) == 3


@pytest.mark.parametrize('page', ['README.md', 'docs/en/index.md'])
def test_first_commands(page, tmp_path, monkeypatch):
    """They need no data and no weights but those of the package."""
    monkeypatch.chdir(tmp_path)
    pair, check, train = (next(first_page(c, page)) for c in ('pair', 'check', 'train'))
    assert not main(shlex.split(pair))
    with pytest.raises(SystemExit) as status:
        main(check.split())
    assert status.value.code == 0
    assert not main([*train.split(), *SHORT])
    assert (tmp_path / 'work_dirs/pair/epoch_1_student.pth').is_file()


@pytest.mark.parametrize(('document', 'code'), [*snippets()])
def test_snippet(document, code, tmp_path, monkeypatch, request):
    torch.manual_seed(0)
    monkeypatch.chdir(tmp_path)
    if '_base_ =' in code or 'read_base' in code:
        read_config(code, tmp_path)
    elif re.search(r'^(from|import|""")', code, re.MULTILINE):
        run_script(code, request.getfixturevalue('digits'), monkeypatch)
    else:
        for line in parts(code):
            names = {}
            exec(line, {}, names)
            build(ConfigDict(names))


@pytest.mark.parametrize('padding', [False, True])
def test_loss_of_your_own(padding, tmp_path, monkeypatch):
    """It joins a base without `level_loss`; `ignore_padding` knows what it is."""
    page = (REPOSITORY / 'docs/en/user_guide.md').read_text()
    for name, code in re.findall(
        r'^```python\n# (my_\w+\.py)\n(.*?)^```', page, re.M | re.S
    ):
        (tmp_path / name).write_text(code)
    base = "_base_ = 'mmfakd::fakd_review_r18w32_r18w4_1xb50_digits'\n"
    (tmp_path / 'pair.py').write_text(base)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, 'my_losses', raising=False)
    with restored(mmpretrain.registry.MODELS):
        cfg = Config.fromfile(tmp_path / 'my_pair.py')
        distiller = MODELS.build(dict(cfg.model.distiller, ignore_padding=padding))
        [loss, *_] = [m for m in distiller.modules() if 'Relative' in type(m).__name__]
    feature = torch.rand(2, 3, 4, 4)
    assert loss(feature, feature) == 0
    assert loss(s_feature=0 * feature, t_feature=feature) == 1


def read_config(code, folder):
    """Read a config and build its model, without weights."""
    mine = "_base_ = 'mmfakd::fakd_review_r18w32_r18w4_1xb50_digits'\n"
    (folder / 'my_fakd.py').write_text(mine)
    (folder / 'config.py').write_text(code)
    cfg = Config.fromfile(folder / 'config.py')
    kept, added = count_parameters(cfg)
    assert kept > 0 and added > 0


def run_script(code, folder, monkeypatch):
    """Run a script where the digits were trained."""
    monkeypatch.chdir(folder)
    students = folder / 'work_dirs/fakd_review_r18w32_r18w4_1xb50_digits'
    student = students / 'epoch_1_student.pth'
    (folder / 'student.pth').write_bytes(student.read_bytes())
    # A class of an example is registered where it stands.
    code = re.sub(r'^from \.', 'from mmfakd.models.backbones.', code, flags=re.M)
    names = {}
    with restored(MODELS):
        exec(compile(code, 'snippet', 'exec'), names)
        if 'MyNet' in names:
            assert names['MyNet']()(torch.rand(1, 3, 32, 32))[0].shape[1] == 64
        if 'SimilarityLoss' in names:
            feature = torch.rand(4, 2, 3, 3)
            assert names['SimilarityLoss']()(feature, feature) == 0


class restored:
    """Takes out of a registry what is registered meanwhile."""

    def __init__(self, registry):
        self.registry = registry

    def __enter__(self):
        self.before = {*self.registry.module_dict}

    def __exit__(self, *_):
        for name in {*self.registry.module_dict} - self.before:
            del self.registry.module_dict[name]


def parts(code):
    """Parts of a config: assignments, each from the beginning of a line on."""
    # `...` stands for the rest, and arguments end with a comma in calls.
    code = re.sub(r' *\.\.\.,?', '', code)
    starts = [m.start() for m in re.finditer(r'^\w+ ?= ?', code, re.MULTILINE)]
    for start, end in zip(starts, [*starts[1:], None]):
        yield code[start:end].rstrip().rstrip(',')


def build(names):
    """Build a part of a config by its name."""
    [(name, value)] = names.items()
    if name in ('connector', 'level_loss', 'distiller'):
        value = {**NECESSARY.get(value.type, {}), **value}
        assert isinstance(MODELS.build(value), torch.nn.Module)
    elif name in ('student_levels', 'teacher_levels'):
        loss = dict(type='mmrazor.L2Loss')
        cfg = dict(type='mmfakd.LevelDistiller', level_loss=loss)
        MODELS.build(dict(cfg, student_levels=value, teacher_levels=value))
    elif name == 'default_hooks':
        for hook in value.values():
            assert isinstance(HOOKS.build(hook), Hook)
    elif name == 'optim_wrapper':
        init_default_scope('mmpretrain')
        value.setdefault('optimizer', dict(type='AdamW', lr=1e-3))
        # A rate for each layer is for networks that count theirs.
        deep = 'constructor' in value
        model = MODELS.build(vit_classifier()) if deep else feature_distill()
        assert isinstance(build_optim_wrapper(model, value), OptimWrapper)
    elif name == 'warmup':
        assert MODELS.build(review_distiller(warmup=value)).warmup is not None
    elif name == 'teacher_preprocessor':
        assert feature_distill(teacher_preprocessor=value).teacher is not None
    else:
        assert name == 'model' and {*value} == {'inherit'}
        inherited_by_detectors(value.inherit)


def inherited_by_detectors(modules):
    """Every detector of the kind has modules of these names."""
    pytest.importorskip('mmdet')
    kind = 'faster-rcnn_r50' if 'roi_head' in modules else 'retinanet_r18'
    cfg = Config.fromfile(config_file(f'{kind}_fpn_1x_coco'))
    assert {*modules} <= {*cfg.model}
    assert 'inherit' in signature(FeatureDistill).parameters
