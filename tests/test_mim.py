# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""mim's commands on the installed package, as docs/en/installation.md shows them.

mim brings an old setuptools and much else, so the tests' own environment is without it;
`bash .ci/mim.sh` makes one that has it.
"""

import json
import os
import re
import shlex
import subprocess
import sys
from importlib.metadata import distributions

import pytest

from mmfakd.model_zoo.published import published_entry
from tests.helpers.packages import ROOT, copy_sources, install
from tests.helpers.weight_server import weight_server

MIMS = {'openmim', 'onedl-mim'} & {d.metadata['Name'] for d in distributions()}
pytestmark = pytest.mark.skipif(
    not MIMS, reason='mim is not installed (pip install openmim, or onedl-mim)'
)
works = pytest.mark.skipif(
    'onedl-mim' in MIMS,
    reason='onedl-mim looks for a package in the folder of the first file of its '
    'RECORD, which is that of a command where it has one',
)
TEACHER = 'r18w32_1xb50_digits'
STUDENT = 'r18w4_1xb50_digits'
FAM = 'fakd_review_r18w32_r18w4_1xb50_digits'
LAYER = 'fakd_layer_r18w32_r18w4_1xb50_digits'
SHORT = '--cfg-options train_cfg.max_epochs=1 train_dataloader.dataset.times=1'


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    """Where a user works."""
    return tmp_path_factory.mktemp('work')


@pytest.fixture(scope='module')
def server(tmp_path_factory):
    """A server of published weights."""
    with weight_server(tmp_path_factory.mktemp('served')) as server:
        yield server


@pytest.fixture(scope='module')
def mim(tmp_path_factory, folder, server):
    """Calls mim on the package, installed; returns what it said.

    Weights of two models have an address, as the maintainers give them.
    """
    place = tmp_path_factory.mktemp('installed')
    source = copy_sources(place / 'source', 'tests')
    for words in (
        ['--no-base-url'],
        [STUDENT, LAYER, '--base-url', server.url, '--out', server.folder],
    ):
        publish = [sys.executable, source / '.dev_scripts/publish_zoo.py', *words]
        environ = {**os.environ, 'PYTHONPATH': str(source)}
        subprocess.run(publish, env=environ, check=True)
    # Built apart, as mim's setuptools is too old.
    site = install(source, place / 'site', index=True)

    def call(line, fails=False):
        program = 'from mim.cli import cli; cli()'
        path = os.pathsep.join(filter(None, [str(site), os.environ.get('PYTHONPATH')]))
        process = subprocess.run(
            [sys.executable, '-c', program, *shlex.split(line)],
            cwd=folder,
            env={**os.environ, 'PYTHONPATH': path, 'OMP_NUM_THREADS': '1'},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        assert bool(process.returncode) == fails, process.stdout[-4000:]
        return process.stdout

    call.site = site
    return call


@pytest.fixture(scope='module')
def trained(mim):
    """A teacher and a student under it, by mim."""
    mim(f'train mmfakd {TEACHER}.py --gpus 0 --work-dir work_dirs/{TEACHER} {SHORT}')
    teacher = f'--teacher-ckpt work_dirs/{TEACHER}/epoch_1.pth'
    mim(f'train mmfakd {FAM}.py --gpus 0 --work-dir work_dirs/fam {teacher} {SHORT}')
    return 'work_dirs/fam/epoch_1.pth'


@works
def test_list_and_search(mim):
    assert re.search(r'^mmfakd +\d', mim('list'), re.M)
    # Cut off at 80 columns otherwise.
    found = mim(f'search mmfakd --config {FAM} --display-width 400')
    assert FAM in found
    assert 'r18w32_1xb50_digits' in found  # its teacher
    assert STUDENT in mim('search mmfakd --dataset digits')


@works
def test_train_and_test(mim, trained, folder):
    assert (folder / trained).is_file()
    told = mim(f'test mmfakd {FAM}.py --checkpoint {trained} --gpus 0')
    assert 'accuracy/top1' in told


@works
def test_train_in_two_processes(mim, trained, folder):
    """mim has torch's old launcher."""
    teacher = f'--teacher-ckpt work_dirs/{TEACHER}/epoch_1.pth'
    launch = '--gpus 2 --launcher pytorch --work-dir work_dirs/two'
    mim(f'train mmfakd {FAM}.py {launch} {teacher} {SHORT}')
    assert (folder / 'work_dirs/two/epoch_1.pth').is_file()


@works
def test_run(mim, trained, folder):
    """Every script that `mim run` can find has the options of its command."""
    mim(f'run mmfakd export_student {trained} -o student.pth')
    assert (folder / 'student.pth').is_file()
    scripts = sorted(file.stem for file in (ROOT / 'tools').glob('*.py'))
    assert len(scripts) >= 10
    for script in scripts:
        process = subprocess.run(
            [sys.executable, f'{mim.site}/mmfakd/.mim/tools/{script}.py', '--help'],
            env={**os.environ, 'PYTHONPATH': str(mim.site)},
            capture_output=True,
            text=True,
        )
        assert process.stdout.startswith('usage: mmfakd '), process.stderr


@works
def test_gridsearch(mim, folder):
    search = "--search-args '--optim_wrapper.optimizer.lr 0.01 0.05'"
    mim(f'gridsearch mmfakd {STUDENT}.py --gpus 0 --work-dir grid {search} {SHORT}')
    found = sorted(folder.glob('grid_search_*/epoch_1.pth'))
    assert [path.parent.name[-4:] for path in found] == ['0.01', '0.05']


@works
def test_search_lists_results(mim, folder, server):
    assert 'digits/top_1_accuracy' in mim('search mmfakd --dataset digits')
    mim(f'search mmfakd --config {LAYER} --json found.json')
    found = json.loads((folder / 'found.json').read_text())
    entry = published_entry(LAYER)
    (result,) = entry['Results']
    for key, value in result['Metrics'].items():
        assert found[f'digits/{key.lower().replace(" ", "_")}'][LAYER] == value
    assert found['weight'][LAYER] == f'{server.url}/{entry["Published"]["File"]}'
    assert found['teacher'][LAYER]['Metrics'] == {'Top 1 Accuracy': 98.8}


@works
@pytest.mark.parametrize('name', [STUDENT, LAYER])
def test_download(mim, folder, server, name):
    """Weights from their address, and the config as one file; they are used."""
    mim(f'download mmfakd --config {name} --dest zoo')
    (weights,) = (folder / 'zoo').glob(f'{name}_*.pth')
    assert f'/{weights.name}' in server.requested
    assert weights.read_bytes() == (ROOT / 'weights' / weights.name).read_bytes()
    config = folder / f'zoo/{name}.py'
    assert 'mmfakd.Digits' in config.read_text()
    told = mim(f'test mmfakd {config} --checkpoint {weights} --gpus 0')
    score = published_entry(name)['Published']['Metrics']['Top 1 Accuracy']
    assert f'accuracy/top1: {score:.4f}' in told


@works
def test_download_of_what_has_no_address(mim):
    """A path within the package, which mim takes for an address; or nothing."""
    told = mim(f'download mmfakd --config {FAM} --dest zoo', fails=True)
    assert "Invalid URL 'weights/" in told
    told = mim('download mmfakd --config vgg8_1xb64_cifar100 --dest zoo', fails=True)
    assert "'float' object has no attribute 'split'" in told


@pytest.mark.skipif('onedl-mim' not in MIMS, reason='of onedl-mim')
def test_where_onedl_mim_looks(mim):
    """Once it looks elsewhere, the tests above are for it, too."""
    told = mim(f'search mmfakd --config {STUDENT}', fails=True)
    assert 'is not found, please upgrade your mmfakd' in told
    assert 'mmfakd' not in mim('list')
