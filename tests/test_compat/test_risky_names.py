# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""No checkpoint says which files of others a resumed training removes."""

import pytest
import torch

from mmfakd.compat import load_checkpoint_file
from mmfakd.compat.risky_names import drop_risky_names


@pytest.mark.parametrize(
    'notes',
    [
        dict(outdated_ckpts=['/home']),
        dict(outdated_ckpts=['..']),
        dict(outdated_ckpts=['epoch_1.pth', '../epoch_1.pth']),
        dict(outdated_ckpts='/'),
        dict(outdated_ckpts=[1]),
        dict(keep_ckpt_ids=['/../victim', 2]),
        dict(keep_ckpt_ids='123'),
        dict(best_ckpt='/home'),
        dict(best_ckpt='best_a/'),
        {'best_ckpt_coco/bbox_mAP': 'best_a/../b.pth'},
        dict(best_ckpt=['best_a.pth']),
    ],
    ids=str,
)
def test_names_of_others_are_left_out(notes):
    kept = dict(epoch=1, best_score=0.5)
    info = {**notes, **kept}
    assert drop_risky_names(info) == notes
    assert info == kept


@pytest.mark.parametrize(
    'notes',
    [
        dict(outdated_ckpts=[], keep_ckpt_ids=[]),
        dict(outdated_ckpts=['epoch_1.pth', 'best_a:b_iter_3.pth', 'interrupted.pth']),
        dict(keep_ckpt_ids=[1, 2]),
        dict(best_ckpt=None),
        {'best_ckpt_coco/bbox_mAP': 'work_dirs/a/best_coco_bbox_mAP_epoch_1.pth'},
        # Of another machine, another system, a bucket and a strategy with folders.
        dict(best_ckpt='/mnt/a/best_accuracy_top1_epoch_3.pth'),
        dict(best_ckpt=r'D:\\a\\best_accuracy_top1_epoch_3.pth'),
        dict(best_ckpt='s3://bucket/a/best_score_iter_3.pth'),
        dict(best_ckpt='a/best_score_epoch_3'),
        dict(last_ckpt='/a/epoch_3.pth', best_of=['score']),
        {1: 2},
    ],
    ids=str,
)
def test_names_that_trainings_note_stay(notes):
    before = dict(notes)
    assert drop_risky_names(notes) == {}
    assert notes == before


def test_loading_says_so(tmp_path, capfd):
    info = dict(outdated_ckpts=['../victim'], best_ckpt='best_score_epoch_1.pth')
    path = tmp_path / 'a.pth'
    torch.save(dict(state_dict={}, message_hub=dict(runtime_info=info)), path)
    loaded = load_checkpoint_file(path)['message_hub']['runtime_info']
    assert loaded == dict(best_ckpt='best_score_epoch_1.pth')
    said = ''.join(capfd.readouterr())
    assert "runtime_info['outdated_ckpts'] is left out" in said
    assert "'../victim'" in said
