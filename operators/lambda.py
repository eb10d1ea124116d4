"""Lambda layer: keys and values become linear functions, one for the image and one for each position, that queries are put through.

    y_n = q_n^T (sum_m softmax_m(K)_m v_m^T + sum_m E[D(n,m)] v_m^T)         (k x d functions, q_n for each head)

The heads have queries of their own and share keys, values and E, as published. The softmax runs over the positions, each of the
k channels by itself (xformers runs it over the channels). E (k, 2H-1, 2W-1) reaches over the whole image, and its sum is a
correlation with each of its k tables by FFT: values are transformed once. lucidrains' code writes the N^2 k embeddings out; the
paper's own lambda convolution is the same sum in a window of 23 x 23. The intra-depth is 1.

The published layer has batch normalisation on queries and values, which lets one sample see another: here it is layer
normalisation over their channels, in prepare. As published there are no biases and no projection of the output; E starts as N(0, 1).

Source: Bello, LambdaNetworks: Modeling Long-Range Interactions Without Attention, ICLR 2021 (arXiv 2102.08602), sec. 3;
code: lucidrains/lambda-networks.
"""

# ruff: noqa: N999  the name is a keyword: the registry imports it from text
from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from lisabench.contract import Cost, Operator, Workload, checked_grid, fft_flops, in_float32
from lisabench.operators._grid_fft import (
    correlate,
    planes_at_a_time,
    spectrum_bytes,
    spectrum_product_flops,
    table_spectra,
    transform,
    transform_flops,
    transform_shape,
)
from lisabench.operators._relative_position import offset_index, table_shape, widened


class Lambda(nn.Module):
    """Lambda layer with multi-query heads: (B, N, C) -> (B, N, C). `key_dim` is k, 16 as published; values have C / h channels."""

    def __init__(self, dim: int, num_heads: int, grid: tuple[int, int], *, key_dim: int = 16) -> None:
        super().__init__()
        if num_heads < 1 or dim < 1 or dim % num_heads:
            raise ValueError(f"dim got {dim} with num_heads {num_heads}; valid: dim a multiple of num_heads, both 1 or more")
        if key_dim < 1:
            raise ValueError(f"key_dim got {key_dim}; valid: 1 or more")
        self.num_heads, self.grid = num_heads, checked_grid(grid)
        self.query = nn.Linear(dim, num_heads * key_dim, bias=False)
        self.key = nn.Linear(dim, key_dim, bias=False)
        self.value = nn.Linear(dim, dim // num_heads, bias=False)
        self.query_norm = nn.LayerNorm(num_heads * key_dim)
        self.value_norm = nn.LayerNorm(dim // num_heads)
        self.embeddings = nn.Parameter(torch.randn(key_dim, *table_shape(self.grid)))
        for projection, fan_in in ((self.query, dim * key_dim), (self.key, dim), (self.value, dim)):
            nn.init.normal_(projection.weight, std=fan_in**-0.5)

    def widen(self, grid: tuple[int, int]) -> None:
        """Goes over to another grid with tokens as far apart: offsets that were never seen take the embeddings of the nearest that was."""
        new = checked_grid(grid)
        self.embeddings = widened(self.embeddings, self.grid, new, beyond="nearest")
        self.grid = new

    def prepare(self, x: Tensor) -> tuple[Tensor, ...]:
        """Queries (B, h, N, k), keys (B, N, k), values (B, N, d)."""
        query = self.query_norm(self.query(x)).unflatten(-1, (self.num_heads, -1)).transpose(1, 2)
        return query.to(x.dtype), self.key(x).to(x.dtype), self.value_norm(self.value(x)).to(x.dtype)

    @in_float32
    def mix(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        content = torch.softmax(key, dim=-2).transpose(-1, -2) @ value  # (B, k, d)
        spectra = table_spectra(self.embeddings.to(value.dtype), self.grid)
        samples = planes_at_a_time(transform_shape(self.grid), value.shape[-1], value.element_size(), value.device.type)
        by_position = [self._by_position(q, v, spectra) for q, v in zip(query.split(samples), value.split(samples), strict=True)]
        return query @ content.unsqueeze(1) + (by_position[0] if len(by_position) == 1 else torch.cat(by_position))

    def _by_position(self, query: Tensor, value: Tensor, spectra: Tensor) -> Tensor:
        """sum_k q_k (E_k (*) v), (B, h, N, d): one of the k tables at a time."""
        shape = transform_shape(self.grid)
        spectrum = transform(value.unflatten(1, self.grid), shape)
        out = value.new_zeros(*query.shape[:3], value.shape[-1])
        for query_channel, table_spectrum in zip(query.split(1, dim=-1), spectra, strict=True):
            seen = correlate(spectrum, table_spectrum, self.grid, shape).flatten(1, 2)
            out = torch.addcmul(out, query_channel, seen.unsqueeze(1))
        return out

    def finish(self, y: Tensor) -> Tensor:
        return y.transpose(1, 2).flatten(-2)


def dense_reference(module: Lambda, query: Tensor, key: Tensor, value: Tensor, *, rows: Tensor) -> Tensor:
    """The lambda of every token in `rows` written out, (B, rows, k, d), then applied to its queries."""
    weights = key.exp() / key.exp().sum(dim=1, keepdim=True)
    embeddings = module.embeddings.flatten(1)[:, offset_index(module.grid, rows)]  # (k, rows, N)
    lambdas = torch.einsum("bmk,bmd->bkd", weights, value).unsqueeze(1) + torch.einsum("krm,bmd->brkd", embeddings, value)
    return torch.einsum("bhrk,brkd->bhrd", query[:, :, rows], lambdas)


def cost(workload: Workload, *, key_dim: int) -> Cost:
    """FLOPs and bytes; as in LiSA, weighting a correlation by a query's channel is pointwise work."""
    grid, shape, item = workload.grid, transform_shape(workload.grid), max(4, workload.item_bytes)
    heads, head_dim, tokens, batch = workload.heads, workload.head_dim, workload.tokens, workload.batch
    one_way = transform_flops(grid, shape)
    content = 2.0 * batch * tokens * key_dim * head_dim * (1 + heads)
    products = batch * key_dim * head_dim * spectrum_product_flops(shape)
    plane_bytes = spectrum_bytes(shape, head_dim, item)
    at_once = min(batch, planes_at_a_time(shape, head_dim, item, workload.device.partition(":")[0]))
    outputs = batch * tokens * workload.dim * item
    seen = tokens if grid.height > 1 else shape[1]  # one row is cropped without a copy
    height, width = table_shape(grid)
    numbers = batch * tokens * (heads * key_dim + key_dim + head_dim + workload.dim) + key_dim * height * width
    tables = key_dim * spectrum_bytes(shape, 1, item)
    widened = batch * tokens * (heads * key_dim + key_dim + head_dim) if workload.item_bytes < 4 else 0  # copies in float32
    return Cost(
        mix_flops=content + batch * head_dim * (1 + key_dim) * one_way + products + key_dim * fft_flops(shape[0] * shape[1], real=True),
        # The backward of a real transform is a complex one; of the inverse, a real one forward.
        mix_backward_flops=2 * (content + products)
        + batch * head_dim * ((1 + key_dim) * one_way + fft_flops(shape[1], grid.height, real=True))
        + key_dim * fft_flops(shape[0] * shape[1], real=False),
        projection_flops=2.0 * batch * tokens * workload.dim * (heads * key_dim + key_dim + head_dim),
        transient_bytes=tables + 3.0 * at_once * plane_bytes + 2.0 * outputs,
        # Spectra, what was padded for them, a correlation with each table, and what the content's products take.
        saved_bytes=tables
        + batch * (plane_bytes + (grid.height * shape[1] * head_dim + key_dim * (seen * head_dim + tokens + workload.dim)) * item)
        + (key_dim * math.prod(shape) + widened) * item,
        traffic_bytes=numbers * workload.item_bytes,
    )


OPERATOR = Operator(
    name="lambda",
    title="Lambda layer",
    module=Lambda,
    source="Bello, ICLR 2021, sec. 3; lucidrains/lambda-networks",
    formula="y_n = q_n^T (sum_m softmax_m(K)_m v_m^T + sum_m E[D(n,m)] v_m^T)",
    time_order="N log N (1+k) C/h + N k C",
    memory_order="N C",
    family="structure-aware",
    grid_parameters="k (2H-1)(2W-1)",
    cost=cost,
    reference=dense_reference,
)
