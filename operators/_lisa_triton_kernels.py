"""The Triton kernels of LiSA's engine `mixed` (`_lisa_triton.py` launches them). Imported where they run: Triton is optional.

All are products of matrices, tile by tile, with float32 sums. `precision` is that of the operands: "bf16"; "tf32", float32 whose last
13 bits are rounded off, because tensor cores drop them; "ieee", float32. Whatever is read again as an operand is rounded where it is written.
Matrices of waves are padded with zeros to whole tiles, so that only the other operand needs masks.

How often a loop runs is a constant: many run once or twice, and the interpreter of Triton 3.6 takes nothing else beside numpy 2.4.

Only what Triton builds in is called, nothing of its own library (`tl.sum`, `tl.zeros`, ...): in a process that imported Triton before TRITON_INTERPRET
was set, the interpreter cannot call that.
"""

import triton
import triton.language as tl

INTERPRETED = tl.constexpr(triton.knobs.runtime.interpret)


@triton.jit
def _rounded(x, precision: tl.constexpr):
    """Numbers as operands of this precision."""
    if precision == "bf16" and not INTERPRETED:
        return x.to(tl.bfloat16)
    x = x.to(tl.float32)
    if precision != "ieee":
        dropped: tl.constexpr = 16 if precision == "bf16" else 13
        bits = (x.to(tl.int32, bitcast=True) + (1 << (dropped - 1))) & -(1 << dropped)
        x = tl.where(x == x, bits.to(tl.float32, bitcast=True), x)  # the bits of some NaNs would overflow
    if precision == "bf16":  # what the interpreter would cut off
        x = x.to(tl.bfloat16)
    return x


@triton.jit
def _product(left, right, total, precision: tl.constexpr):
    if INTERPRETED and precision == "bf16":  # it takes bfloat16 for integers
        left, right = left.to(tl.float32), right.to(tl.float32)
    return tl.dot(left, right, total, input_precision="tf32" if precision == "tf32" else "ieee")


@triton.jit
def forth(
    x,
    waves,
    out,
    long,
    short,
    batch,
    channels,
    rows,
    x_batch,
    x_head,
    x_long,
    x_short,
    x_channel,
    padded: tl.constexpr,
    precision: tl.constexpr,
    block_m: tl.constexpr,
    block_n: tl.constexpr,
    block_k: tl.constexpr,
):
    """Spectra (h, rows, S, B, d), rows = frequencies x (real, imaginary), of x by its strides; waves (rows, padded)."""
    columns = short * batch * channels
    tiles = (rows + block_m - 1) // block_m
    head = tl.program_id(1).to(tl.int64)
    m = tl.program_id(0) % tiles * block_m + tl.arange(0, block_m)
    n = tl.program_id(0) // tiles * block_n + tl.arange(0, block_n)
    k = tl.arange(0, block_k)
    place, channel = n // channels, n % channels
    of_column = (place % batch).to(tl.int64) * x_batch + (place // batch).to(tl.int64) * x_short + channel.to(tl.int64) * x_channel
    left = waves + m.to(tl.int64)[:, None] * padded + k[None, :]
    right = x + head * x_head + of_column[None, :] + k.to(tl.int64)[:, None] * x_long
    total = tl.full((block_m, block_n), 0.0, tl.float32)
    for start in range(0, padded, block_k):
        values = tl.load(right, mask=(k[:, None] < long - start) & (n[None, :] < columns), other=0.0)
        total = _product(tl.load(left), _rounded(values, precision), total, precision)
        left += block_k
        right += block_k * x_long
    out += head * rows * columns + m.to(tl.int64)[:, None] * columns + n[None, :]
    tl.store(out, _rounded(total, precision), mask=(m[:, None] < rows) & (n[None, :] < columns))


@triton.jit
def along(
    spectrum,
    tables,
    out,
    short,
    columns,
    patterns,
    width,
    copies: tl.constexpr,
    steps: tl.constexpr,
    precision: tl.constexpr,
    block_m: tl.constexpr,
    block_n: tl.constexpr,
    block_k: tl.constexpr,
):
    """Of each head and frequency, Toeplitz matrices (2 R S, 2 S) times the spectrum (2, S, B d): (2, R, S, B d).

    tables: (h, f, 3, R, copies, width) as `_lisa_triton.py` makes them; its component 1 + i - j is block (i, j) of the complex product.
    """
    rows = 2 * patterns * short
    tiles = (rows + block_m - 1) // block_m
    plane = tl.program_id(2).to(tl.int64) * tl.num_programs(1) + tl.program_id(1)
    m = tl.program_id(0) % tiles * block_m + tl.arange(0, block_m)
    n = tl.program_id(0) // tiles * block_n + tl.arange(0, block_n)
    k = tl.arange(0, block_k)
    inside = tl.where(m < rows, m, 0)
    first = short - 1 - inside % short  # of the weights of this row, the one at v = 0
    component = patterns * copies * width
    row = (
        inside // (patterns * short) * component
        + ((inside // short) % patterns * copies + first % copies) * width
        + first // copies * copies
    )
    left = tables + plane * 3 * component + component + row[:, None] + k[None, :]
    right = spectrum + plane * 2 * short * columns + k[:, None] * columns + n[None, :]
    total = tl.full((block_m, block_n), 0.0, tl.float32)
    for step in range(2 * steps):
        part, v = step // steps, step % steps * block_k
        values = tl.load(right + (part * short + v) * columns, mask=(k[:, None] < short - v) & (n[None, :] < columns), other=0.0)
        total = _product(tl.load(left + (v - part * component)), values, total, precision)
    out += plane * rows * columns + m.to(tl.int64)[:, None] * columns + n[None, :]
    tl.store(out, _rounded(total, precision), mask=(m[:, None] < rows) & (n[None, :] < columns))


@triton.jit
def _inverse(
    spectrum,
    waves,
    at,
    n,
    valid,
    rows,
    stride,
    padded: tl.constexpr,
    precision: tl.constexpr,
    block_m: tl.constexpr,
    block_n: tl.constexpr,
    block_k: tl.constexpr,
):
    """Places `at` of the columns n of a spectrum whose rows stand `stride` apart: (block_m, block_n), float32."""
    k = tl.arange(0, block_k)
    left = waves + at.to(tl.int64)[:, None] * padded + k[None, :]
    right = spectrum + k.to(tl.int64)[:, None] * stride + n[None, :]
    total = tl.full((block_m, block_n), 0.0, tl.float32)
    for start in range(0, padded, block_k):
        values = tl.load(right, mask=(k[:, None] < rows - start) & valid[None, :], other=0.0)
        total = _product(tl.load(left), values, total, precision)
        left += block_k
        right += block_k * stride
    return total


@triton.jit
def seen(
    spectrum,
    waves,
    query,
    out,
    long,
    short,
    batch,
    channels,
    rows,
    n_long,
    n_short,
    q_batch,
    q_head,
    q_token,
    q_channel,
    padded: tl.constexpr,
    parts: tl.constexpr,
    precision: tl.constexpr,
    block_m: tl.constexpr,
    places: tl.constexpr,
    block_d: tl.constexpr,
    block_k: tl.constexpr,
):
    """s (B, h, R, N), float32, of query by its strides and the spectrum (h, rows, R, S, B, d): a tile is places along the longer side x (S, B) x d."""
    tiles = (long + block_m - 1) // block_m
    pattern, head, patterns = tl.program_id(1), tl.program_id(2).to(tl.int64), tl.num_programs(1)
    columns = short * batch * channels
    stride = tl.cast(patterns * columns, tl.int64)
    at = tl.program_id(0) % tiles * block_m + tl.arange(0, block_m)
    first = tl.program_id(0) // tiles * places
    column = tl.arange(0, places * block_d)
    of_column, of_channel = first + column // block_d, column % block_d
    token = at.to(tl.int64)[:, None] * n_long + (of_column // batch * n_short)[None, :]
    query += head * q_head + (of_column % batch).to(tl.int64)[None, :] * q_batch + token * q_token
    spectrum += head * rows * stride + pattern * columns
    total = tl.full((block_m, places), 0.0, tl.float32)
    for part in range(parts):
        channel = part * block_d + of_channel
        valid = (of_column < short * batch) & (channel < channels)
        y = _inverse(
            spectrum, waves, at, of_column * channels + channel, valid, rows, stride, padded, precision, block_m, places * block_d, block_k
        )
        q = tl.load(query + channel.to(tl.int64)[None, :] * q_channel, mask=(at[:, None] < long) & valid[None, :], other=0.0)
        total += tl.reduce(tl.reshape(y * q.to(tl.float32), (block_m, places, block_d)), 2, tl.standard._sum_combine)
    place = first + tl.arange(0, places)
    token = at.to(tl.int64)[:, None] * n_long + (place // batch * n_short)[None, :]
    plane = (place % batch).to(tl.int64)[None, :] * tl.num_programs(2) + head
    tl.store(out + (plane * patterns + pattern) * long * short + token, total, mask=(at[:, None] < long) & (place[None, :] < short * batch))


@triton.jit
def painted(
    spectrum,
    waves,
    weights,
    out,
    long,
    short,
    batch,
    channels,
    rows,
    n_long,
    n_short,
    padded: tl.constexpr,
    patterns: tl.constexpr,
    precision: tl.constexpr,
    block_m: tl.constexpr,
    places: tl.constexpr,
    block_d: tl.constexpr,
    block_k: tl.constexpr,
):
    """y (B, h, N, d) of weights s (B, h, R, N), float32, and the spectrum (h, rows, R, S, B, d), in the tiles of `seen`."""
    tiles = (long + block_m - 1) // block_m
    head, heads = tl.program_id(2).to(tl.int64), tl.num_programs(2)
    columns = short * batch * channels
    stride = tl.cast(patterns * columns, tl.int64)
    at = tl.program_id(0) % tiles * block_m + tl.arange(0, block_m)
    first = tl.program_id(0) // tiles * places
    place = first + tl.arange(0, places)
    weighed = (at[:, None] < long) & (place[None, :] < short * batch)
    plane = (place % batch).to(tl.int64)[None, :] * heads + head
    weights += plane * patterns * long * short + at.to(tl.int64)[:, None] * n_long + (place // batch * n_short)[None, :]
    column = tl.arange(0, places * block_d)
    of_column, channel = first + column // block_d, tl.program_id(1) * block_d + column % block_d
    valid = (of_column < short * batch) & (channel < channels)
    spectrum += head * rows * stride
    total = tl.full((block_m, places, block_d), 0.0, tl.float32)
    for _ in range(patterns):
        s = tl.load(weights, mask=weighed, other=0.0)
        y = _inverse(
            spectrum, waves, at, of_column * channels + channel, valid, rows, stride, padded, precision, block_m, places * block_d, block_k
        )
        total += s[:, :, None] * tl.reshape(y, (block_m, places, block_d))
        weights += long * short
        spectrum += columns
    token = at.to(tl.int64)[:, None] * n_long + (of_column // batch * n_short)[None, :]
    plane = (of_column % batch).to(tl.int64)[None, :] * heads + head
    y = tl.reshape(total, (block_m, places * block_d)).to(out.dtype.element_ty)
    tl.store(out + (plane * long * short + token) * channels + channel[None, :], y, mask=(at[:, None] < long) & valid[None, :])
