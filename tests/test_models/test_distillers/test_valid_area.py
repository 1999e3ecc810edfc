# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""What the loss makes of the padding of a batch."""

from types import SimpleNamespace

import pytest
import torch
from mmengine.registry import MODELS
from mmpretrain.structures import DataSample
from torch import nn

from mmfakd.models.distillers import valid_area
from mmfakd.models.distillers.valid_area import (
    check_shapes,
    mask_padding,
    valid_shares,
)
from tests.helpers.toy import classifier, feature_distill, step, without_gradient
from tests.helpers.toy_detectors import detection_batch, pyramid_distiller, retinanet
from tests.test_models.test_algorithms.test_host_sync import no_synchronisation


def samples(*shapes):
    return [SimpleNamespace(img_shape=shape) for shape in shapes]


def test_shares():
    batch = torch.empty(2, 3, 96, 128)
    assert valid_shares(batch, samples((96, 64), (48, 128))) == [(1, 0.5), (0.5, 1)]
    assert valid_shares(batch, samples((96, 128), (96, 128))) == []
    # Larger than the batch: resized after the sample was made.
    assert valid_shares(batch, samples((192, 128), (96, 128, 3))) == []
    assert valid_shares(batch, None) == valid_shares(batch, [object()] * 2) == []


def test_all_samples_in_one_dict():
    """As mmyolo's preprocessor hands them on."""
    batch = torch.empty(2, 3, 96, 128)
    metas = [dict(img_shape=shape) for shape in ((96, 64), (48, 128, 3))]
    samples_of_all = dict(bboxes_labels=torch.empty(3, 6), img_metas=metas)
    assert check_shapes(samples_of_all)
    assert valid_shares(batch, samples_of_all) == [(1, 0.5), (0.5, 1)]
    metas = [dict(batch_input_shape=(96, 128))] * 2
    with pytest.raises(ValueError, match='ignore_padding=True needs') as caught:
        check_shapes(dict(samples_of_all, img_metas=metas))
    assert "`img_metas` have ['batch_input_shape']" in str(caught.value)
    with pytest.raises(ValueError, match=r"a dict with \['sup', 'unsup'\]"):
        check_shapes(dict(sup=[], unsup=[]))


def test_a_step_with_all_samples_in_one_dict():
    model = feature_distill(
        distiller=dict(
            type='mmfakd.LevelDistiller',
            student_levels=['backbone.layer1'],
            teacher_levels=['backbone.layer1'],
            level_loss=dict(type='mmrazor.L2Loss', normalize=False),
            ignore_padding=True,
        ),
        teacher=classifier(),
    )
    head = model.architecture.head
    head.loss = lambda feats, samples: dict(loss=head.fc(feats[-1]).sum())
    inputs, shapes = torch.rand(2, 3, 8, 8), [(8, 4), (4, 8)]
    told = dict(img_metas=[dict(img_shape=shape) for shape in shapes])
    found = model(inputs, told, mode='loss')['distill.loss_level0']
    assert found == model(inputs, samples(*shapes), mode='loss')['distill.loss_level0']
    model.distiller._shapes_known = None
    with pytest.raises(ValueError, match='ignore_padding=True needs'):
        model(inputs, dict(bboxes_labels=torch.rand(2, 6)), mode='loss')
    model.distiller.ignore_padding = False
    with pytest.raises(TypeError, match=r"dict of batches \(\['sup', 'unsup'\]\)"):
        model(dict(sup=inputs, unsup=inputs), dict(sup=[], unsup=[]), mode='loss')


def classifiers(**preprocessor):
    """A distillation of classifiers, in training, that ignores padding."""
    preprocessor = dict(
        type='ClsDataPreprocessor', mean=[127.0] * 3, std=[60.0] * 3, **preprocessor
    )
    return feature_distill(
        architecture=classifier(data_preprocessor=preprocessor),
        teacher=classifier(data_preprocessor=preprocessor),
        distiller=dict(
            type='mmfakd.LevelDistiller',
            student_levels=['backbone.layer1'],
            teacher_levels=['backbone.layer1'],
            level_loss=dict(type='mmrazor.L2Loss', normalize=False),
            ignore_padding=True,
        ),
    )


def shares_of(model, sizes, shapes, stacked=False, **info):
    """What a step takes to be images of these sizes whose samples say these shapes."""
    inputs = [torch.randint(0, 255, (3, *size), dtype=torch.uint8) for size in sizes]
    data_samples = [
        DataSample(metainfo=dict(img_shape=shape, **info)).set_gt_label(1)
        for shape in shapes
    ]
    data = dict(inputs=inputs, data_samples=data_samples)
    if stacked:
        data['inputs'] = torch.stack(inputs)
    step(model, data)
    return model.distiller._shares


@pytest.fixture
def told(monkeypatch):
    texts = []
    log = lambda text, **kwargs: texts.append(text)  # noqa: E731
    monkeypatch.setattr(valid_area, 'print_log', log)
    return texts


@pytest.mark.parametrize('stacked', [True, False])
@pytest.mark.parametrize(
    ('shape', 'expected'),
    [
        ((16, 16), [(1, 1), (0.5, 0.5)]),
        ((16, 32, 3), [(1, 1), (0.5, 1)]),
        ((64, 32), []),
    ],
)
def test_shapes_older_than_the_last_resizing(shape, expected, stacked, told):
    """As behind mmpretrain's `torchvision/Resize`."""
    model = classifiers()
    for _ in range(2):
        sizes, shapes = [(32, 32)] * 2, [(32, 32), shape]
        assert shares_of(model, sizes, shapes, stacked) == []
    (text,) = told
    assert f'img_shape={shape[:2]}, but came out of the pipeline with (32, 32)' in text
    # Whoever padded it, the sample says so.
    marked = shares_of(model, sizes, shapes, stacked, batch_input_shape=(32, 32))
    assert marked == expected
    assert len(told) == 1


def test_preprocessors_that_pad_and_do_not_say_so(told):
    """Images of several sizes, and a size that is a multiple of a number."""
    sizes = [(32, 16), (16, 32)]
    assert shares_of(classifiers(), sizes, sizes) == [(1, 0.5), (0.5, 1)]
    sizes = [(24, 32)] * 2
    for stacked in (True, False):
        model = classifiers(pad_size_divisor=32)
        assert shares_of(model, sizes, sizes, stacked) == [(0.75, 1)] * 2
    assert shares_of(classifiers(), sizes, [(24, 32, 3)] * 2) == []
    assert told == []


def test_shapes_that_a_preprocessor_corrects(told):
    model = classifiers()

    def correct(module, inputs, made):
        for sample in made['data_samples']:
            sample.set_metainfo(dict(img_shape=(32, 24)))

    model.data_preprocessor.register_forward_hook(correct)
    shares = shares_of(model, [(32, 32)] * 2, [(16, 16)] * 2)
    assert shares == [(1, 0.75)] * 2 and told == []


def test_shapes_are_noted_in_training_alone():
    model = classifiers()
    images, info = [torch.zeros(3, 8, 8)] * 2, dict(img_shape=(4, 4))
    for training in (False, True):
        samples = [DataSample(metainfo=info), DataSample()]
        data = dict(inputs=images, data_samples=samples)
        stale, plain = model.train(training).data_preprocessor(data)['data_samples']
        assert ('stale_shape' in stale.metainfo) is training
        assert not plain.metainfo
    # Views of an image, and batches without samples, pass as they are.
    for other in (dict(data, data_samples=None), dict(data, inputs=[[1], [2]])):
        valid_area._note(model.data_preprocessor, (other, True), {})


def test_pixels_that_an_image_covers_in_part_are_valid():
    ones = torch.ones(2, 1, 3, 4)
    (masked,), scale = mask_padding([ones], [(1, 0.3), (2 / 3, 1)])
    expected = torch.tensor([[[1, 1, 0, 0]] * 3, [[1] * 4, [1] * 4, [0] * 4]])
    assert torch.equal(masked[:, 0], expected.float())
    assert scale == 24 / (6 + 8)


def test_masks_wait_for_no_device():
    with no_synchronisation():
        mask_padding([torch.ones(2, 1, 3, 4)], [(1, 0.3), (2 / 3, 1)])


def distill(**kwargs):
    pytest.importorskip('mmcv.ops', reason='detection needs the full mmcv')
    torch.manual_seed(0)
    return feature_distill(
        architecture=retinanet(),
        teacher=retinanet(width=16),
        distiller=dict(pyramid_distiller(), **kwargs),
    )


def watched_step(model, data):
    """The losses of a step, the predictions, and the teacher's features."""
    seen = {}
    keep = lambda name: lambda module, inputs, output: seen.update({name: output})  # noqa: E731
    connector = model.distiller.connectors['review']
    handles = [
        connector.register_forward_hook(keep('ours')),
        model.teacher.neck.register_forward_hook(keep('theirs')),
    ]
    losses = step(model, data)
    for handle in handles:
        handle.remove()
    return losses, seen['ours'], seen['theirs']


def test_loss_is_the_mean_over_the_images():
    """Of a batch padded to 96 x 96: 64 x 96 and 80 x 64 pixels."""
    model = distill(ignore_padding=True)
    losses, ours, theirs = watched_step(model, detection_batch())
    for i, (prediction, target) in enumerate(zip(ours, theirs)):
        stride = 8 * 2**i
        errors = (prediction - target).square()
        valid = [
            error[:, : -(-height // stride), : -(-width // stride)].flatten()
            for error, height, width in zip(errors, (64, 80), (96, 64))
        ]
        assert torch.allclose(losses[f'distill.loss_level{i}'], torch.cat(valid).mean())
    assert without_gradient(model) == []


@pytest.mark.parametrize(
    ('ignore_padding', 'sizes'), [(False, []), (True, [(64, 96), (64, 96)])]
)
def test_loss_is_the_mean_over_all(ignore_padding, sizes):
    model = distill(ignore_padding=ignore_padding)
    losses, ours, theirs = watched_step(model, detection_batch(*sizes))
    for i, (prediction, target) in enumerate(zip(ours, theirs)):
        expected = torch.nn.functional.mse_loss(prediction, target)
        assert torch.equal(losses[f'distill.loss_level{i}'], expected)


def test_what_is_in_the_padding_does_not_matter():
    """Neither of the teacher's features, nor for the gradient of the predictions."""
    losses = []
    for garbage in (0, 1e3):
        model = distill(ignore_padding=True)
        torch.manual_seed(1)
        data = detection_batch()

        def spoil(module, inputs, output, garbage=garbage):
            for feature in output:
                columns = feature.shape[-1]
                # Of the second image; a pixel more is partly covered.
                feature[1, :, :, -(-64 * columns // 96) :] = garbage
            return output

        model.teacher.neck.register_forward_hook(spoil)
        losses.append(step(model, data))
    for key, value in losses[0].items():
        assert torch.equal(torch.as_tensor(value), torch.as_tensor(losses[1][key])), key


CWD = dict(type='mmrazor.ChannelWiseDivergence', tau=1)
KL = dict(type='mmrazor.KLDivergence', tau=1)
LOSSES = [
    dict(type='mmrazor.L2Loss', normalize=False, div_element=True),
    dict(type='mmrazor.L2Loss', normalize=False),
    dict(type='mmrazor.L2Loss'),
    dict(type='mmrazor.ATLoss'),
    dict(type='mmrazor.OFDLoss'),
    dict(type='mmrazor.PKDLoss'),
    CWD,
    dict(type='mmfakd.LogitMapLoss', loss=CWD),
    dict(type='mmfakd.LogitMapLoss', loss=KL, per_pixel=True),
    dict(type='mmfakd.FFTFeatureLoss'),
    dict(type='mmfakd.FFTFeatureLoss', focal_alpha=1.0),
    dict(type='mmfakd.HierarchicalContextLoss'),
]


def level_distiller(loss):
    cfg = dict(type='mmfakd.LevelDistiller', level_loss=loss, ignore_padding=True)
    return MODELS.build(dict(cfg, student_levels='a', teacher_levels='a'))


def padded_loss(loss, images, size, stride=1):
    """The loss of pairs of images, in a batch of a size; its garbage is no feature."""
    pairs = torch.full((2, len(images), 4, size, size), 7.0).double()
    pairs[1] = -3
    for i, pair in enumerate(images):
        pairs[:, i, :, : pair.shape[2], : pair.shape[3]] = pair
    shapes = [tuple(pair.shape[2:]) for pair in images]
    distiller = level_distiller(loss)
    distiller.begin_step(torch.empty(len(images), 3, size, size), samples(*shapes))
    ours, theirs = pairs
    ours = ours[..., ::stride, ::stride].clone().requires_grad_()
    found = distiller._level_loss(0, ours, theirs)
    found.backward()
    return found.detach()


@pytest.mark.parametrize('loss', LOSSES)
def test_no_loss_depends_on_the_padding(loss):
    """It is that without padding, where images are of one size."""
    torch.manual_seed(0)
    images = torch.randn(3, 2, 4, 8, 8, dtype=torch.float64)
    plain = padded_loss(loss, images, 8)
    for size in (12, 16, 32):
        torch.testing.assert_close(padded_loss(loss, images, size), plain)
    several = [images[0], images[1, ..., :4], images[2, ..., :6, :2]]
    narrow, wide = (padded_loss(loss, several, size) for size in (10, 20))
    torch.testing.assert_close(narrow, wide)


@pytest.mark.parametrize('loss', [CWD, dict(type='mmrazor.PKDLoss')])
def test_crops_wait_for_no_device(loss):
    distiller = level_distiller(loss)
    distiller.begin_step(torch.empty(2, 3, 8, 8), samples((8, 4), (6, 8)))
    maps = torch.rand(2, 2, 4, 8, 8)
    with no_synchronisation():
        distiller._level_loss(0, *maps)


@pytest.mark.parametrize('loss', LOSSES[7:9])
def test_maps_of_two_sizes(loss):
    torch.manual_seed(0)
    images = torch.randn(2, 2, 4, 8, 8, dtype=torch.float64)
    plain = padded_loss(loss, images, 8, stride=2)
    torch.testing.assert_close(padded_loss(loss, images, 16, stride=2), plain)


def test_losses_that_padding_cannot_be_left_out_of():
    for loss, name in (
        (dict(type='mmrazor.DistanceWiseRKD'), 'DistanceWiseRKD'),
        (
            dict(type='mmfakd.LogitMapLoss', loss=dict(KL, reduction='sum')),
            'LogitMapLoss of KLDivergence',
        ),
    ):
        with pytest.raises(ValueError, match=f'ignore_padding=True: {name}.*leave'):
            level_distiller(loss)
    review = dict(
        type='mmfakd.ReviewDistiller',
        student_levels='a',
        teacher_levels='a',
        connector=dict(
            type='mmfakd.LayerwiseConnector',
            in_channels=[4],
            out_channels=[4],
            sizes=[8],
        ),
        level_loss=nn.MSELoss(reduction='sum'),
    )
    MODELS.build(review)
    with pytest.raises(ValueError, match='MSELoss, as it is configured'):
        MODELS.build(dict(review, ignore_padding=True))
