# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""MMEngine's hook removes the best checkpoint of its own folder alone."""

from types import SimpleNamespace

import pytest
from mmengine.hooks import CheckpointHook
from mmengine.logging import MessageHub, MMLogger

import mmfakd  # noqa: F401
from mmfakd.compat.best_of_others import is_own


def resumed(work_dir, best, **kwargs):
    """A hook, and the runner of a training that has noted its best checkpoints."""
    hub = MessageHub(str(work_dir))
    for key, path in best.items():
        hub.update_info(key, str(path))
    saved = []
    runner = SimpleNamespace(
        work_dir=str(work_dir),
        message_hub=hub,
        logger=MMLogger.get_current_instance(),
        epoch=2,
        iter=2,
        save_checkpoint=lambda folder, filename, **kwargs: saved.append(filename),
    )
    hook = CheckpointHook(rule='greater', save_last=False, **kwargs)
    return hook, runner, saved


def validate(work_dir, best, scores):
    """Run the hook of a resumed training, up to the best checkpoint."""
    hook, runner, saved = resumed(work_dir, best, save_best=list(scores))
    hook.before_train(runner)
    hook._save_best_checkpoint(runner, scores)
    return saved


@pytest.mark.parametrize('several', [False, True])
@pytest.mark.parametrize('where', ['own', 'linked', 'relative', 'other', 'inner'])
def test_the_best_before(where, several, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    work_dir = tmp_path / 'own'
    (work_dir / 'inner').mkdir(parents=True)
    (tmp_path / 'other').mkdir()
    (tmp_path / 'linked').symlink_to(work_dir)
    folders = dict(inner=work_dir / 'inner', relative=work_dir.relative_to(tmp_path))
    best = folders.get(where, tmp_path / where) / 'best_score_epoch_1.pth'
    best.touch()
    key, scores = 'best_ckpt', dict(score=1.0)
    if several:
        key, scores = 'best_ckpt_score', dict(score=1.0, other=2.0)
    saved = validate(work_dir, {key: best}, scores)
    assert saved[0] == 'best_score_epoch_2.pth'
    assert best.exists() == (where in ('other', 'inner'))


def test_nothing_better_is_published(tmp_path):
    """Of another folder's best checkpoint nothing is, and the training ends well."""
    other = tmp_path / 'other' / 'best_a_epoch_1.pth'
    other.parent.mkdir()
    other.touch()
    best = dict(best_ckpt_a=other, best_ckpt_b=other)
    options = dict(save_best=['a', 'b'], published_keys=['state_dict'])
    hook, runner, saved = resumed(tmp_path / 'own', best, **options)
    for key in ('a', 'b'):
        runner.message_hub.update_info(f'best_score_{key}', 2.0)
    hook.before_train(runner)
    hook._save_best_checkpoint(runner, dict(a=1.0, b=1.0))
    hook.after_train(runner)
    assert not saved and list(other.parent.iterdir()) == [other]


@pytest.mark.parametrize(
    ('path', 'own'),
    [
        ('s3://bucket/run/best_a.pth', True),
        ('s3://other/run/best_a.pth', False),
        ('work_dirs/run/best_a.pth', False),
        (None, True),
    ],
)
def test_folders_that_a_backend_maps(path, own):
    """As Petrel's does by its `path_mapping`."""
    backend = SimpleNamespace(join_path=lambda folder, name: f's3://bucket/run/{name}')
    hook = SimpleNamespace(file_backend=backend, out_dir='work_dirs/run')
    assert is_own(path, hook) is own
