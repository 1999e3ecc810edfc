# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""Pairs of stock models, from the command that writes their config to the export.

A plain test run takes a few of them; `-m matrix` takes all the others, for which
`.dev_scripts/pair_matrix.py` is the way that is never out of memory.
"""

import math
import shutil

import pytest
from mmengine.config import Config
from mmengine.hub import get_config
from mmengine.runner.checkpoint import _load_checkpoint
from model_pairs import PAIRS

from mmfakd.pairing.input_size import pad_size_divisor
from mmfakd.utils import export_student
from tests.helpers.pair_runs import make_config, save_weights, two_steps


def test_names_are_unique():
    names = [pair.name for pair in PAIRS]
    assert len(set(names)) == len(names)


def test_there_are_enough():
    def families(found):
        return {
            name.rpartition('::')[2].split('/')[-2]
            for pair in found
            for name in (pair.student, pair.teacher)
        }

    classification, detection, segmentation = (
        [pair for pair in PAIRS if pair.library == library]
        for library in ('mmpretrain', 'mmdet', 'mmseg')
    )
    assert len(classification) >= 30 and len(families(classification)) >= 12
    assert len(detection) >= 15 and len(families(detection)) >= 8
    assert len(segmentation) >= 8 and len(families(segmentation)) >= 8


def table():
    for pair in PAIRS:
        marks = [] if pair.by_default else [pytest.mark.matrix]
        yield pytest.param(pair, id=pair.name, marks=marks)


@pytest.fixture
def folder(tmp_path):
    """A folder that is emptied: checkpoints of a hundred pairs would fill a disk."""
    yield tmp_path
    shutil.rmtree(tmp_path)


@pytest.mark.parametrize('pair', list(table()))
def test_pair(pair, folder, record_property):
    if pair.library == 'mmdet':
        pytest.importorskip('mmcv.ops', reason='detection needs the full mmcv')
    if pair.library == 'mmseg':
        pytest.importorskip('mmseg.models', reason='segmentation needs mmseg')
    read = get_config if '::' in pair.student else Config.fromfile
    stock_cfg = read(pair.student)
    if pair.library == 'mmdet':
        # A teacher may ask for wider padding, which the student alone then gets, too.
        own = pad_size_divisor(stock_cfg)
        padding = math.lcm(32, own, pad_size_divisor(read(pair.teacher)))
        if padding > own:
            stock_cfg.model.data_preprocessor.pad_size_divisor = padding
    weights = dict(
        student_ckpt=folder / 'student.pth', teacher_ckpt=folder / 'teacher.pth'
    )
    stock, alone = two_steps(
        stock_cfg, pair.size, folder / 'alone', weights['student_ckpt']
    )
    save_weights(pair.teacher, weights['teacher_ckpt'])

    path = folder / 'pair.py'
    levels = make_config(pair, path, **weights)
    most = 120 if pair.method == 'ofd' else 80
    assert len(path.read_text().splitlines()) <= most
    runner, taught = two_steps(Config.fromfile(path), pair.size, folder / 'taught')
    losses = [loss for losses in taught.losses for loss in losses.values()]
    assert len(losses) > 2 and all(map(math.isfinite, losses))
    # The student sees the batch that it sees without a teacher.
    shared = alone.losses[0].keys() & {
        k[len('student.') :] for k in taught.losses[0] if k.startswith('student.')
    }
    assert any('loss' in key for key in shared)
    for key in shared:
        assert taught.losses[0][f'student.{key}'] == pytest.approx(alone.losses[0][key])

    model = runner.model
    first = {f'architecture.{name}' for name in alone.learned_first}
    assert sorted(first - taught.learned_first) == []
    learning = {f'architecture.{name}' for name in alone.learned}
    if pair.library == 'mmdet':
        # What has no box in the first step depends on predictions in the second, and
        # there the two students differ: a path must be there, its gradient may be zero.
        assert sorted(learning - taught.reached) == []
        learning = first
    added = {n: p for n, p in model.distiller.named_parameters() if p.requires_grad}
    learning |= {f'distiller.{name}' for name in added}
    assert sorted(learning - taught.learned) == []

    runner.save_checkpoint(str(folder), 'last.pth', save_optimizer=False)
    student = export_student(_load_checkpoint(str(folder / 'last.pth')))['state_dict']
    assert student.keys() == stock.model.state_dict().keys()
    # SwinV2 takes some of its tables from no checkpoint, not even from its own.
    own = stock.model.load_state_dict(stock.model.state_dict(), strict=False)
    assert stock.model.load_state_dict(student, strict=False) == own

    record_property('levels', ', '.join(levels))
    record_property('added', sum(p.numel() for p in added.values()))
