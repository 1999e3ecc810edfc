# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""The kernels of TritonWindowAttention; importing them needs Triton.

Each program works on some channels of one half, rows and columns of one sample: a tile.
As one half of the channels has offsets by row and the other by column, positions of a
window are counted along the offsets (``a``) and across them (``b``) in both.
"""

import triton
import triton.language as tl

# Not specialised where they are 1 or divisible by 16: one kernel serves all sizes, and
# the threads of a warp stay on neighbours in memory, which suits shifted maps best.
_SIZES = ['channels', 'height', 'width', 'rows', 'columns']


@triton.jit
def _tile(channels, height, width, BLOCK_C, BLOCK_H, BLOCK_W):
    """Half, channels (BLOCK_C, 1), rows and columns (1, pixels), of a tile.

    Then which channels exist and which pixels of them do; where the sample begins, of
    which all have C channels; the number of the tile.
    """
    across = tl.cdiv(width, BLOCK_W)
    tiles = tl.cdiv(height, BLOCK_H) * across
    parts = tl.cdiv(channels // 2, BLOCK_C)
    index = tl.program_id(0)
    tile = index % tiles
    index = index // tiles
    part = index % parts
    index = index // parts
    half = index % 2
    # In 64 bits, because batches may have more than 2^31 elements.
    sample = (index // 2).to(tl.int64)
    c = half * (channels // 2) + part * BLOCK_C + tl.arange(0, BLOCK_C)[:, None]
    pixel = tl.arange(0, BLOCK_H * BLOCK_W)[None, :]
    y = tile // across * BLOCK_H + pixel // BLOCK_W
    x = tile % across * BLOCK_W + pixel % BLOCK_W
    real = c < (half + 1) * (channels // 2)
    valid = real & (y < height) & (x < width)
    start = sample * (channels * height * width)
    return half, c, y, x, real, valid, start, sample * tiles + tile


@triton.jit
def _places(c, y, x, channels, height, width, LAST):
    """Places in a sample; distances between channels and between pixels."""
    if LAST:
        return c + (y * width + x) * channels, 1, channels
    else:
        return c * (height * width) + (y * width + x), height * width, 1


@triton.jit
def _position(a, b, half, y, x, height, width, valid, SIZE):
    """Rows and columns away from the centre, and where that is inside of the map."""
    down = a + half * (b - a) - SIZE // 2
    right = b + half * (a - b) - SIZE // 2
    inside = (y + down >= 0) & (y + down < height)
    inside = inside & (x + right >= 0) & (x + right < width)
    return down, right, valid & inside


@triton.jit
def _load(pointer, mask):
    """Numbers of any dtype in float32."""
    return tl.load(pointer, mask=mask, other=0.0).to(tl.float32)


@triton.jit
def _load_pair(first, second, at, mask):
    """Two numbers that lie alike."""
    return _load(first + at, mask), _load(second + at, mask)


@triton.jit
def _load_three(first, second, third, at, mask):
    """Three numbers that lie alike."""
    a, b = _load_pair(first, second, at, mask)
    return a, b, _load(third + at, mask)


@triton.jit
def _load_offsets(offsets, a, SIZE: tl.constexpr):
    """Offsets of channels at a position of their kind, and at the opposite one."""
    row_offset, column_offset, c, half, channels, real = offsets
    at = (c - half * (channels // 2)) * SIZE + a
    back = at + SIZE - 1 - 2 * a
    of_row, of_column = real & (half == 0), real & (half == 1)
    r = _load(row_offset + at, of_row) + _load(column_offset + at, of_column)
    r_back = _load(row_offset + back, of_row) + _load(column_offset + back, of_column)
    return r, r_back


@triton.jit
def _query_places(c, y, x, size, LAST: tl.constexpr, ENLARGE: tl.constexpr):
    """Places of the queries of pixels in a sample, which may be on a smaller map."""
    channels, rows, columns, row_scale, column_scale = size
    if ENLARGE:
        # Beyond the map they are not read.
        y = tl.minimum((y * row_scale).to(tl.int32), rows - 1)
        x = tl.minimum((x * column_scale).to(tl.int32), columns - 1)
    at, _, _ = _places(c, y, x, channels, rows, columns, LAST)
    return at


@triton.jit
def _look(q, k, v, o, t, g):
    """Gradient of a score, and weight times gradient, of a query that meets a key.

    Scores have base two, as exponentials are faster there. Through the softmax:
    w_i (g v_i - sum_j w_j g v_j) = w_i g (v_i - out).
    """
    share = tl.math.exp2(q * 1.4426950408889634 * k - t) * g
    return share * (v - o), share


@triton.jit(do_not_specialize=_SIZES)
def attend(
    query,
    key_value,
    row_offset,
    column_offset,
    out,
    log_total,
    channels,
    height,
    width,
    rows,
    columns,
    row_scale,
    column_scale,
    SIZE: tl.constexpr,
    LAST: tl.constexpr,
    ENLARGE: tl.constexpr,
    BLOCK_C: tl.constexpr,
    BLOCK_H: tl.constexpr,
    BLOCK_W: tl.constexpr,
):
    """Output, and logarithms to base two of the sums that softmax divides by."""
    half, c, y, x, real, valid, start, _ = _tile(
        channels, height, width, BLOCK_C, BLOCK_H, BLOCK_W
    )
    at, _, _ = _places(c, y, x, channels, height, width, LAST)
    key_at, stride_c, stride = _places(c, y, x, 2 * channels, height, width, LAST)
    key = key_value + 2 * start
    value = key + channels * stride_c
    of_queries = channels, rows, columns, row_scale, column_scale
    at_q = _query_places(c, y, x, of_queries, LAST, ENLARGE)
    start_q = start // (height * width) * (rows * columns)

    # Scores have base two, as exponentials are faster there.
    q = _load(query + start_q + at_q, valid) * 1.4426950408889634
    top = q * 0 - float('inf')
    total = q * 0
    mean = q * 0
    offsets = row_offset, column_offset, c, half, channels, real
    for a in range(SIZE):
        r, _r_back = _load_offsets(offsets, a, SIZE)
        for b in tl.static_range(SIZE):
            down, right, near = _position(a, b, half, y, x, height, width, valid, SIZE)
            shift = (down * width + right) * stride
            k, v = _load_pair(key, value, key_at + shift, near)
            score = q * (k + r)
            # The larger of top and score has weight one, the other this one.
            weight = tl.math.exp2(-tl.abs(score - top))
            higher = score > top
            before = tl.where(higher, weight, 1.0)
            weight = tl.where(higher, 1.0, weight)
            top = tl.maximum(top, score)
            total = total * before + weight
            mean = mean * before + weight * v
    tl.store(out + start + at, mean / total, mask=valid)
    tl.store(log_total + start + at, top + tl.math.log2(total), mask=valid)


@triton.jit(do_not_specialize=_SIZES)
def attend_backward(
    query,
    key_value,
    row_offset,
    column_offset,
    out,
    log_total,
    grad,
    grad_query,
    grad_key_value,
    grad_offset,
    channels,
    height,
    width,
    rows,
    columns,
    row_scale,
    column_scale,
    SIZE: tl.constexpr,
    LAST: tl.constexpr,
    ENLARGE: tl.constexpr,
    BLOCK_C: tl.constexpr,
    BLOCK_H: tl.constexpr,
    BLOCK_W: tl.constexpr,
):
    """All gradients; that of offsets by tile (tiles of all samples, C, SIZE).

    A pixel's query looks at another pixel's key, and that one's query at its key, the
    opposite way.
    """
    half, c, y, x, real, valid, start, tile = _tile(
        channels, height, width, BLOCK_C, BLOCK_H, BLOCK_W
    )
    at, _, stride = _places(c, y, x, channels, height, width, LAST)
    key_at, stride_c, stride_kv = _places(c, y, x, 2 * channels, height, width, LAST)
    key, grad_key = key_value + 2 * start, grad_key_value + 2 * start
    value, grad_value = key + channels * stride_c, grad_key + channels * stride_c
    of_queries = channels, rows, columns, row_scale, column_scale
    query = query + start // (height * width) * (rows * columns)
    out, log_total, grad = out + start, log_total + start, grad + start
    q = _load(query + _query_places(c, y, x, of_queries, LAST, ENLARGE), valid)
    o, t, g = _load_three(out, log_total, grad, at, valid)
    k, v = _load_pair(key, value, key_at, valid)
    grad_q, grad_k, grad_v = q * 0, q * 0, q * 0
    offsets = row_offset, column_offset, c, half, channels, real
    for a in range(SIZE):
        r, r_back = _load_offsets(offsets, a, SIZE)
        grad_r = q * 0
        for b in tl.static_range(SIZE):
            down, right, near = _position(a, b, half, y, x, height, width, valid, SIZE)
            shift = down * width + right
            k_near, v_near = _load_pair(key, value, key_at + shift * stride_kv, near)
            k_near += r
            score, share = _look(q, k_near, v_near, o, t, g)
            grad_q, grad_r = grad_q + score * k_near, grad_r + score
            at_q = _query_places(c, y + down, x + right, of_queries, LAST, ENLARGE)
            q_near, place = _load(query + at_q, near), at + shift * stride
            o_near, t_near, g_near = _load_three(out, log_total, grad, place, near)
            score, share = _look(q_near, k + r_back, v, o_near, t_near, g_near)
            grad_k, grad_v = grad_k + score * q_near, grad_v + share
        row = grad_offset + (tile * channels + c) * SIZE + a
        tl.store(row, tl.sum(grad_r * q, axis=1)[:, None], mask=real)
    tl.store(grad_query + start + at, grad_q, mask=valid)
    tl.store(grad_key + key_at, grad_k, mask=valid)
    tl.store(grad_value + key_at, grad_v, mask=valid)
