# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""What mmfakd stands on: the bounds of every library, in both families."""

from __future__ import annotations

from collections.abc import Mapping

from .family import Family
from .requirement import Requirement

_MMENGINE_BELOW = (
    '0.11.0',
    '0.11 looks for installed packages in the wrong folder, which breaks inheriting '
    'their configs',
)

# As in the files of requirements/, a test compares them.
COMMON = (
    Requirement('torch', '2.1', None, 'mmfakd is tested from 2.1 on'),
    Requirement('mmrazor', '1.0.0', '1.1.0', 'mmfakd extends its classes'),
    Requirement('joblib', '0', None, 'mmrazor imports it without declaring it'),
    # Needed where there is a file of its format.
    Requirement('safetensors', '0.4', None, 'mmfakd is tested from 0.4 on', False),
)

STOCK = Family(
    'stock',
    "OpenMMLab's own releases",
    (
        Requirement('mmengine', '0.10.0', *_MMENGINE_BELOW),
        Requirement('mmcv', '2.1.0', '2.2.0', 'mmrazor and mmdet refuse 2.2'),
        # Without these the registries, algorithms and layers still work.
        Requirement('mmpretrain', '1.2.0', '1.3.0', 'mmfakd is tested with 1.2', False),
        Requirement('mmdet', '3.3.0', '3.4.0', 'mmfakd is tested with 3.3', False),
        Requirement(
            'mmsegmentation',
            '1.2.2',
            '1.3.0',
            'mmfakd is tested with 1.2',
            False,
            'mmseg',
        ),
    ),
    # Without compiled operators, and the name that mmcv had before version 2.
    others=('mmcv-lite', 'mmcv-full'),
    needs_pkg_resources=True,
)

ONEDL = Family(
    'onedl',
    'the maintained line of the OpenMMLab libraries',
    (
        Requirement('onedl-mmengine', '0.10.8', *_MMENGINE_BELOW, module='mmengine'),
        Requirement(
            'onedl-mmcv', '2.3.0', '2.4.0', 'mmpretrain refuses 2.4', module='mmcv'
        ),
        Requirement(
            'onedl-mmpretrain',
            '1.3.0',
            '1.4.0',
            'mmfakd is tested with 1.3',
            False,
            'mmpretrain',
        ),
        Requirement(
            'onedl-mmdetection',
            '3.4.0',
            '3.6.0',
            'mmfakd is tested with 3.5',
            False,
            'mmdet',
        ),
        Requirement(
            'onedl-mmsegmentation',
            '1.3.0',
            '1.5.0',
            'mmfakd is tested with 1.4',
            False,
            'mmseg',
        ),
    ),
)

FAMILIES = (STOCK, ONEDL)


def families_in(versions: Mapping[str, str]) -> list[Family]:
    """List the families that distributions are of.

    Args:
        versions (Mapping[str, str]): Distributions and their versions.

    Returns:
        list[Family]: One, as it should be; two where they are mixed; or none.
    """
    return [family for family in FAMILIES if family.installed(versions)]
