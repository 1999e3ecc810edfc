# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""The methods that a config can be written for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Method:
    """A method of distillation.

    Args:
        title (str): Its name and source.
        compares (str): ``'levels'``, maps and pooled feature; ``'maps'`` alone;
            ``'pooled'``, the pooled feature alone; or ``'logits'``.
        kinds (Sequence[str]): The kinds of models that it goes with.
        about (str): What the weight of its loss is, for a comment.
        reviews (bool): Whether it fuses levels from deep to shallow.
    """

    title: str
    compares: str = 'levels'
    kinds: Sequence[str] = ('classifier', 'detector', 'segmentor')
    about: str = ''
    reviews: bool = False

    @property
    def by_level(self) -> bool:
        """bool: whether it has a loss, and a weight, for each pair of levels."""
        return self.compares in ('levels', 'maps')


# Students of classifiers and detectors scored higher than with the review wherever both
# were measured, in less time (docs/en/choosing.md).
DEFAULT_METHOD = 'fakd-layer'
# In the pyramid of ReviewKD.
MOST_REVIEWKD_CHANNELS = 512
_CLASSIFIERS = ('classifier',)
METHODS = {
    'fakd-review': Method(
        'FAM-KD in the review pyramid (arXiv 2403.05894)', reviews=True
    ),
    'fakd-layer': Method('FAM-KD layer to layer (arXiv 2403.05894)'),
    'reviewkd': Method('ReviewKD (arXiv 2104.09044)', reviews=True),
    'kd': Method(
        'KD (arXiv 1503.02531)',
        'logits',
        ('classifier', 'segmentor'),
        "As much as the labels have, as in ImageNet's recipes at temperature 1; those "
        'of CIFAR-100 have tau=4 and nine times as much.',
    ),
    'dkd': Method(
        'DKD (arXiv 2203.08679)',
        'logits',
        _CLASSIFIERS,
        "Numbers of ImageNet's recipe; those of CIFAR-100 have tau=4, beta 2 to 8 and "
        'a warm-up of 20 epochs.',
    ),
    'nkd': Method(
        'NKD (arXiv 2303.13005)',
        'logits',
        _CLASSIFIERS,
        "Numbers of ImageNet's recipe; that of CIFAR-100 has tau=3 and gamma=3.5.",
    ),
    'lskd': Method(
        'KD of standardised logits (arXiv 2403.01427)',
        'logits',
        _CLASSIFIERS,
        "Numbers of CIFAR-100's recipe, which has 0.1 for the labels.",
    ),
    'dist': Method(
        'DIST (arXiv 2205.10536)',
        'logits',
        _CLASSIFIERS,
        "Numbers of mmrazor's recipe.",
    ),
    'pkd': Method(
        'PKD (arXiv 2207.02039)',
        'maps',
        about="6 is mmrazor's weight for detectors of two stages, 10 for one stage.",
    ),
    'cwd': Method(
        'CWD (arXiv 2011.13256)', 'maps', about="Temperature and weight are mmrazor's."
    ),
    'at': Method(
        'AT (arXiv 1612.03928)',
        'maps',
        about='1000 is the weight on CIFAR-100, on features after their activation.',
    ),
    'fitnet': Method(
        'FitNet (arXiv 1412.6550), with its hint in the middle',
        'maps',
        about='100 is the weight on CIFAR-100.',
    ),
    'ofd': Method(
        'OFD (arXiv 1904.01866), before the activation that ends a level',
        'maps',
        _CLASSIFIERS,
        'As published: the deeper, the more.',
    ),
    'rkd': Method(
        'RKD (arXiv 1904.05068), on the pooled features',
        'pooled',
        _CLASSIFIERS,
        'Weights of CIFAR-100.',
    ),
    'crd': Method(
        'CRD (arXiv 1910.10699), on the pooled features',
        'pooled',
        _CLASSIFIERS,
        'Numbers of CIFAR-100. The memory banks hold one embedding for each training '
        'image.',
    ),
}


def methods_for(kind: str) -> list[str]:
    """List the methods that go with a kind of model.

    Args:
        kind (str): ``'classifier'``, ``'detector'`` or ``'segmentor'``.

    Returns:
        list[str]: Their names.
    """
    return [name for name, method in METHODS.items() if kind in method.kinds]
