# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""In how many groups of channels the filter of a wide map works."""

from __future__ import annotations

import math

# Of one level, where maps have any size: with 256 channels and 16 modes, as in pyramids
# of detectors, a level then takes about the time and memory of ReviewKD's.
MOST_MODE_WEIGHTS = 2**20


def fewest_groups(
    in_channels: int, out_channels: int, frequencies: int, most: int
) -> int:
    """Find the least power of two of groups that keeps a filter small.

    Args:
        in_channels (int): Channels that go in.
        out_channels (int): Channels that come out.
        frequencies (int): Frequencies of the filter.
        most (int): Weights, one for each pair of channels and frequency, that it is to
            have at most.

    Returns:
        int: Groups, which divide both channels; a filter may have more weights than
        ``most`` where the channels do not divide further.
    """
    groups, common = 1, math.gcd(in_channels, out_channels)
    weights = in_channels * out_channels * frequencies
    while weights // groups > most and common % (2 * groups) == 0:
        groups *= 2
    return groups
