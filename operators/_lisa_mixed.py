"""LiSA's engine `mixed`: a DFT along the longer side of the grid, plain sums along the shorter one, all of it matrix products.

A correlation with a table is a product of spectra along one axis and a Toeplitz matrix along the other:

    (P (*) k)[u, x] = inverse DFT over w of  sum_v P^[v - u, w] k^[v, w]

1. k^ = C k: the DFT of n real numbers as a product with cosines and sines; zero rows are never made.
2. For each frequency w one product with the Toeplitz matrices of all patterns at once, a complex product written as a real one.
   It costs half of what two more DFTs along that axis would, since no padded row is made and none is cropped.
3. The inverse DFT, again one product, of the rows that are wanted; then q . over the channels, or the sum over the patterns.

The Toeplitz matrices are windows that slide over P^; they are written out for so few frequencies at a time that they stay in a core's
cache. It grows as N^1.5, at the rate of matrix products: it is the fastest where N^2 is too much and FFTs are still short
(benchmarks/lisa_speed.py).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator

import torch
from torch import Tensor

from lisabench.contract import Cost, Grid, Workload, projection_flops
from lisabench.operators._lisa_engine import Engine, budget, traced
from lisabench.operators._relative_position import slid, wrapped

# Bytes of Toeplitz matrices written out at once, and of spectra held at once; a GPU's launches cost more than its memory.
MATRIX_BYTES = {"cpu": 2**20, "threads": 2**22, "gpu": 2**28}
SPECTRA_BYTES = {"cpu": 2**25, "threads": 2**25, "gpu": 2**29}


def mixed_spectra(table: Tensor, grid: Grid, boundary: str) -> Tensor:
    """Of tables (h, R, ...): (h, frequencies, real and imaginary, R, 2 S - 1), offsets along the shorter side last."""
    if grid.height > grid.width:
        table = table.transpose(-1, -2)
    if boundary == "periodic":
        table = torch.cat((table[..., 1:, :], table), dim=-2)
    return torch.einsum("hryx,fcx->hfcry", table, _table_waves(max(grid), boundary, table)).contiguous()


def _table_of(of_spectra: Tensor, grid: Grid, boundary: str) -> Tensor:
    """The transpose of `mixed_spectra`."""
    table = torch.einsum("hfcry,fcx->hryx", of_spectra, _table_waves(max(grid), boundary, of_spectra))
    if boundary == "periodic":
        table = wrapped(table, min(grid), -2)
    return table.transpose(-1, -2) if grid.height > grid.width else table


def _table_waves(long: int, boundary: str, like: Tensor) -> Tensor:
    """(f, 2, offsets): the conjugate spectrum of a table, because it is correlated with."""
    angle = _angles(torch.arange(long) if boundary == "periodic" else torch.arange(1 - long, long), long, boundary)
    return torch.stack((angle.cos(), angle.sin()), dim=1).to(like)


def _seen(query: Tensor, key: Tensor, spectra: Tensor, grid: Grid, boundary: str) -> Tensor:
    forth, back = waves(max(grid), boundary, query)

    def of_head(head: int, q: Tensor, k: Tensor) -> tuple[Tensor]:
        lines = _lines(q, grid).flip(1)
        correlated = _correlated(lines.shape, _spectrum(_lines(k, grid), forth), spectra[head], back)
        return (_dots(correlated, lines, grid),)

    return _by_head(of_head, grid, spectra.shape[3], query, key)[0]


def _painted(seen: Tensor, value: Tensor, spectra: Tensor, grid: Grid, boundary: str) -> Tensor:
    forth, back = waves(max(grid), boundary, value)

    def of_head(head: int, s: Tensor, v: Tensor) -> tuple[Tensor]:
        lines = _lines(v, grid)
        correlated = _correlated(lines.shape, _spectrum(lines, forth), spectra[head], back)
        return (_tokens(_weighted_sum(_weights(s, grid), correlated, lines).flip(1), grid),)

    return _by_head(of_head, grid, spectra.shape[3], seen, value)[0]


def _gradients(
    seen: Tensor, x: Tensor, value: Tensor, spectra: Tensor, grid: Grid, boundary: str, painted: bool
) -> tuple[Tensor, Tensor, Tensor]:
    forth, back = waves(max(grid), boundary, value)
    of_spectra = torch.zeros_like(spectra)

    def of_head(head: int, s: Tensor, x: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        weights, lines = _weights(s, grid), _lines(x, grid).flip(1)
        spectrum = _spectrum(_lines(v, grid), forth)
        correlated = _correlated(lines.shape, spectrum, spectra[head], back)
        first = _dots(correlated, lines, grid) if painted else _tokens(_weighted_sum(weights, correlated, lines).flip(1), grid)
        arrived = lines.new_empty(len(back.T), len(weights), lines[0].numel())
        for weight, place in zip(weights, arrived.unbind(1), strict=True):
            torch.mm(back.T, (weight * lines).view(len(back), -1), out=place)
        of_spectrum, found = _product_gradients(arrived, spectrum, spectra[head])
        of_spectra[head] += found
        return first, _tokens((forth.T @ of_spectrum.view(len(forth), -1)).view(lines.shape), grid)

    first, of_value = _by_head(of_head, grid, spectra.shape[3], seen, x, value)
    return first, of_value, _table_of(of_spectra, grid, boundary)


MIXED = Engine(mixed_spectra, _seen, _painted, _gradients)


def _by_head(of_head: Callable[..., tuple[Tensor, ...]], grid: Grid, patterns: int, *given: Tensor) -> tuple[Tensor, ...]:
    """of_head(head, *given of that head), a head at a time and as many samples as SPECTRA_BYTES hold."""
    samples = samples_at_a_time(grid, patterns, max(t.shape[-1] for t in given[1:]), given[0].element_size(), given[0].device.type)
    parts = []
    for some in zip(*(t.split(samples) for t in given), strict=True):
        of_heads = [of_head(head, *(t[:, head] for t in some)) for head in range(given[0].shape[1])]
        parts.append([torch.stack(each, dim=1) for each in zip(*of_heads, strict=True)])
    return tuple(torch.cat(each) if len(each) > 1 else each[0] for each in zip(*parts, strict=True))


def _spectrum(lines: Tensor, forth: Tensor) -> Tensor:
    """(L, S, B, d) -> (f, 2 S, B d)."""
    return (forth @ lines.reshape(len(lines), -1)).view(len(forth) // 2, 2 * lines.shape[1], -1)


def _correlated(shape: torch.Size, spectrum: Tensor, spectra: Tensor, back: Tensor) -> Iterator[Tensor]:
    """A spectrum with those of a head's tables: of each pattern a plane of this shape (L, S, B, d), the shorter side in reverse order."""
    frequencies, _, patterns, offsets = spectra.shape
    short, step = (offsets + 1) // 2, _frequencies_at_a_time(spectra)
    if torch.is_grad_enabled() or traced():
        blocks = zip(spectra.split(step), spectrum.split(step), strict=True)
        out = torch.cat([torch.bmm(_toeplitz(table, short), part) for table, part in blocks])
    else:
        out = spectrum.new_empty(frequencies, 2 * patterns * short, spectrum.shape[-1])
        for table, part, place in zip(spectra.split(step), spectrum.split(step), out.split(step), strict=True):
            torch.bmm(_toeplitz(table, short), part, out=place)
    for pattern in out.view(2 * frequencies, patterns, -1).unbind(1):
        yield (back @ pattern).view(shape)


def _dots(planes: Iterable[Tensor], lines: Tensor, grid: Grid) -> Tensor:
    """Sums over the channels, (B, R, N)."""
    return _tokens(torch.stack([(plane * lines).sum(-1).flip(1) for plane in planes], dim=-1), grid).transpose(1, 2)


def _weighted_sum(weights: Tensor, planes: Iterable[Tensor], like: Tensor) -> Tensor:
    total = torch.zeros_like(like)
    for weight, plane in zip(weights, planes, strict=True):
        total = torch.addcmul(total, weight, plane)
    return total


def _product_gradients(arrived: Tensor, spectrum: Tensor, spectra: Tensor) -> tuple[Tensor, Tensor]:
    """Of gradients to the products of a spectrum with those of a head's tables, (2 f, R, S B d): those to either."""
    frequencies, _, patterns, offsets = spectra.shape
    short, step = (offsets + 1) // 2, _frequencies_at_a_time(spectra)
    of_spectrum, of_spectra = torch.empty_like(spectrum), torch.empty_like(spectra)
    blocks = (t.split(step) for t in (spectra, spectrum, arrived.view(frequencies, 2 * patterns * short, -1), of_spectrum, of_spectra))
    for table, part, gradient, place, table_place in zip(*blocks, strict=True):
        torch.bmm(_toeplitz(table, short).transpose(1, 2), gradient, out=place)
        table_place.copy_(_toeplitz_transposed(torch.bmm(gradient, part.transpose(1, 2)), patterns, short))
    return of_spectrum, of_spectra


def _frequencies_at_a_time(spectra: Tensor) -> int:
    _, _, patterns, offsets = spectra.shape
    a_matrix = patterns * (offsets + 1) ** 2 * spectra.element_size()
    return max(1, matrix_bytes_at_once(spectra.device.type) // a_matrix)


def _toeplitz(spectra: Tensor, short: int) -> Tensor:
    """(f, 2, R, 2 S - 1) -> real matrices (f, 2 R S, 2 S) of the complex products, the rows of each pattern in reverse order."""
    windows = spectra.unfold(-1, short, 1)  # [S - 1 - u, v] is the weight at v - u
    real, imaginary = windows.unbind(1)
    rows = torch.stack((torch.stack((real, -imaginary), dim=-2), torch.stack((imaginary, real), dim=-2)), dim=1)
    return rows.flatten(-2).flatten(1, 3)


def _toeplitz_transposed(matrices: Tensor, patterns: int, short: int) -> Tensor:
    """The transpose of `_toeplitz`: (f, 2 R S, 2 S) -> (f, 2, R, 2 S - 1)."""
    parts = matrices.view(-1, 2, patterns, short, 2, short)
    real = parts[:, 0, ..., 0, :] + parts[:, 1, ..., 1, :]
    imaginary = parts[:, 1, ..., 0, :] - parts[:, 0, ..., 1, :]
    return slid(torch.stack((real, imaginary), dim=1))


def _lines(x: Tensor, grid: Grid) -> Tensor:
    """(B, N, d) -> (L, S, B, d), the longer side first."""
    planes = x.unflatten(1, grid)
    return (planes.permute(1, 2, 0, 3) if grid.height > grid.width else planes.permute(2, 1, 0, 3)).contiguous()


def _tokens(y: Tensor, grid: Grid) -> Tensor:
    """(L, S, B, d) -> (B, N, d)."""
    return (y.permute(2, 0, 1, 3) if grid.height > grid.width else y.permute(2, 1, 0, 3)).flatten(1, 2)


def _weights(seen: Tensor, grid: Grid) -> Tensor:
    """(B, R, N) -> (R, L, S, B, 1), the shorter side in reverse order."""
    return _lines(seen.transpose(1, 2), grid).movedim(-1, 0).flip(2).unsqueeze(-1)


def _angles(places: Tensor, long: int, boundary: str) -> Tensor:
    length = _circular(long, boundary)
    return 2 * math.pi / length * torch.outer(torch.arange(length // 2 + 1), places).remainder(length).double()


def waves(long: int, boundary: str, like: Tensor) -> tuple[Tensor, Tensor]:
    """The DFT of `long` real numbers as a matrix (2 f, L), and its inverse (L, 2 f)."""
    angle = _angles(torch.arange(long), long, boundary)
    length = _circular(long, boundary)
    weight = torch.full((len(angle), 1, 1), 2.0 / length, dtype=torch.float64)
    weight[0] = 1.0 / length
    if length % 2 == 0:
        weight[-1] = 1.0 / length
    both = torch.stack((angle.cos(), -angle.sin()), dim=1)
    return both.flatten(0, 1).to(like), (both * weight).flatten(0, 1).T.contiguous().to(like)


# --- what these cost ---------------------------------------------------------------------------------------------------


def mixed_cost(workload: Workload, patterns: int, d_k: int, boundary: str, traffic: float) -> Cost:
    """Products forth, along the shorter side, and back; in the backward all of them again, and their transposes."""
    grid, item, d_v = workload.grid, max(4, workload.item_bytes), workload.head_dim
    planes, channels = workload.batch * workload.heads, d_k + d_v
    forth, along, back = (planes * channels * each for each in product_flops(grid, boundary, patterns))
    spectra = 2 * workload.heads * _spectra_flops(grid, boundary, patterns)
    a_sample = (2 * patterns + 3) * workload.tokens * max(d_k, d_v) * item
    samples = min(workload.batch, samples_at_a_time(grid, patterns, max(d_k, d_v), item, workload.device.partition(":")[0]))
    return Cost(
        mix_flops=forth + along + back + (spectra if workload.mode == "train" else 0.0),
        mix_backward_flops=2 * forth + 3 * along + 2 * back + 2 * spectra,
        projection_flops=projection_flops(workload, d_k),
        transient_bytes=samples * a_sample
        + planes * workload.tokens * d_v * item
        + matrix_bytes_at_once(workload.device.partition(":")[0]),
        saved_bytes=planes * workload.tokens * patterns * item,
        traffic_bytes=traffic,
    )


def product_flops(grid: Grid, boundary: str, patterns: int) -> tuple[float, float, float]:
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
    return max(1, budget(SPECTRA_BYTES, device_type) // max(1, a_sample))


def matrix_bytes_at_once(device_type: str) -> int:
    """Bytes of Toeplitz matrices that are written out at once."""
    return budget(MATRIX_BYTES, device_type)


def _circular(long: int, boundary: str) -> int:
    """The circular length: what wraps around falls outside what is wanted."""
    return long if boundary == "periodic" else 2 * long - 1
