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
    """Find the fewest groups that keep a filter small, a power of two if one does.

    Args:
        in_channels (int): Channels that go in.
        out_channels (int): Channels that come out.
        frequencies (int): Frequencies of the filter.
        most (int): Weights, one for each pair of channels and frequency, that it is to
            have at most.

    Returns:
        int: Groups, which divide both channels; the largest power of two, and more
        weights than ``most``, where no common divisor is large enough.
    """
    common = math.gcd(in_channels, out_channels)
    weights = in_channels * out_channels * frequencies
    divisors = [count for count in range(1, common + 1) if common % count == 0]
    powers = [count for count in divisors if count & (count - 1) == 0]
    small = [count for count in (*powers, *divisors) if weights // count <= most]
    return small[0] if small else powers[-1]
