# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""Where the features of a padded batch are those of images."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from mmengine.logging import print_log
from torch import Tensor, nn

from mmfakd.models.losses.mean_over import BATCH, IMAGES, PIXELS, mean_over

# Height and width of an image over those of its batch.
Share = tuple[float, float]
# What preprocessors write that pad a batch and keep `img_shape` true to it.
_PADDED = ('batch_input_shape', 'padding_size', 'img_padding_size')
# What is noted here: an `img_shape`, and the size that the image really had.
_STALE = 'stale_shape'


def valid_shares(inputs: Tensor, data_samples: Any) -> list[Share]:
    """Find how much of a batch its images cover; each begins at the top left.

    Args:
        inputs (Tensor): The batch (N, C, H, W).
        data_samples (Sequence | Mapping, optional): Its N data samples, with the
            ``img_shape`` of their image; see :func:`samples_of`.

    Returns:
        list[tuple[float, float]]: Share of height and width for each image. Empty
        where there is no padding, or the samples say nothing about it that is known
        to be true, see :func:`tell_stale`.
    """
    if _stale_shape(data_samples) is not None:
        return []
    height, width = inputs.shape[-2:]
    shares = []
    for shape in map(_image_shape, samples_of(data_samples)):
        if shape is None:
            return []
        shares.append((min(shape[0] / height, 1.0), min(shape[1] / width, 1.0)))
    return [] if all(share == (1, 1) for share in shares) else shares


def samples_of(data_samples: Any) -> list[Any]:
    """List what is known of each image of a batch.

    Args:
        data_samples (Sequence | Mapping, optional): Data samples, or a dict with all
            of a batch, in which ``img_metas`` has one for each image, as mmyolo's.

    Returns:
        list: A data sample or a dict for each image; empty where there are none.
    """
    if isinstance(data_samples, Mapping):
        data_samples = data_samples.get('img_metas')
    return list(data_samples) if isinstance(data_samples, (list, tuple)) else []


def check_shapes(data_samples: Any) -> bool:
    """Check that data samples tell which part of a batch is padding.

    Args:
        data_samples (Sequence | Mapping, optional): Data samples, see
            :func:`samples_of`.

    Returns:
        bool: Whether they do. Samples of classification may not, which is told.

    Raises:
        ValueError: If a dict stands in their place that does not.
    """
    samples = samples_of(data_samples)
    if samples and all(_image_shape(sample) is not None for sample in samples):
        return True
    cure = (
        "Let the pipeline's last transform keep it (`meta_keys` of PackDetInputs or "
        'PackInputs), and give the student a data preprocessor that hands it on, such '
        'as mmdet.DetDataPreprocessor; or leave out `ignore_padding`. Where all images '
        'are of one size, as behind mosaics, there is no padding to ignore.'
    )
    if isinstance(data_samples, Mapping):
        got = f'a dict with {sorted(map(str, data_samples))}'
        if samples and isinstance(samples[0], Mapping):
            got += f', whose `img_metas` have {sorted(map(str, samples[0]))}'
        raise ValueError(
            'ignore_padding=True needs the `img_shape` of every image, but the data '
            f'samples are {got}. {cure}'
        )
    if samples:
        print_log(
            f'ignore_padding=True has no effect: the data samples '
            f'({type(samples[0]).__name__}) have no `img_shape`. {cure}',
            logger='current',
            level=logging.WARNING,
        )
    return False


def note_stale(preprocessor: nn.Module) -> None:
    """Let a data preprocessor note whose ``img_shape`` is wrong, before it pads.

    Not every transform keeps ``img_shape`` true, and not every preprocessor says that
    it pads: mmpretrain's torchvision transforms and its ``ClsDataPreprocessor`` do
    neither.

    Args:
        preprocessor (nn.Module): The student's data preprocessor; it notes in training.
    """
    preprocessor.register_forward_pre_hook(_note, with_kwargs=True)


def _note(module: nn.Module, args: tuple, kwargs: dict) -> None:
    data = args[0] if args else kwargs.get('data')
    if not module.training or not isinstance(data, Mapping):
        return
    inputs, samples = data.get('inputs'), data.get('data_samples')
    if not isinstance(inputs, (Tensor, list, tuple)) or not isinstance(samples, list):
        return
    for image, sample in zip(inputs, samples):
        shape = _image_shape(sample)
        if shape is None or not isinstance(image, Tensor):
            continue
        told, loaded = tuple(shape[:2]), tuple(image.shape[-2:])
        if told != loaded and hasattr(sample, 'set_metainfo'):
            sample.set_metainfo({_STALE: (told, loaded)})


def tell_stale(data_samples: Any) -> bool:
    """Warn if ``img_shape`` is older than the last resizing of an image.

    What such an image does not cover of its batch need not be padding. Samples that
    say that they were padded, and those that a preprocessor has corrected, are
    believed.

    Args:
        data_samples (Sequence | Mapping, optional): See :func:`samples_of`.

    Returns:
        bool: Whether it warned.
    """
    stale = _stale_shape(data_samples)
    if stale is None:
        return False
    told, loaded = stale
    print_log(
        'ignore_padding=True has no effect on batches such as this one: an image has '
        f'img_shape={told}, but came out of the pipeline with {loaded}. A transform '
        "changed its size and did not say so, as mmpretrain's 'torchvision/...' do, "
        'and what is padding cannot be told. Take transforms that keep `img_shape`, as '
        "mmcv's Resize and RandomResize; if a pipeline or a collate_fn of your own "
        'has padded it, add `batch_input_shape` to the `metainfo` of its sample; or '
        'leave out `ignore_padding`.',
        logger='current',
        level=logging.WARNING,
    )
    return True


def _stale_shape(data_samples: Any) -> tuple[tuple, tuple] | None:
    """Size of an image as its sample has it, and as it was, if these differ."""
    for sample in samples_of(data_samples):
        shape, info = _image_shape(sample), _metainfo(sample)
        noted = info.get(_STALE)
        if shape is None or noted is None or any(key in info for key in _PADDED):
            continue
        if tuple(shape[:2]) == noted[0]:
            return noted
    return None


def padded_images(
    data_samples: Any, height: int, width: int
) -> Iterator[tuple[int, tuple[int, int], bool]]:
    """List the images of a batch that are smaller than it.

    Args:
        data_samples (Sequence | Mapping, optional): See :func:`samples_of`.
        height (int): Height of the batch.
        width (int): Its width.

    Yields:
        tuple[int, tuple[int, int], bool]: Number of the image; its height and width;
        whether it is certain that the rest is padding. Preprocessors that pad say so
        (mmdet's by ``batch_input_shape``, mmseg's by ``padding_size``); without that
        ``img_shape`` may be older than the last resizing.
    """
    for i, sample in enumerate(samples_of(data_samples)):
        shape = _image_shape(sample)
        info = _metainfo(sample)
        if shape is not None and (shape[0] < height or shape[1] < width):
            yield i, (shape[0], shape[1]), any(key in info for key in _PADDED)


def _image_shape(sample: Any) -> Sequence[int] | None:
    """Height and width of an image, and maybe more, as far as its sample tells."""
    if isinstance(sample, Mapping):
        return sample.get('img_shape')
    return getattr(sample, 'img_shape', None)


def _metainfo(sample: Any) -> Mapping:
    if isinstance(sample, Mapping):
        return sample
    return getattr(sample, 'metainfo', {})


def refuse_unmaskable(loss: nn.Module) -> None:
    """Raise for a loss whose padding cannot be left out.

    Args:
        loss (nn.Module): The loss of a level.

    Raises:
        ValueError: If it is not known what it is a mean over.
    """
    if mean_over(loss) not in (PIXELS, IMAGES, BATCH):
        name = type(loss).__name__
        inner = getattr(loss, 'loss', None)
        given = f'{name} of {type(inner).__name__}' if inner is not None else name
        raise ValueError(
            f'ignore_padding=True: {given}, as it is configured, is not known to be a '
            'mean over pixels, and its value would depend on the padding. Expected '
            "such a mean, as dict(type='mmrazor.L2Loss', normalize=False, "
            'div_element=True) is, or a mean over images, as '
            "dict(type='mmrazor.ChannelWiseDivergence'). Take one of these, leave "
            'ignore_padding out, or, in a class of your own, say what it is: '
            f"`mean_over = '{PIXELS}'` if terms that are 0 where both features are "
            f"are averaged over all pixels, '{IMAGES}' if each image yields its own "
            'loss and these are averaged.'
        )


def without_padding(
    loss: nn.Module,
    compare: Callable[[Tensor, Tensor], Tensor],
    features: Sequence[Tensor],
    shares: Sequence[Share],
) -> Tensor:
    """Compute a loss of what the images of a batch cover.

    Python numbers alone decide, so nothing waits for a device.

    Args:
        loss (nn.Module): The loss, of a kind that :func:`refuse_unmaskable` lets pass.
        compare (Callable): Calls it with two features.
        features (Sequence[Tensor]): Two features (N, C, H, W) of one device.
        shares (Sequence[tuple[float, float]]): See :func:`valid_shares`.

    Returns:
        Tensor: Scalar. Of a mean over pixels that over all valid ones; of a mean over
        images that of the losses of their crops.
    """
    rule = mean_over(loss)
    ours, theirs = features
    # The loss resizes others.
    one_size = ours.shape[-2:] == theirs.shape[-2:]
    if rule == PIXELS and one_size:
        masked, scale = mask_padding(features, shares)
        return scale * compare(*masked)
    pairs = list(zip(*(_crops(feature, shares) for feature in features)))
    if rule == BATCH and one_size:
        student, teacher = (
            torch.cat([crop.flatten(2) for crop in crops], 2).unsqueeze(2)
            for crops in zip(*pairs)
        )
        return compare(student, teacher)
    losses = torch.stack([compare(*pair) for pair in pairs])
    if rule == IMAGES:
        return losses.mean()
    pixels = [crop.shape[2:].numel() for _, crop in pairs]
    return sum(n / sum(pixels) * one for n, one in zip(pixels, losses))


def mask_padding(
    features: Sequence[Tensor], shares: Sequence[Share]
) -> tuple[list[Tensor], float]:
    """Set features to zero outside of the images.

    Args:
        features (Sequence[Tensor]): Features (N, C, H, W) of one size and device.
        shares (Sequence[tuple[float, float]]): See :func:`valid_shares`.

    Returns:
        tuple[list[Tensor], float]: The features with zeros, and the number of pixels
        over that of valid ones, by which a mean over all becomes one over these.
    """
    height, width = features[0].shape[-2:]
    mask = features[0].new_zeros(len(shares), 1, height, width)
    valid = 0
    for own, share in zip(mask, shares):
        top, left = _valid_size(height, width, share)
        own[:, :top, :left] = 1
        valid += top * left
    return [feature * mask for feature in features], mask.numel() / valid


def _crops(feature: Tensor, shares: Sequence[Share]) -> list[Tensor]:
    """The valid part of each image, (1, C, h, w), contiguous, as losses view it."""
    height, width = feature.shape[-2:]
    sizes = [_valid_size(height, width, share) for share in shares]
    return [
        image[None, :, :top, :left].contiguous()
        for image, (top, left) in zip(feature, sizes)
    ]


def _valid_size(height: int, width: int, share: Share) -> tuple[int, int]:
    # A pixel that an image covers in part is valid; the tolerance is for rounding.
    top, left = (math.ceil(s * n - 1e-6) for s, n in zip(share, (height, width)))
    return top, left
