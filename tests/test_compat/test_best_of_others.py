# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""MMEngine's hook removes the best checkpoint of its own folder alone."""

from types import SimpleNamespace

import pytest
from mmengine.hooks import CheckpointHook
from mmengine.logging import MessageHub, MMLogger

import mmfakd  # noqa: F401


def validate(work_dir, best, scores):
    """Run the hook of a resumed training, up to the best checkpoint."""
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
    hook = CheckpointHook(save_best=list(scores), rule='greater', save_last=False)
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
