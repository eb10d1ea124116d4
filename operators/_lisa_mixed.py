"""LiSA's engine `mixed`: a DFT along the longer side of the grid, plain sums along the shorter one, all of it matrix products.

A correlation with a table is a product of spectra along one axis and a Toeplitz matrix along the other:

    (P (*) k)[u, x] = inverse DFT over w of  sum_v P^[v - u, w] k^[v, w]

1. k^ = C k: the DFT of n real numbers as a product with cosines and sines; zero rows are never made.
2. For each frequency w one product with the Toeplitz matrices of all patterns at once, a complex product written as a real one.
   It costs half of what two more DFTs along that axis would, since no padded row is made and none is cropped.
3. The inverse DFT, again one product, of the rows that are wanted; then q . over the channels, or the sum over the patterns.

The Toeplitz matrices are windows that slide over P^; they are written out for so few frequencies at a time that they stay in a core's
cache. It grows as N^1.5, with a constant so small that on one thread FFTs are slower up to several thousand tokens, on more threads,
which share many small products badly, up to fewer (benchmarks/lisa_speed.py).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from lisabench.contract import Cost, Grid, Workload, projection_flops

# Bytes of Toeplitz matrices written out at once, and of spectra held at once; a GPU's launches cost more than its memory.
MATRIX_BYTES = {"cpu": 2**19, "gpu": 2**28}
SPECTRA_BYTES = {"cpu": 2**25, "gpu": 2**29}


def mixed_spectra(table: Tensor, grid: Grid, boundary: str) -> Tensor:
    """Tables (h, R, ...) as `by_mixed` takes them: (h, frequencies, real and imaginary, R, 2 S - 1), offsets along the shorter side last."""
    if grid.height > grid.width:
        table, grid = table.transpose(-1, -2), Grid(grid.width, grid.height)
    if boundary == "periodic":
        table = torch.cat((table[..., 1:, :], table), dim=-2)
        offsets = torch.arange(grid.width)
    else:
        offsets = torch.arange(1 - grid.width, grid.width)
    angle = _angles(offsets, grid.width, boundary)
    waves = torch.stack((angle.cos(), angle.sin()), dim=1).to(table)
    return torch.einsum("hryx,fcx->hfcry", table, waves).contiguous()


def by_mixed(
    query: Tensor, key: Tensor, value: Tensor, kernel_spectra: Tensor, context_spectra: Tensor, grid: Grid, boundary: str
) -> Tensor:
    """LiSA from the `mixed_spectra` of its tables, (B, h, N, d_v): a head at a time, as many samples as SPECTRA_BYTES hold."""
    heads, channels = value.shape[1], value.shape[-1]
    forth, back = _waves(max(grid), boundary, query)
    samples = samples_at_a_time(grid, kernel_spectra.shape[3], max(channels, query.shape[-1]), query.element_size(), query.device.type)
    parts = []
    for q, k, v in zip(*(t.split(samples) for t in (query, key, value)), strict=True):
        of_heads = []
        for head in range(heads):
            q_h, k_h, v_h = (_lines(t[:, head], grid) for t in (q, k, v))
            seen = (_correlated(k_h, kernel_spectra[head], forth, back) * q_h.flip(1).unsqueeze(1)).sum(-1, keepdim=True)
            out = (_correlated(v_h, context_spectra[head], forth, back) * seen).sum(1)
            of_heads.append(_tokens(out.flip(1), grid))
        parts.append(torch.stack(of_heads, dim=1))
    return torch.cat(parts) if len(parts) > 1 else parts[0]


def _correlated(x: Tensor, spectra: Tensor, forth: Tensor, back: Tensor) -> Tensor:
    """(L, S, B, d) with the spectra of a head's tables -> (L, R, S, B, d), the shorter side in reverse order."""
    long, short, *rest = x.shape
    frequencies, _, patterns, _ = spectra.shape
    columns = math.prod(rest)
    spectrum = (forth @ x.reshape(long, -1)).view(frequencies, 2 * short, columns)
    step = max(1, matrix_bytes_at_once(x.device.type) // (4 * patterns * short**2 * x.element_size()))
    if torch.is_grad_enabled():
        blocks = zip(spectra.split(step), spectrum.split(step), strict=True)
        out = torch.cat([torch.bmm(_toeplitz(table, short), part) for table, part in blocks])
    else:
        out = x.new_empty(frequencies, 2 * patterns * short, columns)
        for table, part, place in zip(spectra.split(step), spectrum.split(step), out.split(step), strict=True):
            place.copy_(torch.bmm(_toeplitz(table, short), part))  # no `out`: fvcore counts none that has it
    return (back @ out.view(2 * frequencies, -1)).view(long, patterns, short, *rest)


def _toeplitz(spectra: Tensor, short: int) -> Tensor:
    """(f, 2, R, 2 S - 1) -> real matrices (f, 2 R S, 2 S) of the complex products, the rows of each pattern in reverse order."""
    windows = spectra.unfold(-1, short, 1)  # [S - 1 - u, v] is the weight at v - u
    real, imaginary = windows.unbind(1)
    rows = torch.stack((torch.stack((real, -imaginary), dim=-2), torch.stack((imaginary, real), dim=-2)), dim=1)
    return rows.flatten(-2).flatten(1, 3)


def _lines(x: Tensor, grid: Grid) -> Tensor:
    """(B, N, d) -> (L, S, B, d), the longer side first."""
    planes = x.unflatten(1, grid)
    return planes.permute(1, 2, 0, 3) if grid.height > grid.width else planes.permute(2, 1, 0, 3)


def _tokens(y: Tensor, grid: Grid) -> Tensor:
    """(L, S, B, d) -> (B, N, d)."""
    return (y.permute(2, 0, 1, 3) if grid.height > grid.width else y.permute(2, 1, 0, 3)).flatten(1, 2)


def _angles(places: Tensor, long: int, boundary: str) -> Tensor:
    length = _circular(long, boundary)
    return 2 * math.pi / length * torch.outer(torch.arange(length // 2 + 1), places).remainder(length).double()


def _waves(long: int, boundary: str, like: Tensor) -> tuple[Tensor, Tensor]:
    """The DFT of `long` real numbers as a matrix (2 f, L), and its inverse (L, 2 f)."""
    angle = _angles(torch.arange(long), long, boundary)
    length = _circular(long, boundary)
    weight = torch.full((len(angle), 1, 1), 2.0 / length, dtype=torch.float64)
    weight[0] = 1.0 / length
    if length % 2 == 0:
        weight[-1] = 1.0 / length
    waves = torch.stack((angle.cos(), -angle.sin()), dim=1)
    return waves.flatten(0, 1).to(like), (waves * weight).flatten(0, 1).T.contiguous().to(like)


# --- what these cost ---------------------------------------------------------------------------------------------------


def mixed_cost(workload: Workload, patterns: int, d_k: int, boundary: str, traffic: float) -> Cost:
    """Products forth, along the shorter side, and back; the waves have no gradients, the tables and the tokens do."""
    grid, item, d_v = workload.grid, max(4, workload.item_bytes), workload.head_dim
    planes, channels = workload.batch * workload.heads, d_k + d_v
    forth, along, back = (planes * channels * each for each in _product_flops(grid, boundary, patterns))
    spectra = 2 * workload.heads * _spectra_flops(grid, boundary, patterns)
    a_sample = 3 * patterns * workload.tokens * max(d_k, d_v) * item
    samples = min(workload.batch, samples_at_a_time(grid, patterns, max(d_k, d_v), item, workload.device.partition(":")[0]))
    matrices = 16 * patterns * min(grid) ** 2 * max(grid) * workload.heads * -(-workload.batch // samples) * item
    return Cost(
        mix_flops=forth + along + back + (spectra if workload.mode == "train" else 0.0),
        mix_backward_flops=forth + 2 * along + back + spectra,
        projection_flops=projection_flops(workload, d_k),
        transient_bytes=samples * a_sample
        + planes * workload.tokens * d_v * item
        + matrix_bytes_at_once(workload.device.partition(":")[0]),
        saved_bytes=matrices + planes * workload.tokens * (2 + patterns) * channels * item,
        traffic_bytes=traffic,
    )


def _product_flops(grid: Grid, boundary: str, patterns: int) -> tuple[float, float, float]:
    """FLOPs a plane and channel of the products forth, along the shorter side, and back."""
    long, short = max(grid), min(grid)
    frequencies = _circular(long, boundary) // 2 + 1
    forth = 4.0 * frequencies * long * short
    return forth, 8.0 * patterns * frequencies * short**2, patterns * forth


def _spectra_flops(grid: Grid, boundary: str, patterns: int) -> float:
    """FLOPs of `mixed_spectra` a head."""
    long, rows = _circular(max(grid), boundary), 2 * min(grid) - 1
    return 4.0 * patterns * rows * long * (long // 2 + 1)


def samples_at_a_time(grid: Grid, patterns: int, channels: int, item_bytes: int, device_type: str) -> int:
    """How many samples' spectra SPECTRA_BYTES hold, at least one."""
    a_sample = 2 * patterns * grid.tokens * channels * item_bytes
    return max(1, SPECTRA_BYTES["cpu" if device_type == "cpu" else "gpu"] // a_sample)


def matrix_bytes_at_once(device_type: str) -> int:
    """Bytes of Toeplitz matrices that are written out at once."""
    return MATRIX_BYTES["cpu" if device_type == "cpu" else "gpu"]


def _circular(long: int, boundary: str) -> int:
    """The circular length: what wraps around falls outside what is wanted."""
    return long if boundary == "periodic" else 2 * long - 1
