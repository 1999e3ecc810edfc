# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""Checkpoints: MMEngine's own are read, strangers' code is not run."""

import collections
import os
import pickle
import re
import shlex
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.config import ConfigDict
from mmengine.dataset import DefaultSampler
from mmengine.logging import HistoryBuffer
from mmengine.model import BaseModel
from mmengine.runner import Runner, load_checkpoint
from torch import nn

from mmfakd.compat import (
    allow_mmengine_checkpoints,
    load_checkpoint_file,
)
from mmfakd.version import parse_version

# Each was written by `Runner` as `train` below has it, by torch 2.1.2 with numpy
# 1.26.4 and by torch 2.11.0 with numpy 2.4.6.
STORED = Path(__file__).parents[1] / 'data' / 'checkpoints'

weights_only_torch = pytest.mark.skipif(
    parse_version(torch.__version__) < (2, 6),
    reason='before torch 2.6 MMEngine reads its files without weights_only',
)


class Regressor(BaseModel):
    """One linear layer with a squared error."""

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(2, 1)

    def forward(self, inputs, mode='tensor'):
        loss = self.linear(torch.stack(inputs)).square().mean()
        return dict(loss=loss) if mode == 'loss' else loss


def train(work_dir, epochs=1, **kwargs):
    """Train with MMEngine's own Runner; writes epoch_1.pth, ..."""
    runner = Runner(
        model=Regressor(),
        # Two runners of one name, by default the time in seconds, share their logs.
        experiment_name=f'{epochs}_epochs',
        work_dir=str(work_dir),
        train_dataloader=dict(
            dataset=[dict(inputs=torch.ones(2)) for _ in range(4)],
            sampler=dict(type=DefaultSampler, shuffle=False),
            batch_size=2,
            num_workers=0,
            collate_fn=dict(type='pseudo_collate'),
        ),
        optim_wrapper=dict(optimizer=dict(type='SGD', lr=0.1, momentum=0.9)),
        param_scheduler=dict(type='MultiStepLR', milestones=[1]),
        train_cfg=dict(by_epoch=True, max_epochs=epochs),
        default_hooks=dict(logger=dict(type='LoggerHook', interval=1)),
        **kwargs,
    )
    # Evaluation hooks put their best score there, often a numpy scalar.
    runner.message_hub.update_info('best_score', np.float32(0.5))
    runner.train()
    return runner


@pytest.fixture
def checkpoint(work_dir):
    """A checkpoint written here and now."""
    train(work_dir)
    return Path(work_dir) / 'epoch_1.pth'


def check_content(content):
    """Everything of a checkpoint of `train` is there, with its values."""
    assert set(content['state_dict']) == {'linear.weight', 'linear.bias'}
    assert content['meta']['epoch'] == 1 and content['meta']['iter'] == 2
    assert content['message_hub']['runtime_info']['best_score'] == np.float32(0.5)
    loss = content['message_hub']['log_scalars']['train/loss']
    assert isinstance(loss, HistoryBuffer)
    logs, counts = loss.data
    assert logs.shape == counts.shape == (2,) and (counts == 1).all()
    assert logs[0] > logs[1] > 0
    assert loss.statistics('current') == logs[1] and loss.statistics('max') == logs[0]
    assert loss.statistics('mean') == logs.mean() and loss.min() == logs[1]


def test_checkpoint_of_mmengine_loads(checkpoint):
    check_content(load_checkpoint_file(checkpoint))
    check_content(load_checkpoint_file(str(checkpoint), map_location='cpu'))


@pytest.mark.parametrize('name', ['numpy1.pth', 'numpy2.pth'])
def test_checkpoint_of_either_numpy_loads(name):
    raw = (STORED / name).read_bytes()
    assert (b'numpy._core' in raw) == (name == 'numpy2.pth')
    assert b'HistoryBuffer' in raw and b'getattr' in raw
    check_content(load_checkpoint_file(STORED / name))


@pytest.mark.parametrize('name', ['numpy1.pth', 'numpy2.pth'])
def test_mmengine_itself_loads_checkpoint(name):
    check_content(load_checkpoint(Regressor(), str(STORED / name)))


@weights_only_torch
@pytest.mark.parametrize('name', ['numpy1.pth', 'numpy2.pth'])
def test_shim_is_needed_and_repeatable(name, run_python):
    """Without mmfakd MMEngine fails on its own file; with it, weights_only works."""
    run_python(f"""
import pickle, torch, mmengine.runner
load = lambda: torch.load({str(STORED / name)!r}, weights_only=True)
try:
    load()
except pickle.UnpicklingError as error:
    assert 'HistoryBuffer' in str(error) or 'numpy' in str(error)
else:
    raise AssertionError('this torch and MMEngine no longer need the shim')
import mmfakd
assert load()['message_hub']['log_scalars']
known = len(torch.serialization.get_safe_globals())
mmfakd.compat.apply_shims()
assert len(torch.serialization.get_safe_globals()) == known
""")


def test_runner_resumes(work_dir):
    first = train(work_dir)
    second = train(work_dir, epochs=2, resume=True)
    assert second.epoch == 2 and second.iter == 4
    logs, _ = second.message_hub.get_scalar('train/loss').data
    assert len(logs) == 4
    assert (logs[:2] == first.message_hub.get_scalar('train/loss').data[0]).all()


PLAIN_CONTENT = dict(
    dtypes=[torch.float16, torch.bfloat16, torch.uint8, torch.bool, torch.int64],
    tensors=[
        torch.ones(2, dtype=dtype)
        for dtype in (torch.bool, torch.bfloat16, torch.int8, torch.complex64)
    ],
    parameter=nn.Parameter(torch.ones(1)),
    ordered=collections.OrderedDict(a=1),
    counter=collections.Counter('aab'),
    python=[None, True, 1, 2**70, 0.5, 1j, 'text', b'bytes', (1,), {1, 2}],
    size=torch.Size([1, 2]),
    device=torch.device('cpu'),
    arrays=[np.ones(2, dtype=code) for code in '?bhilBHILefdFD'],
    scalars=[np.ones(1, dtype=code)[0] for code in '?bhilBHILefdFD'],
    text=np.array(['a', 'bc']),
    random_state=np.random.RandomState(0).get_state(),
)


@pytest.mark.parametrize('zipped', [True, False], ids=['zip', 'legacy'])
def test_plain_values_load(tmp_path, zipped):
    """Both formats of torch.save; the model zoos still publish the older one."""
    path = tmp_path / 'plain.pth'
    torch.save(PLAIN_CONTENT, path, _use_new_zipfile_serialization=zipped)
    loaded = load_checkpoint_file(path)
    assert str(loaded) == str(PLAIN_CONTENT)
    assert [array.dtype for array in loaded['arrays']] == [
        array.dtype for array in PLAIN_CONTENT['arrays']
    ]


class Call:
    """Pickles as a call, the way a malicious file does."""

    def __init__(self, function, *args):
        self.function, self.args = function, args

    def __reduce__(self):
        return self.function, self.args


ATTACKS = {
    'system': lambda: Call(os.system, 'touch pwned'),
    'eval': lambda: Call(eval, "open('pwned', 'w')"),
    'import': lambda: Call(__import__, 'antigravity'),
    'setattr': lambda: Call(setattr, HistoryBuffer, 'min', max),
    'getattr of a dunder': lambda: Call(getattr, HistoryBuffer, '__init__'),
    'getattr of another method': lambda: Call(getattr, HistoryBuffer, 'update'),
    'getattr of the registry': lambda: Call(
        getattr, HistoryBuffer, 'register_statistics'
    ),
    'getattr of a statistic': lambda: Call(
        getattr, Call(getattr, HistoryBuffer, 'min'), '__globals__'
    ),
    'getattr of an instance': lambda: Call(getattr, HistoryBuffer(), 'min'),
    'getattr of a tensor class': lambda: Call(getattr, torch.Tensor, 'tofile'),
    'getattr with a default': lambda: Call(getattr, HistoryBuffer, 'min', 1),
    'torch function': lambda: Call(torch.hub.load, 'owner/repository', 'model'),
    'numpy function': lambda: Call(np.load, 'file.npy'),
    'object array': lambda: np.array([Call(os.system, 'touch pwned')], dtype=object),
    'module': lambda: nn.Linear(1, 1),
    'path': lambda: Path('somewhere'),
}


@pytest.mark.parametrize('zipped', [True, False], ids=['zip', 'legacy'])
@pytest.mark.parametrize('attack', ATTACKS)
def test_anything_else_is_refused(attack, zipped, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / 'evil.pth'
    torch.save(
        dict(state_dict={}, extra=ATTACKS[attack]()),
        path,
        _use_new_zipfile_serialization=zipped,
    )
    with pytest.raises(pickle.UnpicklingError, match='is refused') as caught:
        load_checkpoint_file(path)
    assert os.listdir(tmp_path) == ['evil.pth']
    assert str(path) in str(caught.value)
    assert 'weights_only=False' in str(caught.value)


@pytest.mark.parametrize('kind', ['network', 'weights', 'in a dict', 'its weights'])
def test_the_command_that_a_refusal_names(kind, tmp_path):
    """Files as others write them, under a name that a shell could take apart."""
    path = tmp_path / 'it\'s "größer" $(false).pth'
    model = nn.Linear(2, 1)
    contents = {
        'network': model,
        'weights': dict(state_dict=model.state_dict(), extra=model),
        'in a dict': dict(model=model),
        'its weights': dict(model=model.state_dict(), extra=model),
    }
    torch.save(contents[kind], path)
    with pytest.raises(pickle.UnpicklingError, match='is refused') as caught:
        load_checkpoint_file(path)
    command = re.search("python -c '.*'", str(caught.value))[0]
    command = command.replace('python', shlex.quote(sys.executable), 1)
    subprocess.run(command, shell=True, check=True, cwd=tmp_path)
    weights = load_checkpoint_file(tmp_path / 'weights.pth')
    assert torch.equal(weights['weight'], model.weight)


@weights_only_torch
@pytest.mark.parametrize('attack', ATTACKS)
def test_torch_itself_refuses_with_the_shim(attack, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.save(dict(extra=ATTACKS[attack]()), 'evil.pth')
    allow_mmengine_checkpoints()
    with pytest.raises(pickle.UnpicklingError):
        torch.load('evil.pth')
    assert os.listdir(tmp_path) == ['evil.pth']


def test_refusal_names_what_was_asked_for(tmp_path):
    path = tmp_path / 'evil.pth'
    torch.save(dict(extra=ATTACKS['system']()), path)
    with pytest.raises(
        pickle.UnpicklingError, match=r'(?i)unsupported global.*\.system'
    ):
        load_checkpoint_file(path)
    torch.save(dict(extra=ATTACKS['getattr of a dunder']()), path)
    with pytest.raises(pickle.UnpicklingError, match=r"'__init__'\) is not allowed"):
        load_checkpoint_file(path)


def test_torchscript_is_refused(tmp_path):
    path = tmp_path / 'script.pth'
    torch.jit.trace(nn.Linear(1, 1), torch.ones(1, 1)).save(str(path))
    with pytest.raises(pickle.UnpicklingError, match='TorchScript'):
        load_checkpoint_file(path)


def test_nested_metainfo_loads(tmp_path):
    """A dict in the metainfo of a data set reaches the checkpoint as ConfigDict."""
    metainfo = ConfigDict(classes=('a', 'b'), colours=dict(a=[1, 2, 3]))
    path = tmp_path / 'nested.pth'
    torch.save(dict(meta=dict(dataset_meta=metainfo), state_dict={}), path)
    loaded = load_checkpoint_file(path)['meta']['dataset_meta']
    assert isinstance(loaded, ConfigDict)
    assert loaded == metainfo and loaded.colours.a == [1, 2, 3]


def test_missing_file():
    with pytest.raises(
        FileNotFoundError, match=r'"gone/a\.pth": there is no such file'
    ):
        load_checkpoint_file('gone/a.pth')


def test_folder(tmp_path):
    with pytest.raises(FileNotFoundError, match='it is a folder'):
        load_checkpoint_file(tmp_path)


@pytest.mark.parametrize('zipped', [True, False], ids=['zip', 'legacy'])
def test_truncated_wherever_it_is_cut(zipped, tmp_path):
    """An interrupted download or copy, from no byte to one byte missing."""
    whole, cut = tmp_path / 'whole.pth', tmp_path / 'cut.pth'
    content = dict(state_dict=dict(weight=torch.rand(8)), text='Zürich', number=2**40)
    torch.save(content, whole, _use_new_zipfile_serialization=zipped)
    assert load_checkpoint_file(whole)['number'] == 2**40
    raw = whole.read_bytes()
    for length in range(len(raw)):
        cut.write_bytes(raw[:length])
        with pytest.raises(ValueError, match='is truncated or not a checkpoint'):
            load_checkpoint_file(cut)


@pytest.mark.parametrize(
    'raw', [b'', b'Not found', b'<html></html>', pickle.dumps(dict(a=1)), b'\x80\x02']
)
def test_not_a_checkpoint(raw, tmp_path):
    path = tmp_path / 'other.pth'
    path.write_bytes(raw)
    with pytest.raises(ValueError, match=f'{len(raw)} bytes; it does not begin'):
        load_checkpoint_file(path)


def test_zip_that_is_no_checkpoint(tmp_path):
    (tmp_path / 'folder').mkdir()
    (tmp_path / 'folder' / 'file.txt').write_text('text')
    path = shutil.make_archive(str(tmp_path / 'other'), 'zip', tmp_path, 'folder')
    with pytest.raises(ValueError, match='truncated or not a checkpoint'):
        load_checkpoint_file(path)


def test_content_of_another_type(tmp_path):
    path = tmp_path / 'list.pth'
    torch.save([torch.ones(1)], path)
    with pytest.raises(TypeError, match='holds a list; expected a dict'):
        load_checkpoint_file(path)


def test_home_folder_is_expanded(tmp_path, monkeypatch):
    monkeypatch.setenv('HOME', str(tmp_path))
    torch.save(dict(a=1), tmp_path / 'a.pth')
    assert load_checkpoint_file('~/a.pth') == dict(a=1)


def test_names_in_a_file_reach_no_terminal_raw(tmp_path):
    """That of a function is refused by torch in its own words."""
    path = tmp_path / 'a\x1b.pth'
    torch.save(dict(a=1), path)
    with zipfile.ZipFile(path) as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, 'w') as archive:
        for name, content in parts.items():
            evil = b'\x80\x02cos\x1b[2J\nsystem\n.'
            archive.writestr(name, evil if name.endswith('data.pkl') else content)
    refused = r'a\\x1b.pth" is refused: .*os\\x1b\[2J'
    with pytest.raises(pickle.UnpicklingError, match=refused) as error:
        load_checkpoint_file(path)
    assert '\x1b' not in str(error.value)
