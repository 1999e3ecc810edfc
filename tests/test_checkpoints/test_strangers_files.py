# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""Whatever is in a weight file, and however it comes in, nothing of it runs."""

import json
import pickle
import re
import sys
from contextlib import contextmanager, suppress
from io import BytesIO
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from mmengine.config import Config
from mmengine.infer import BaseInferencer
from mmengine.model import BaseModel, BaseModule
from mmengine.registry import MODELS
from mmengine.runner import CheckpointLoader, Runner, checkpoint, load_checkpoint
from torch import nn

from mmfakd import cli
from mmfakd.checkpoints import fetch, schemes
from mmfakd.checkpoints.fetch import fetch_checkpoint
from mmfakd.checkpoints.latest import find_checkpoint
from mmfakd.checkpoints.load import load_weights
from mmfakd.compat import load_checkpoint_file
from tests.helpers.strangers_files import (
    ARMED,
    REFUSED,
    TEXTS,
    WEIGHTS,
    save_with_text,
)
from tests.helpers.tiny_runs import distillation, run_config, save_teacher, student

PAGE = Path(__file__).parents[2] / 'docs' / 'en' / 'security.md'


class Net(BaseModel):
    """One layer, under the names of `WEIGHTS`."""

    def __init__(self, init_cfg=None):
        super().__init__(init_cfg=init_cfg)
        self.weight, self.bias = vars(nn.Linear(2, 2))['_parameters'].values()

    def forward(self, inputs, mode='tensor'):
        loss = torch.stack(inputs).matmul(self.weight).square().mean()
        return dict(loss=loss) if mode == 'loss' else loss


def runner(work_dir, **kwargs):
    return Runner(
        Net(),
        str(work_dir),
        train_dataloader=dict(
            dataset=[dict(inputs=torch.ones(2))] * 2,
            sampler=dict(type='DefaultSampler', shuffle=False),
            batch_size=2,
            num_workers=0,
            collate_fn=dict(type='pseudo_collate'),
        ),
        optim_wrapper=dict(optimizer=dict(type='SGD', lr=0.1)),
        train_cfg=dict(by_epoch=True, max_epochs=1),
        **kwargs,
    )


@pytest.fixture
def place(server, cache, tmp_path, monkeypatch):
    """A file, all addresses that lead to it, and the marker of its payload."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    path = server.folder / f'{tmp_path.name}.pth'
    url = f'{server.url}/{path.name}'
    cache.parent.mkdir()
    listed = json.dumps(dict(strange=url, stranger=str(path)))
    (cache.parent / 'open_mmlab.json').write_text(listed)
    monkeypatch.setattr(schemes, 'get_torchvision_models', lambda: dict(strange=url))
    monkeypatch.setattr(schemes, 'get_mmcls_models', lambda: dict(strange=url))
    monkeypatch.setattr(fetch, 'zoo_weights', lambda: dict(strange=url))
    config = SimpleNamespace(model_path=url)
    monkeypatch.setattr(fetch, 'package_config', lambda name, pretrained: config)

    def copy(target):
        Path(target).write_bytes(path.read_bytes())

    cloud = SimpleNamespace(get=lambda name: SimpleNamespace(download=copy))
    monkeypatch.setitem(sys.modules, 'pavi', SimpleNamespace(modelcloud=cloud))

    @contextmanager
    def local_path(source, backend_args):
        yield path

    monkeypatch.setattr(schemes, 'get_local_path', local_path)
    return SimpleNamespace(
        path=str(path), url=url, file=path, marker=tmp_path / 'marker', folder=tmp_path
    )


def initialise(place):
    BaseModule(init_cfg=dict(type='Pretrained', checkpoint=place.url)).init_weights()


def mmrazor_teacher(place):
    import mmrazor.models  # noqa: F401

    MODELS.build(
        dict(
            type='mmrazor.SingleTeacherDistill',
            architecture=student(),
            teacher=student(),
            teacher_ckpt=place.url,
            distiller=dict(type='mmrazor.ConfigurableDistiller'),
        )
    )


def infer(place):
    class Inferencer(BaseInferencer):
        _init_pipeline = preprocess = visualize = postprocess = lambda *a, **kw: None

    Inferencer(weights=place.path)


def resume_auto(place):
    """What `--resume` without a path looks at."""
    skipped = find_checkpoint(place.file.parent).skipped
    place.file.unlink()
    text = next((text for text in skipped if place.path in text), None)
    if text is not None:
        raise ValueError(text)


def mmfakd(*words):
    return lambda place: cli.main([getattr(place, word, word) for word in words])


WAYS = {
    'path': lambda place: fetch_checkpoint(place.path),
    '`http://`, `https://`': lambda place: fetch_checkpoint(place.url),
    'name of a model zoo': lambda place: fetch_checkpoint('strange'),
    '`mmfakd::`, `mmpretrain::` ...': lambda _: fetch_checkpoint('mmpretrain::a/b.py'),
    '`torchvision://`': lambda place: fetch_checkpoint('torchvision://strange'),
    '`modelzoo://`': lambda place: fetch_checkpoint('modelzoo://strange'),
    '`open-mmlab://`, address': lambda place: fetch_checkpoint('open-mmlab://strange'),
    '`openmmlab://`, path': lambda place: fetch_checkpoint('openmmlab://stranger'),
    '`mmcls://`': lambda place: fetch_checkpoint('mmcls://strange'),
    '`pavi://`': lambda place: fetch_checkpoint('pavi://strange'),
    '`s3://`': lambda place: fetch_checkpoint('s3://bucket/strange.pth'),
    '`cluster:petrel://`': lambda _: fetch_checkpoint('cluster:petrel://bucket/a.pth'),
    '`teacher_ckpt`, `student_ckpt`': lambda p: load_weights(Net(), p.url, 'teacher'),
    '`init_cfg` of type `Pretrained`': initialise,
    "MMEngine's `load_checkpoint`": lambda place: load_checkpoint(Net(), place.path),
    "MMEngine's, an address": lambda place: load_checkpoint(Net(), place.url),
    "MMEngine's, `torchvision://`": lambda place: CheckpointLoader.load_checkpoint(
        'torchvision://strange'
    ),
    "MMEngine's, a name": lambda place: CheckpointLoader.load_checkpoint('strange'),
    "MMEngine's `load_from_local`": lambda p: checkpoint.load_from_local(p.path, 'cpu'),
    "MMEngine's `load_from_http`": lambda p: checkpoint.load_from_http(
        p.url, 'cpu', model_dir='downloads'
    ),
    '`load_from`': lambda p: runner(p.folder / 'run', load_from=p.url).train(),
    '`resume`': lambda p: runner(p.folder / 'run').resume(p.url),
    '`--resume` without a path': resume_auto,
    "mmrazor's `teacher_ckpt`": mmrazor_teacher,
    'inferencers of mmpretrain and mmdet': infer,
    '`mmfakd export`': mmfakd('export', 'url', '-o', 'student.pth'),
    '`mmfakd convert`': mmfakd('convert', 'url', '-o', 'student.pth'),
}
# They end at what else is missing in the file; two of them have a test of their own.
NO_TEXTS = {
    "mmrazor's `teacher_ckpt`",
    'inferencers of mmpretrain and mmdet',
    '`mmfakd export`',
    '`mmfakd convert`',
}


@pytest.mark.parametrize('payload', REFUSED)
@pytest.mark.parametrize('way', WAYS)
def test_payload_is_refused(way, payload, place):
    REFUSED[payload](place.file, place.marker)
    with pytest.raises((Exception, SystemExit)) as caught:
        WAYS[way](place)
    assert not place.marker.exists()
    message = str(caught.value)
    assert 'is refused: ' in message or 'is truncated or not a checkpoint' in message


@pytest.mark.skipif(
    not hasattr(checkpoint, '_safe_torch_load'), reason='onedl-mmengine has it'
)
@pytest.mark.parametrize('payload', REFUSED)
@pytest.mark.parametrize('opened', [False, True], ids=['path', 'file'])
def test_what_is_refused_is_not_loaded_in_another_way(opened, payload, place):
    """onedl-mmengine falls back to loading without any restriction."""
    REFUSED[payload](place.file, place.marker)
    given = BytesIO(place.file.read_bytes()) if opened else place.path
    with pytest.raises((pickle.UnpicklingError, ValueError)):
        checkpoint._safe_torch_load(given, map_location='cpu')
    assert not place.marker.exists()
    torch.save(WEIGHTS, place.file)
    given = BytesIO(place.file.read_bytes()) if opened else place.path
    assert checkpoint._safe_torch_load(given).keys() == WEIGHTS.keys()


@pytest.mark.parametrize('payload', ARMED)
def test_payload_is_armed(payload, place):
    """It runs where nothing stands before it."""
    REFUSED[payload](place.file, place.marker)
    try:
        torch.load(place.path, weights_only=False)
    except Exception as error:
        print(error)
    assert place.marker.exists()


TEXT_WAYS = [way for way in WAYS if way not in NO_TEXTS]
WAYS_OF_TEXTS = [(way, payload) for way in TEXT_WAYS for payload in TEXTS]


# Each text comes in by a few ways, and by each way come a few.
@pytest.mark.parametrize(('way', 'payload'), WAYS_OF_TEXTS[::4])
def test_text_is_left_out(way, payload, place, logged, capfd):
    leave_text_out(way, payload, place, logged, capfd)


@pytest.mark.matrix
@pytest.mark.parametrize(('way', 'payload'), WAYS_OF_TEXTS)
def test_each_text_is_left_out(way, payload, place, logged, capfd):
    leave_text_out(way, payload, place, logged, capfd)


def test_texts_and_ways():
    ways, payloads = zip(*WAYS_OF_TEXTS[::4])
    assert {*ways} == {*TEXT_WAYS} and {*payloads} == {*TEXTS}


def leave_text_out(way, payload, place, logged, capfd):
    save_with_text(place.file, TEXTS[payload](place.marker))
    loaded = WAYS[way](place)
    assert not place.marker.exists()
    # A runner has a logger of its own.
    said = [*logged, *''.join(capfd.readouterr()).splitlines()]
    warnings = [text for text in said if 'is left out' in text]
    for holder in ("meta['cfg']", "meta['config']", "runtime_info['cfg']"):
        assert any(holder in text and '.pth' in text for text in warnings)
    if isinstance(loaded, dict) and 'meta' in loaded:
        assert loaded['meta'].keys() == {'epoch', 'iter'}
        assert loaded['message_hub']['runtime_info'] == {}


@pytest.mark.parametrize('payload', [t for t in TEXTS if 'deeply' not in t])
def test_text_is_armed(payload, place):
    """It runs where MMEngine reads it, or builds the model that it describes."""
    try:
        config = Config.fromstring(TEXTS[payload](place.marker), '.py')
        MODELS.build(config.model)
    except Exception as error:
        print(error)
    for name in ('strange_module', 'strange-module', 'strange_scope', 'mc'):
        sys.modules.pop(name, None)
    assert place.marker.exists()


@pytest.mark.parametrize('payload', TEXTS)
def test_inferencer_and_export_run_no_text(payload, place, logged):
    text = TEXTS[payload](place.marker)
    save_with_text(place.file, text)
    with pytest.raises(ValueError, match='Cannot find the config'):
        infer(place)
    layers = {f'architecture.{key}': value for key, value in WEIGHTS.items()}
    save_with_text(place.file, text, layers)
    cli.main(['export', place.path, '-o', 'student.pth'])
    assert 'cfg' not in load_checkpoint_file('student.pth')['meta']
    with pytest.raises(SystemExit, match='Leave --config-out away'):
        cli.main(['export', place.path, '-o', 's.pth', '--config-out', 'cfg.py'])
    assert not place.marker.exists()
    assert any('is left out' in text for text in logged)


def test_literal_text_stays(place, logged):
    """With it MMEngine resumes, and inferencers build the model."""
    text = "model = dict(type='mmpretrain.ResNet', depth=18)\nlr = -0.1\n"
    save_with_text(place.file, text)
    loaded = load_checkpoint_file(place.path)
    assert loaded['meta']['cfg'] == loaded['meta']['config'] == text
    assert loaded['message_hub']['runtime_info']['cfg'] == text
    runner(place.folder / 'run').resume(place.path)
    assert not [message for message in logged if 'is left out' in message]


@pytest.mark.parametrize('out', ['student.pth', 'student.torchscript'])
def test_export_runs_no_file_that_a_text_names(out, place, logged, capsys):
    place.folder.joinpath('evil.py').write_text(
        f"open({str(place.marker)!r}, 'w').close()\nmodel = {student()!r}\n"
    )
    model = MODELS.build(distillation(save_teacher(place.folder)))
    text = f"model = dict(architecture=dict(cfg_path='evil.py'))\nname = {out!r}\n"
    weights = dict(state_dict=model.state_dict(), meta=dict(cfg=text))
    torch.save(weights, place.file)
    with suppress(SystemExit):
        cli.main(['export', place.path, '-o', out])
    said = ' '.join([*logged, *capsys.readouterr()])
    assert "cfg_path='evil.py' is a file" in said
    # Where a config can do without it, weights are written.
    assert Path(out).exists() == out.endswith('pth') and not place.marker.exists()


COMMANDS = {
    'train --teacher-ckpt': ['train', 'config', '--teacher-ckpt', 'url'],
    'train --student-ckpt': ['train', 'config', '--student-ckpt', 'url'],
    'train --resume': ['train', 'config', '--resume', 'path'],
    'test': ['test', 'config', 'url'],
    'test of a plain model': ['test', 'plain', 'url'],
    'test of a name': ['test', 'plain', 'strange'],
    'plot': ['plot', 'config', 'url', '-o', 'out.png'],
    'check-teacher': ['check-teacher', 'config', '--teacher-ckpt', 'url'],
}


@pytest.mark.parametrize('command', COMMANDS)
def test_commands_run_nothing(command, place):
    models = dict(config=distillation(save_teacher(place.folder)), plain=student())
    for name, model in models.items():
        run_config('run', model, epochs=1, validate=True).dump(f'{name}.py')
        setattr(place, name, f'{name}.py')
    REFUSED['pickle that calls os.system'](place.file, place.marker)
    with pytest.raises((pickle.UnpicklingError, SystemExit), match='is refused: '):
        mmfakd(*COMMANDS[command])(place)
    assert not place.marker.exists()


def test_plain_model_is_tested_by_its_name(place, capsys):
    """MMEngine alone knows no names of model zoos."""
    torch.save(MODELS.build(student()).state_dict(), place.file)
    run_config('run', student(), validate=True, log_level='INFO').dump('plain.py')
    cli.main(['test', 'plain.py', 'strange'])
    assert 'accuracy/top1' in capsys.readouterr().out


def test_page_lists_payloads_and_ways():
    """The tables in the documents have what is tested here, no more and no less."""
    text = PAGE.read_text()
    sections = {part.partition('\n')[0]: part for part in text.split('\n## ')}
    cells = r'^\| (.+?) \| (.+?) \| (.*?) ?\|$'
    ways, payloads = (
        re.findall(cells, sections[title], re.M)[2:]
        for title in ('Ways in', 'Payloads')
    )
    untried = NO_TEXTS - {'inferencers of mmpretrain and mmdet', '`mmfakd export`'}
    assert ways == [
        (way, 'refused', 'not tried' if way in untried else 'left out') for way in WAYS
    ]
    assert [row[:2] for row in payloads] == [
        *((name, 'refused') for name in REFUSED),
        *((name, 'left out') for name in TEXTS),
    ]
    number = len(REFUSED) + len(TEXTS)
    assert f'of {number} payloads is tried by each of {len(WAYS)} ways' in text
