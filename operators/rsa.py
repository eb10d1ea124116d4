"""Relational self-attention (RSA): the weights of a window come from how a query relates to all of it, and so do the values.

For every token, over its window of M = k x k tokens (0 beyond the rim), with (*) for a correlation on the grid:

    kappa_n   = q_n^T (H1 (*) k + P1)_n                    D numbers a query        H1: (d_k, D, M)  P1: (d_k, D)
    context_n = (G (*) v + I)_n^T (H2 (*) v)_n             d_v x D                  G: (d_v, M)  H2: (D, M)  I: (d_v, d_v)
    y_n       = context_n kappa_n                          d_v numbers a query

H1 is a depthwise convolution that makes D maps of each of the keys' d_k channels. H2 makes D maps of each channel of the values
and G d_v maps, with filters that all channels share: (G (*) v)_n[a, b] = sum_m G[b, m] v_{n+m}[a]. P1 (the kernel that sees no
keys) and I (the values themselves; it starts as the identity) are matrices. The h heads are h queries a token, which share one
key and one value. Query, key and value have norm 1; there is no softmax.

H2 and G are applied to the query's weights, not to the values: with w = kappa^T H2, M weights a query, and V_n, the M values of
the window, y_n = I^T u + G V_n u, u = V_n^T w. The result is the same, without the d_v x D and d_v x d_v numbers a token of the
published order: at d = 64 with 3 heads and 7 x 7 three tenths of its FLOPs. Its window is 3-D, over video; its I is of size d_k and
fails where d_v differs; it has no linear layer out, which `finish` has as everywhere.

Source: Kim, Kwon et al., Relational Self-Attention, NeurIPS 2021; code: KimManjin/RSA, ops/rsa.py.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lisabench.contract import Cost, Operator, Workload, checked_grid, in_float32
from lisabench.operators._relative_position import neighbours

EPS = 1e-6  # that of the published code


class RSA(nn.Module):
    """Multi-query relational self-attention: (B, N, C) -> (B, N, C).

    prepare: query (B, h, N, key_dim), key (B, N, key_dim) and value (B, N, C/h). finish: linear out.
    `window` is k, odd; `latent` is D, None for key_dim; key_dim None for C/h: the published settings, but for the 3-D window.
    """

    def __init__(
        self,
        dim: int,
        num_heads: int,
        grid: tuple[int, int],
        *,
        window: int = 7,
        latent: int | None = None,
        key_dim: int | None = None,
    ) -> None:
        super().__init__()
        if num_heads < 1 or dim < 1 or dim % num_heads:
            raise ValueError(f"dim got {dim} with num_heads {num_heads}; valid: dim a multiple of num_heads, both 1 or more")
        if window < 1 or window % 2 == 0:
            raise ValueError(f"window got {window}; valid: an odd number of 1 or more")
        d_k, d_v, maps = sizes(dim // num_heads, latent, key_dim)
        if min(d_k, maps) < 1:
            raise ValueError(f"key_dim got {key_dim}, latent {latent}; valid: None, or 1 or more")
        self.num_heads, self.grid, self.window = num_heads, checked_grid(grid), window
        self.query = nn.Linear(dim, num_heads * d_k, bias=False)
        self.key = nn.Linear(dim, d_k, bias=False)
        self.value = nn.Linear(dim, d_v, bias=False)
        self.out = nn.Linear(dim, dim)
        self.key_filters = nn.Parameter(torch.randn(d_k, maps, window, window) * (2 / (d_k * maps * window**2)) ** 0.5)  # H1
        self.key_free = nn.Parameter(torch.randn(d_k, maps) * (1 / (maps * window**2)) ** 0.5)  # P1
        self.value_filters = nn.Parameter(torch.randn(maps, window, window) * (2 / (maps * window**2)) ** 0.5)  # H2
        self.context_filters = nn.Parameter(torch.randn(d_v, window, window) * (2 / (d_v * window**2)) ** 0.5)  # G
        self.identity = nn.Parameter(torch.eye(d_v))  # I

    def prepare(self, x: Tensor) -> tuple[Tensor, ...]:
        return self.query(x).unflatten(-1, (self.num_heads, -1)).transpose(1, 2), self.key(x), self.value(x)

    @in_float32
    def mix(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        weights = self.weights(_unit(query), _unit(key))
        image = _unit(value).transpose(1, 2).unflatten(2, self.grid)
        windows = F.unfold(image, self.window, padding=self.window // 2)  # (B, d_v M, N)
        windows = windows.unflatten(1, (value.shape[-1], -1)).permute(0, 3, 2, 1).contiguous()  # (B, N, M, d_v)
        seen = weights @ windows  # (B, N, h, d_v)
        similar = seen @ windows.transpose(-1, -2)  # (B, N, h, M)
        context_filters = self.context_filters.to(value.dtype).flatten(1)
        return (seen @ self.identity.to(value.dtype) + similar @ context_filters.T).transpose(1, 2)

    def weights(self, query: Tensor, key: Tensor) -> Tensor:
        """kappa^T H2, of every query over its window: (B, N, h, M)."""
        filters, free, spread = (p.to(query.dtype) for p in (self.key_filters, self.key_free, self.value_filters))
        image = key.transpose(1, 2).unflatten(2, self.grid)
        filters = filters.flatten(0, 1).unsqueeze(1)
        maps = F.conv2d(image, filters, free.flatten(), padding=self.window // 2, groups=len(free))
        maps = maps.flatten(2).unflatten(1, free.shape).movedim(3, 1)  # (B, N, d_k, D)
        return query.transpose(1, 2) @ maps @ spread.flatten(1)

    def finish(self, y: Tensor) -> Tensor:
        merged: Tensor = self.out(y.transpose(1, 2).flatten(-2))
        return merged

    def forward(self, x: Tensor) -> Tensor:
        return self.finish(self.mix(*self.prepare(x)))


def _unit(x: Tensor) -> Tensor:
    return x * torch.rsqrt(x.square().sum(dim=-1, keepdim=True) + EPS)


def sizes(head_dim: int, latent: int | None, key_dim: int | None) -> tuple[int, int, int]:
    """d_k, d_v and D."""
    d_k = head_dim if key_dim is None else key_dim
    return d_k, head_dim, d_k if latent is None else latent


def dense_reference(module: RSA, query: Tensor, key: Tensor, value: Tensor, *, rows: Tensor) -> Tensor:
    """The published order, over the tokens of each window one map after the other: kappa, then the context, then their product."""
    query, key, value = (t / (t.pow(2).sum(-1, keepdim=True) + EPS).sqrt() for t in (query[:, :, rows], key, value))
    around, inside = neighbours(module.grid, rows, module.window)
    keys, values = (t[:, around] * inside[..., None] for t in (key, value))  # (B, rows, M, d)
    kappa = []
    for filters, free in zip(module.key_filters.flatten(2).unbind(1), module.key_free.unbind(1), strict=True):
        kappa.append(torch.einsum("bhnk,bnk->bhn", query, torch.einsum("km,bnmk->bnk", filters, keys) + free))
    basic = torch.einsum("dm,bnma->bnad", module.value_filters.flatten(1), values)
    relational = torch.einsum("cm,bnma->bnac", module.context_filters.flatten(1), values) + module.identity
    return torch.einsum("bnac,bnad,bhnd->bhnc", relational, basic, torch.stack(kappa, dim=-1))


def cost(workload: Workload, *, window: int, latent: int | None, key_dim: int | None) -> Cost:
    d_k, d_v, maps = sizes(workload.head_dim, latent, key_dim)
    places, heads, tokens = window**2, workload.heads, workload.batch * workload.tokens
    wide = max(4, workload.item_bytes)
    parameters = d_k * maps * (places + 1) + (maps + d_v) * places + d_v**2
    return Cost(
        mix_flops=2.0 * tokens * (d_k * maps * places + heads * (d_k * maps + maps * places + d_v * (3 * places + d_v))),
        projection_flops=2.0 * tokens * workload.dim * (heads * d_k + d_k + d_v + workload.dim),
        transient_bytes=tokens * (2.0 * max(d_k * maps, places * d_v) + heads * (places + d_v) + d_v) * wide,
        saved_bytes=tokens * (d_k * (maps + 1.0) + places * d_v + heads * (d_k + maps + d_v + 2 * places)) * wide,
        traffic_bytes=(tokens * (heads * d_k + d_k + d_v + workload.dim) + parameters) * workload.item_bytes,
    )


OPERATOR = Operator(
    name="rsa",
    title="RSA, relational self-attention",
    module=RSA,
    source="Kim, Kwon et al., NeurIPS 2021; KimManjin/RSA",
    formula="y = context kappa, kappa = q^T (H1 (*) k + P1), context = (G (*) v + I)^T (H2 (*) v), in a window of M = k x k tokens",
    time_order="N M C",
    memory_order="N M C",
    family="structure-aware",
    cost=cost,
    reference=dense_reference,
)
