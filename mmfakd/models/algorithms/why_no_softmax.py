# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""Why a softmax over what a model predicts would mean nothing."""

from __future__ import annotations

from torch import nn


def why_no_softmax(model: nn.Module) -> str | None:
    """Tell why a softmax over the predictions of a model would mean nothing.

    A loss function of sigmoids (``use_sigmoid=True``) says nothing here: classifiers of
    one class an image are trained by it, too, and predict by a softmax.

    Args:
        model (nn.Module): A classifier, detector or segmentor.

    Returns:
        str | None: What is said of the model: several labels an image have a sigmoid
        each, and an embedding has no classes. None for all others.
    """
    # Of libraries that need not be there.
    head = type(getattr(model, 'head', None))
    if any(base.__name__ == 'MultiLabelClsHead' for base in head.__mro__):
        return (
            f'has several labels an image: its {head.__name__} gives each class a '
            'sigmoid of its own'
        )
    if is_reid(model):
        return f'yields an embedding: its {head.__name__} tells no classes apart'
    return None


def is_reid(model: nn.Module) -> bool:
    """Tell whether a model is mmdet's for re-identification.

    Args:
        model (nn.Module): The model.

    Returns:
        bool: Whether it is: its batches hold several images a sample, and it yields an
        embedding.
    """
    return any(base.__name__ == 'BaseReID' for base in type(model).__mro__)
