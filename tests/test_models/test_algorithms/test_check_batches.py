# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""Labels and images that a model cannot take are told on the CPU, by name."""

import copy

import pytest
import torch
from mmengine.config import ConfigDict
from mmengine.registry import MODELS

from mmfakd.models.algorithms.check_batches import check_batches
from tests.helpers.toy import batch, classifier, feature_distill, losses_of
from tests.helpers.toy_detectors import (
    detection_batch,
    detector_distillation,
    retinanet,
)


def relabelled(value, **kwargs):
    data = batch(**kwargs)
    data['data_samples'][2].set_gt_label(value)
    data['data_samples'][2].set_metainfo(dict(img_path='images/2.png'))
    return data


@pytest.mark.parametrize('label', [10, 11, -1])
def test_label_of_no_class(label):
    model = feature_distill()
    with pytest.raises(ValueError) as caught:
        losses_of(model, relabelled(label))
    message = str(caught.value)
    assert message.startswith(
        f'The image images/2.png: label {label}, but the student has num_classes=10; '
        'expected 0 to 9. Set `num_classes` of its head'
    )


def test_every_batch_is_looked_at_and_copies_look_too():
    model = feature_distill()
    losses_of(model, batch())
    for one in (model, copy.deepcopy(model)):
        with pytest.raises(ValueError, match='label 10'):
            losses_of(one, relabelled(10))


def test_labels_that_are_fine():
    """PyTorch's cross entropy skips -100; without training nothing is looked at."""
    model = feature_distill()
    losses_of(model, relabelled(-100))
    model.data_preprocessor(relabelled(10), False)


def test_scores_of_other_classes():
    data = batch()
    for sample in data['data_samples']:
        sample.set_gt_score(torch.ones(7) / 7)
    with pytest.raises(ValueError, match='`gt_score` has 7 values.*num_classes=10'):
        losses_of(feature_distill(), data)


def test_scores_that_the_preprocessor_makes():
    mixup = dict(augments=dict(type='mmpretrain.Mixup', alpha=0.2))
    student = classifier(data_preprocessor=dict(num_classes=8, batch_augments=mixup))
    with pytest.raises(ValueError, match='num_classes=8, but the head.*num_classes=10'):
        feature_distill(architecture=student)


@pytest.mark.parametrize('label', [3, -1])
def test_label_of_a_box(label):
    """Mmdet would take it for the background, or for nothing."""
    model = MODELS.build(ConfigDict(detector_distillation()))
    losses_of(model, detection_batch())
    data = detection_batch()
    data['data_samples'][1].gt_instances.labels[1] = label
    with pytest.raises(ValueError, match=f'label {label}, .*num_classes=3; .* 0 to 2'):
        losses_of(model, data)


def test_plain_models_and_no_second_check():
    model = MODELS.build(ConfigDict(classifier()))
    check_batches(model)
    check_batches(model)
    assert len(model.data_preprocessor._forward_pre_hooks) == 1
    with pytest.raises(ValueError, match='but the model has num_classes=10'):
        model.data_preprocessor(relabelled(10), True)


# ---- channels


@pytest.mark.parametrize(
    ('student', 'teacher', 'images', 'who', 'wanted'),
    [
        (1, 1, 3, 'teacher', 1),
        (1, 3, 3, 'student', 1),
        (3, 1, 3, 'teacher', 1),
        (3, 1, 1, 'student', 3),
        (1, 3, 1, 'teacher', 3),
    ],
)
def test_channels(student, teacher, images, who, wanted):
    model = feature_distill(
        architecture=classifier(in_channels=student),
        teacher=classifier(width=8, in_channels=teacher),
    )
    with pytest.raises(ValueError) as caught:
        losses_of(model, batch(channels=images))
    message = str(caught.value)
    colour = {1: 'grayscale', 3: 'color'}[wanted]
    assert message.startswith(
        f'The {who} takes images of {wanted} channel(s), but got a batch with {images}'
    )
    assert f"Set `in_channels={images}` of the {who}'s backbone" in message
    assert f'color_type={colour!r}' in message


def test_grey_images_for_a_detector():
    model = MODELS.build(ConfigDict(retinanet()))
    check_batches(model)
    data = detection_batch()
    data['inputs'] = [image[:1] for image in data['inputs']]
    with pytest.raises(ValueError, match='has 1 channel.*expects 3.*`color_type`'):
        model.data_preprocessor(data, True)


def test_one_channel_that_becomes_three_is_told():
    model = feature_distill(
        architecture=classifier(data_preprocessor=dict(mean=[1, 2, 3], std=[1, 1, 1]))
    )
    with pytest.warns(UserWarning, match='the one channel is taken 3 times'):
        model.data_preprocessor(batch(channels=1), True)
