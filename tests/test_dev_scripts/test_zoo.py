# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""The published weights: what their entries say is what they score."""

import json
import re
import shutil
import sys
from pathlib import Path

import make_metafiles
import publish_zoo
import pytest
import torch
import yaml
import zoo.entries
import zoo.page
import zoo.table
from mmengine.config import Config
from zoo.evaluate import evaluate
from zoo.export import _precisions, export_run
from zoo.memory import training_bytes
from zoo.table import FACTS, LARGE, MOST_BYTES, WEIGHTS, read_facts, read_table

from mmfakd.checkpoints.config_text import read_config_text
from mmfakd.checkpoints.download import file_hash
from mmfakd.engine.launch import build_runner
from mmfakd.model_zoo.find import config_file, zoo_entries

REPOSITORY = Path(__file__).resolve().parents[2]
SHARED = REPOSITORY.parent / 'shared' / 'data'
TABLE, KNOWN = read_table(), read_facts()['weights']
FOLDER = {
    name: folder for folder, table in TABLE.items() for name in table.get('runs', ())
}
ENTRIES = {entry['Name']: entry for entry in zoo_entries('mmfakd')}
STUDENT = 'r18w4_1xb50_digits'


def file_of(name):
    """The published file of a model; skips where it waits for a server elsewhere."""
    file = WEIGHTS / KNOWN[name]['file']
    if name in TABLE[FOLDER[name]].get('elsewhere', ()):
        file = LARGE / file.name
        if not file.is_file():
            pytest.skip(f'{file.name} is too large for the package, and not in {LARGE}')
    return file


@pytest.fixture
def data(tmp_path, monkeypatch):
    """The present folder, with the data in its place."""
    (tmp_path / 'data').symlink_to(SHARED)
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize('name', KNOWN)
def test_score_is_that_of_the_entry(name, data):
    """Every file, on the real test images, to the last digit that is shown."""
    folder, published = FOLDER[name], ENTRIES[name]['Published']
    # Scikit-learn has the digits.
    if folder != 'digits' and not (SHARED / folder).is_dir():
        pytest.skip(f'{SHARED / folder} has the images, and is not here')
    if folder == 'bccd':
        pytest.importorskip('mmdet')
        pytest.importorskip('mmcv.ops', exc_type=ImportError)
    file = file_of(name)
    ((metric, score),) = published['Metrics'].items()
    assert evaluate(file, metric) == score


@pytest.mark.parametrize('name', KNOWN)
def test_file_is_that_of_the_entry(name):
    published, file = ENTRIES[name]['Published'], file_of(name)
    assert file.name == published['File']
    digest = file_hash(str(file))
    assert digest == published['SHA256']
    date = published['Date'].replace('-', '')
    assert file.name == f'{name}_{date}-{digest[:8]}.pth'
    assert file.stat().st_size == KNOWN[name]['bytes']


@pytest.mark.parametrize('name', KNOWN)
def test_file_holds_a_stock_model_and_nothing_else(name):
    # Without anything on torch's list of what may be loaded.
    checkpoint = torch.load(file_of(name), weights_only=True)
    assert {*checkpoint} == {'meta', 'state_dict'}
    meta = checkpoint['meta']
    assert meta['dataset_meta']['classes']
    published = ENTRIES[name]['Published']
    assert meta['mmfakd'] == dict(name=name, commit=published['Commit'])
    cfg = read_config_text(meta['cfg'])
    assert cfg.default_scope in ('mmpretrain', 'mmdet')
    assert 'architecture' not in cfg.model and 'work_dir' not in cfg
    # Only a backbone, and a data set that inference does without, may be ours.
    ours = re.findall(r"'mmfakd\.(\w+)'", str(cfg))
    assert {*ours} <= {'CIFARResNet', 'CIFAR100', 'ImageArrays', 'Digits'}
    assert not re.search(r"'/\w|\.\./|\bwork_dirs\b", str(meta))
    tensors = checkpoint['state_dict'].values()
    kinds = {value.dtype for value in tensors if value.is_floating_point()}
    assert kinds == {getattr(torch, published['Precision'])}


def test_package_has_these_files_and_no_others():
    shipped = {
        known['file']
        for name, known in KNOWN.items()
        if name not in TABLE[FOLDER[name]].get('elsewhere', ())
    }
    assert shipped == {file.name for file in WEIGHTS.iterdir()}
    assert sum(file.stat().st_size for file in WEIGHTS.iterdir()) <= MOST_BYTES
    assert {*KNOWN} == {*FOLDER}


def test_first_seed_is_published():
    """Never the best of several."""
    for name, known in KNOWN.items():
        assert known['seed'] == 0
        assert known['score'] == known[f'score_{known["precision"]}']
        assert known['curve'][-1] == [known['epochs'], known['score']], name


def test_files_of_other_runs_than_the_log_are_named():
    """Of the same seed, but with another score than that run in the log."""
    others = set()
    for name, folder in FOLDER.items():
        table, metric = TABLE[folder], KNOWN[name]['metric']
        log = json.loads((zoo.table.LOGS / table['log']).read_text())
        methods = {method['method']: method for method in log['methods']}
        methods['teacher'] = log['teacher']
        runs = methods[table['models'][name]['method']]['runs']
        [last] = [run['last'] for run in runs if run['seed'] == KNOWN[name]['seed']]
        if zoo.table.percent(last, metric) != KNOWN[name]['score']:
            others.add(name)
    page = (REPOSITORY / zoo.page.PAGE).read_text()
    [told] = re.findall(
        r'of another run with that seed than the tables: (.*?)\.', page, re.S
    )
    assert {*re.findall(r'`(.+?)`', told)} == others


def test_metafiles_and_page_are_as_tables_and_logs_have_them(capsys):
    make_metafiles.main(['--check'])
    assert capsys.readouterr().out == 'All files are as tables and logs have them.\n'


def test_stock_models_of_a_library_that_is_absent(monkeypatch):
    """They stay as they are."""
    made = make_metafiles.make_files()
    monkeypatch.setattr(zoo.entries, 'find_spec', lambda package: None)
    assert make_metafiles.make_files() == made


def test_results_are_those_of_the_logs():
    """Computed anew, for the figures that users compare."""
    log = json.loads((zoo.table.LOGS / 'digits.json').read_text())
    runs = next(m['runs'] for m in log['methods'] if m['method'] == 'KD')
    scores = torch.tensor([run['last'] for run in runs], dtype=torch.float64)
    (result,) = ENTRIES['kd_r18w32_r18w4_1xb50_digits']['Results']
    assert result['Metrics'] == {
        'Top 1 Accuracy': round(scores.mean().item(), 2),
        'Seeds': 5,
        'Spread': round(scores.std().item(), 2),
    }
    teacher = ENTRIES['kd_r18w32_r18w4_1xb50_digits']['Metadata']['Teacher']
    assert teacher['Metrics'] == {'Top 1 Accuracy': 98.8}
    assert teacher['Weights'].endswith(f'/{KNOWN["r18w32_1xb50_digits"]["file"]}')


@pytest.fixture
def copied(tmp_path, monkeypatch):
    """Metafiles, page and facts that may be written."""
    shutil.copytree(REPOSITORY / 'configs', tmp_path / 'configs')
    for file in (FACTS, REPOSITORY / zoo.page.PAGE):
        copy = tmp_path / file.relative_to(REPOSITORY)
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(file, copy)
    for module in (make_metafiles, zoo.page):
        monkeypatch.setattr(module, 'REPOSITORY', tmp_path)
    monkeypatch.setattr(zoo.table, 'FACTS', tmp_path / FACTS.relative_to(REPOSITORY))
    # Whatever addresses there are by now.
    publish_zoo.withdraw()
    return tmp_path


def models(root):
    text = (root / 'configs/fakd/digits/metafile.yml').read_text()
    return {entry['Name']: entry for entry in yaml.safe_load(text)['Models']}


def publish(monkeypatch, *words):
    monkeypatch.setattr(sys, 'argv', ['publish_zoo.py', *map(str, words)])
    publish_zoo.main()


def test_addresses(copied, monkeypatch):
    """Into metafiles, with the files and a manifest for upload; and out again."""
    names = [STUDENT, 'r18w32_1xb50_digits']
    out = ['--out', copied / 'up']
    publish(monkeypatch, *names, '--base-url', 'https://a.org/zoo/', *out)
    manifest = json.loads((copied / 'up/manifest.json').read_text())
    assert [file['name'] for file in manifest] == names
    for file in manifest:
        assert file_hash(str(copied / 'up' / file['file'])) == file['sha256']
        assert (REPOSITORY / file['config']).is_file()
        weights = models(copied)[file['name']]['Weights']
        assert weights == file['url'] == f'https://a.org/zoo/{file["file"]}'
    kd = 'kd_r18w32_r18w4_1xb50_digits'
    assert models(copied)[kd]['Weights'] == f'weights/{KNOWN[kd]["file"]}'
    teacher = models(copied)[kd]['Metadata']['Teacher']
    assert teacher['Weights'] == manifest[1]['url']
    publish(monkeypatch, '--no-base-url')
    assert models(copied)[STUDENT]['Weights'] == f'weights/{KNOWN[STUDENT]["file"]}'


def test_changed_file_is_not_published(copied, monkeypatch, capsys):
    facts = zoo.table.read_facts()
    facts['weights'][STUDENT]['sha256'] = '0' * 64
    zoo.table.write_facts(facts)
    before = models(copied)
    for names, told in (
        ([STUDENT], f'missing or changed: {KNOWN[STUDENT]["file"]}. '),
        (['vgg8_1xb64_cifar100'], "no weights: ['vgg8_1xb64_cifar100']"),
    ):
        with pytest.raises(SystemExit) as error:
            publish(monkeypatch, *names, '--base-url', 'b', '--out', copied / 'up')
        assert error.value.code == 1
        assert told in capsys.readouterr().err
    assert models(copied) == before and not (copied / 'up').exists()


@pytest.fixture(scope='module')
def run(tmp_path_factory):
    """A short training."""
    folder = tmp_path_factory.mktemp('run') / 'student'
    cfg = Config.fromfile(config_file(STUDENT))
    cfg.train_cfg.max_epochs = 1
    cfg.update(work_dir=str(folder), randomness=dict(seed=0))
    build_runner(cfg).train()
    return folder


def test_export(run, tmp_path):
    older = tmp_path / f'{STUDENT}_20200101-01234567.pth'
    older.write_bytes(b'')
    other = tmp_path / f'kd_{STUDENT}_20200101-01234567.pth'
    other.write_bytes(b'')
    found = export_run(STUDENT, str(run), 'Top 1 Accuracy', 'abc1234', tmp_path)
    file = tmp_path / found['file']
    assert {*tmp_path.iterdir()} == {file, other}
    assert found['sha256'] == file_hash(str(file))
    assert evaluate(file, 'Top 1 Accuracy') == found['score'] == found['curve'][0][1]
    assert found['parameters'] == ENTRIES[STUDENT]['Metadata']['Parameters']
    # The same weights make the same file.
    again = export_run(STUDENT, str(run), 'Top 1 Accuracy', 'abc1234', tmp_path)
    assert again['file'] == found['file']


def test_weights_of_another_score_are_not_exported(run, tmp_path):
    changed = shutil.copytree(run, tmp_path / 'run')
    checkpoint = torch.load(changed / 'epoch_1.pth', weights_only=False)
    checkpoint['state_dict']['head.fc.weight'].zero_()
    torch.save(checkpoint, changed / 'epoch_1.pth')
    with pytest.raises(ValueError, match='its log says .*, its evaluation 10.0'):
        export_run(STUDENT, str(changed), 'Top 1 Accuracy', 'abc1234', tmp_path / 'out')
    assert not (tmp_path / 'out').exists()


def test_half_precision_only_where_it_holds_every_value():
    big = dict(state_dict=dict(weight=torch.tensor([70_000.0]), steps=torch.tensor(3)))
    assert [name for name, _ in _precisions(big)] == ['float32']
    small = dict(state_dict=dict(weight=torch.tensor([7.0]), steps=torch.tensor(3)))
    (_, (name, half)) = _precisions(small)
    assert name == 'float16' and half['state_dict']['weight'].dtype == torch.float16
    assert half['state_dict']['steps'].dtype == torch.int64


def test_memory_of_a_step():
    names = (STUDENT, 'fakd_review_r18w32_r18w4_1xb50_digits')
    alone, distilled = (training_bytes(name) for name in names)
    # Other versions of torch compute with other intermediate results.
    assert alone == pytest.approx(read_facts()['memory'][STUDENT], rel=0.3)
    # At least the teacher's weights more.
    teacher = ENTRIES['r18w32_1xb50_digits']['Metadata']['Parameters']
    assert distilled > alone + 4 * teacher
