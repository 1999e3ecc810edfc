# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""Pyramids of detectors that do not match, and what makes them match."""

import pytest
import torch
from mmengine.registry import MODELS
from mmengine.runner import Runner

from mmfakd.models.layers import FrequencyAttention
from tests.helpers.toy import feature_distill, step, without_gradient
from tests.helpers.toy_detectors import (
    detection_batch,
    detection_run,
    pyramid_distiller,
    retinanet,
)

# The first three maps of a neck.
MAPS = [dict(recorder='neck', data_idx=i) for i in range(3)]


def shallow_teacher(channels=16):
    """Its maps have strides of 4, 8, 16, ... where the others' have 8, 16, 32, ..."""
    cfg = retinanet(width=16, channels=channels, num_outs=5)
    cfg['neck'].update(start_level=0, add_extra_convs=False)
    return cfg


def distill(teacher=None, student=None, levels=None, **connector):
    distiller = pyramid_distiller(**connector)
    if levels is not None:
        distiller.update(student_levels=levels, teacher_levels=levels)
    return feature_distill(
        architecture=student or retinanet(),
        teacher=teacher or retinanet(width=16),
        distiller=distiller,
    )


def error_of(model, *sizes):
    with pytest.raises(ValueError) as error:
        step(model, detection_batch(*sizes))
    return str(error.value)


def check_learns(model, *sizes):
    losses = step(model, detection_batch(*sizes))
    assert all(torch.as_tensor(value).isfinite().all() for value in losses.values())
    assert without_gradient(model) == []
    return losses


# ---- no neck


@pytest.mark.parametrize('role', ['architecture', 'teacher'])
def test_detector_without_a_neck(role):
    """A Faster R-CNN that works on the backbone's third stage."""
    c4 = dict(cfg_path='mmdet::faster_rcnn/faster-rcnn_r50-caffe_c4-1x_coco.py')
    pair = {'architecture': retinanet(), 'teacher': retinanet(), role: c4}
    name = 'student' if role == 'architecture' else 'teacher'
    with pytest.raises(ValueError) as error:
        feature_distill(distiller=pyramid_distiller(), **pair)
    assert str(error.value).startswith(
        f"{name} recorder 'neck': the {name} (FasterRCNN) has no layer 'neck'. It has "
        "no neck: record layers of its backbone. Nearest names: '"
    )


def test_backbones_stand_in_for_a_neck():
    student = retinanet(
        neck=None,
        backbone=dict(retinanet()['backbone'], out_indices=(3,)),
    )
    student['bbox_head'].update(in_channels=64)
    student['bbox_head']['anchor_generator'].update(strides=[32])
    model = distill(
        student=student,
        levels=['backbone.layer3', 'backbone.layer4'],
        in_channels=[32, 64],
        out_channels=[64, 128],
    )
    losses = check_learns(model)
    assert {'distill.loss_level0', 'distill.loss_level1'} <= losses.keys()


# ---- depth


@pytest.mark.parametrize(('ours', 'theirs'), [(3, 4), (4, 3)])
def test_necks_of_different_depth(ours, theirs):
    pair = retinanet(num_outs=ours), retinanet(width=16, num_outs=theirs)
    message = error_of(distill(pair[1], pair[0]))
    assert f'{ours} student levels stand against {theirs} teacher levels' in message
    assert "single maps of a neck are [dict(recorder='neck', data_idx=0)" in message
    # Those that both have, one by one.
    check_learns(distill(pair[1], pair[0], levels=MAPS))


def test_map_that_a_neck_does_not_have():
    levels = [*MAPS[:2], dict(recorder='neck', data_idx=3)]
    model = distill(retinanet(width=16, num_outs=4), levels=levels)
    message = error_of(model)
    assert message.startswith(
        "student level 'neck': data_idx=3 finds no part 3 in a tuple of 3 (a tensor of "
        'shape (2, 16, 12, 12), '
    )


def test_connector_of_another_depth():
    model = distill(in_channels=[16] * 4, out_channels=[16] * 4)
    message = error_of(model)
    assert 'expects a sequence of 4 features, shallow to deep, and got 3' in message


# ---- strides


def test_maps_of_different_strides():
    message = error_of(distill(shallow_teacher(), levels=MAPS))
    assert message == (
        "level 0: the prediction has shape (2, 16, 12, 12), the teacher's feature "
        "(2, 16, 24, 24) (student 'neck[0]', teacher 'neck[0]'). Set in the connector "
        "`scales=[2, 2, 2]` (the teacher's sizes over the student's), or `sizes=[(24, "
        '24), (12, 12), (6, 6)]` if all images have one size.'
    )
    model = distill(shallow_teacher(), levels=MAPS, scales=[2, 2, 2])
    check_learns(model)
    check_learns(model, (50, 90), (96, 64))


def test_maps_of_the_same_strides_at_other_places():
    """The better choice: the student's first map is the teacher's second."""
    distiller = pyramid_distiller()
    theirs = [dict(recorder='neck', data_idx=i) for i in (1, 2, 3)]
    distiller.update(student_levels=MAPS, teacher_levels=theirs)
    model = feature_distill(
        architecture=retinanet(), teacher=shallow_teacher(), distiller=distiller
    )
    check_learns(model)


def test_sizes_that_are_out_of_proportion():
    """Maps of 3 and 2 pixels, by no power of two."""
    teacher = shallow_teacher()
    student = retinanet(num_outs=4)
    levels = [*MAPS, dict(recorder='neck', data_idx=3)]
    model = distill(
        teacher, student, levels, in_channels=[16] * 4, out_channels=[16] * 4
    )
    message = error_of(model)
    assert 'scales' not in message
    assert '`sizes=[(24, 24), (12, 12), (6, 6), (3, 3)]` if all images' in message
    assert 'pad the batches further (`pad_size_divisor` of the student' in message
    # 128 pixels: 16, 8, 4, 2 of the student against 32, 16, 8, 4.
    student['data_preprocessor'].update(pad_size_divisor=128)
    connector = dict(in_channels=[16] * 4, out_channels=[16] * 4, scales=2)
    check_learns(distill(teacher, student, levels, **connector))


# ---- channels, classes


def test_wrong_out_channels():
    message = error_of(distill(retinanet(width=16, channels=32)))
    assert message.endswith('Set in the connector `out_channels=[32, 32, 32]`.')
    check_learns(distill(retinanet(width=16, channels=32), teacher_channels=32))


def test_channels_and_strides_are_told_together():
    message = error_of(distill(shallow_teacher(channels=32), levels=MAPS))
    assert (
        'Set in the connector `out_channels=[32, 32, 32]` and `scales=[2, 2' in message
    )


def test_wrong_in_channels():
    message = error_of(distill(student=retinanet(channels=32)))
    assert message == (
        'ReviewConnector, level 2 (of 0 to 2): got 32 channels (a feature of shape '
        '(2, 32, 3, 3)), expected 16: correct `in_channels` or the recorded layer.'
    )


def test_teacher_of_other_classes():
    check_learns(distill(retinanet(width=16, num_classes=7)))


# ---- images


def test_images_smaller_than_the_filter():
    """Of 16 modes a side maps of 4, 2 and 1 pixels use what they have."""
    transform = dict(type='mmfakd.FrequencyAttention', modes=16)
    model = distill(transform=transform)
    check_learns(model, (32, 32), (20, 24))
    layers = model.distiller.modules()
    filters = [layer for layer in layers if isinstance(layer, FrequencyAttention)]
    used = []
    for layer in filters:
        # Coefficients of the filter, by gradient.
        moved = sum(
            int(p.grad.ne(0).any(-1).sum()) for p in layer.parameters() if p.dim() > 2
        )
        used.append(moved)
    assert len(filters) == 3 and used[0] > used[1] > used[2] > 0
    # Then larger ones, in the same model.
    model.zero_grad()
    check_learns(model, (320, 288), (256, 320))


def test_single_image_whose_deepest_map_is_one_pixel():
    message = error_of(distill(), (32, 32))
    assert 'level 2' in message and 'it needs at least two images' in message
    check_learns(distill(norm_cfg=dict(type='GN', num_groups=2)), (32, 32))


def test_missing_training_image(tmp_path):
    """In a worker process, whose errors travel."""
    cfg = run(tmp_path, workers=1)
    (tmp_path / 'images' / '2.png').unlink()
    with pytest.raises(FileNotFoundError, match=r'images/2\.png'):
        Runner.from_cfg(cfg).train()


def test_missing_validation_image_loses_nothing(tmp_path):
    cfg = run(tmp_path)
    boxes = (tmp_path / 'boxes.json').read_text()
    (tmp_path / 'val.json').write_text(boxes.replace('3.png', 'gone.png'))
    cfg.val_dataloader.dataset.ann_file = str(tmp_path / 'val.json')
    with pytest.raises(FileNotFoundError, match=r'images/gone\.png'):
        Runner.from_cfg(cfg).train()
    saved = torch.load(tmp_path / 'run' / 'epoch_1.pth', weights_only=False)
    assert saved['meta']['epoch'] == 1


def run(folder, workers=0):
    torch.manual_seed(0)
    path = str(folder / 'teacher.pth')
    torch.save(MODELS.build(retinanet(width=16)).state_dict(), path)
    model = dict(
        type='mmfakd.FeatureDistill',
        architecture=retinanet(),
        teacher=retinanet(width=16),
        teacher_ckpt=path,
        distiller=pyramid_distiller(),
    )
    return detection_run(folder, model, epochs=2, workers=workers)
