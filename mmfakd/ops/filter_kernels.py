# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""The kernels of triton_filter; importing them needs Triton.

Complex numbers are two real ones next to each other; ``numbers`` are those of the
matrices of one frequency, twice their coefficients. Groups are matrices in a row.
Loops of unknown length are `while` loops, as the interpreter has no others.
"""

import triton
import triton.language as tl

_SIZES = ['numbers', 'fan_in', 'fan_out']


@triton.jit(do_not_specialize=_SIZES)
def fold(
    filter,
    places,
    factors,
    gate,
    weight,
    gate_local,
    out,
    norm,
    numbers,
    fan_in,
    fan_out,
    MERGE: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Coefficients of one frequency of the half spectrum, a block of them."""
    k = tl.program_id(0).to(tl.int64)
    at = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    valid = at < numbers
    part = at % 2
    place = tl.load(places + k)
    value = tl.load(filter + place * numbers + at, mask=valid, other=0.0)
    value *= tl.load(factors + 2 * k + part) * tl.load(gate)
    if MERGE:
        row, column = at // 2 // fan_out, at // 2 % fan_out
        real = valid & (part == 0)
        local = tl.load(weight + column * fan_in + row, mask=real, other=0.0)
        value += local * (tl.load(gate_local) * norm)
    tl.store(out + k * numbers + at, value, mask=valid)


@triton.jit
def _sum_bias(grads, out, fan_out, group, share, samples, BLOCK: tl.constexpr):
    """Gradient of the bias by a share of the samples.

    The first place of a half spectrum is the mean's, whose gradient is the bias's.
    """
    c = 0
    while c < fan_out:
        channel = c + tl.arange(0, BLOCK)
        total = tl.zeros([BLOCK], tl.float32)
        i = 0
        while i < share:
            n = group * share + i
            here = (channel < fan_out) & (n < samples)
            place = grads + 2 * (n * fan_out + channel)
            total += tl.load(place, mask=here, other=0.0)
            i += 1
        tl.store(out + channel, total, mask=channel < fan_out)
        c += BLOCK


@triton.jit(do_not_specialize=[*_SIZES, 'count', 'samples', 'share'])
def unfold(
    products,
    filter,
    uses,
    weights,
    counts,
    gate,
    grads,
    grad_filter,
    sums,
    gates,
    numbers,
    fan_in,
    fan_out,
    count,
    samples,
    share,
    USES: tl.constexpr,
    MERGE: tl.constexpr,
    ROWS: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Gradient of some stored coefficients, and what they add to other gradients.

    Of the gate it is one number of ``gates`` a program; with ``MERGE``, of the scaled
    weight and bias a row of ``sums`` for all programs of these coefficients.
    """
    group, block = tl.program_id(0).to(tl.int64), tl.program_id(1)
    at = block * BLOCK + tl.arange(0, BLOCK)
    valid = at < numbers
    part = at % 2
    scale = tl.load(gate)
    grad_gate = tl.zeros([BLOCK], tl.float32)
    grad_weight = tl.zeros([BLOCK], tl.float32)
    for i in range(ROWS):
        f = group * ROWS + i
        here = valid & (f < count)
        value = tl.zeros([BLOCK], tl.float32)
        for u in tl.static_range(USES):
            use = u * count + f
            place = tl.load(uses + use, mask=f < count, other=0)
            product = tl.load(products + place * numbers + at, mask=here, other=0.0)
            factor = tl.load(weights + 2 * use + part, mask=here, other=0.0)
            value += factor * product
            if MERGE:
                times = tl.load(counts + use, mask=f < count, other=0.0)
                grad_weight += times * product
        stored = tl.load(filter + f * numbers + at, mask=here, other=0.0)
        grad_gate += value * stored
        tl.store(grad_filter + f * numbers + at, value * scale, mask=here)
    blocks = tl.num_programs(1)
    tl.store(gates + group * blocks + block, tl.sum(grad_gate))
    if MERGE:
        row, column = at // 2 // fan_out, at // 2 % fan_out
        real = valid & (part == 0)
        start = sums + group * (fan_in * fan_out + fan_out)
        tl.store(start + column * fan_in + row, grad_weight, mask=real)
        if block == 0:
            end = start + fan_in * fan_out
            _sum_bias(grads, end, fan_out, group, share, samples, BLOCK)


@triton.jit(do_not_specialize=['groups', 'weights', 'channels', 'parts'])
def finish(
    sums,
    gates,
    weight,
    bias,
    gate_local,
    grad_weight,
    grad_bias,
    grad_gate,
    grad_local,
    groups,
    weights,
    channels,
    parts,
    BLOCK: tl.constexpr,
):
    """Gradients of weight and bias, of the filter's gate, and parts of the other's."""
    index = tl.program_id(0)
    at = index * BLOCK + tl.arange(0, BLOCK)
    of_weight, valid = at < weights, at < weights + channels
    of_bias = valid & (at >= weights)
    total = tl.zeros([BLOCK], tl.float32)
    group = 0
    while group < groups:
        row = sums + group * (weights + channels)
        total += tl.load(row + at, mask=valid, other=0.0)
        group += 1
    stored = tl.load(weight + at, mask=of_weight, other=0.0)
    stored += tl.load(bias + at - weights, mask=of_bias, other=0.0)
    tl.store(grad_local + index, tl.sum(total * stored))
    total *= tl.load(gate_local)
    tl.store(grad_weight + at, total, mask=of_weight)
    tl.store(grad_bias + at - weights, total, mask=of_bias)
    if index == 0:
        gate = tl.zeros([BLOCK], tl.float32)
        start = 0
        while start < parts:
            place = start + tl.arange(0, BLOCK)
            gate += tl.load(gates + place, mask=place < parts, other=0.0)
            start += BLOCK
        tl.store(grad_gate, tl.sum(gate))
