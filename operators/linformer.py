"""Linformer: softmax attention to k learned mixtures of all tokens.

    y = softmax(Q (E K)^T / sqrt d) F V,    E, F (k x N)

`sharing` says which heads have which mixtures, as in the paper: "none", each head its own E and F; "headwise", one E and one
F for all heads; "key-value", one E = F for all. The paper's fourth way shares one E between layers, which a layer cannot.
E and F belong to the grid that they were made for, and begin as in the authors' code (Xavier, gain 1/sqrt 2).

Public code takes a shorter sequence without a word: the authors' and lucidrains' use the first columns of E and F, xformers
pads queries, keys and values with zeros, which comes to the same. On a grid of another width these columns belong to other
places. Also, lucidrains' `share_kv` shares the projection of the tokens as well as E: keys and values are then one tensor.

Source: Wang et al., Linformer, 2020 (arXiv 2006.04768); code: fairseq examples/linformer, lucidrains/linformer.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lisabench.contract import Cost, MultiHeadMixer, Operator, Workload, projection_flops
from lisabench.operators._sdpa import kernel_that_ran

SHARING = ("none", "headwise", "key-value")


class Linformer(MultiHeadMixer):
    """Multi-head Linformer attention: (B, N, C) -> (B, N, C). `rank` is k."""

    def __init__(self, dim: int, num_heads: int, grid: tuple[int, int], *, rank: int = 64, sharing: str = "headwise") -> None:
        super().__init__(dim, num_heads, grid)
        if rank < 1:
            raise ValueError(f"rank got {rank}; valid: 1 or more")
        if sharing not in SHARING:
            raise ValueError(f"sharing got {sharing!r}; valid: {', '.join(SHARING)}")
        shape = (num_heads if sharing == "none" else 1, rank, self.grid.tokens)
        self.key_mixtures = _mixtures(shape)
        self.value_mixtures = self.key_mixtures if sharing == "key-value" else _mixtures(shape)

    def mix(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        few_keys, few_values = _mixed(self.key_mixtures, key), _mixed(self.value_mixtures, value)
        return F.scaled_dot_product_attention(query, few_keys, few_values)


def _mixtures(shape: tuple[int, int, int]) -> nn.Parameter:
    """(h or 1, k, N): each head's matrix drawn by itself."""
    table = nn.Parameter(torch.empty(shape))
    for matrix in table:
        nn.init.xavier_uniform_(matrix, gain=1 / math.sqrt(2))
    return table


def _mixed(mixtures: Tensor, x: Tensor) -> Tensor:
    """(h or 1, k, N), (B, h, N, d) -> (B, h, k, d)."""
    mixtures = mixtures.to(x.dtype)
    if len(mixtures) == 1:
        return torch.einsum("kn,bhnd->bhkd", mixtures[0], x)
    return torch.einsum("hkn,bhnd->bhkd", mixtures, x)


def dense_reference(module: Linformer, query: Tensor, key: Tensor, value: Tensor, *, rows: Tensor) -> Tensor:
    """All products of queries and keys first, N x N, and these mixed afterwards."""
    scores = query[:, :, rows] @ key.transpose(-1, -2) / math.sqrt(query.shape[-1])  # (B, h, rows, N)
    weights = torch.softmax(scores @ module.key_mixtures.transpose(-1, -2), dim=-1)  # (B, h, rows, k)
    return (weights @ module.value_mixtures) @ value


def cost(workload: Workload, *, rank: int, sharing: str) -> Cost:
    """Four products forward; flash kernels compute the scores once more in backward."""
    planes, tokens, d = workload.batch * workload.heads, workload.tokens, workload.head_dim
    product = 2.0 * planes * tokens * rank * d
    tables = (1 if sharing == "key-value" else 2) * (workload.heads if sharing == "none" else 1) * rank * tokens
    per_token = planes * tokens * workload.item_bytes
    mixed = 2.0 * planes * rank * d * workload.item_bytes
    copied = 2 if workload.batch > 1 else 0  # keys and values, samples side by side
    return Cost(
        mix_flops=4 * product,
        mix_backward_flops=9 * product,
        projection_flops=projection_flops(workload),
        transient_bytes=per_token * d + planes * tokens * 4.0 + mixed,
        saved_bytes=per_token * (1.0 + copied) * d + planes * tokens * 4.0 + mixed,
        traffic_bytes=per_token * 4.0 * d + tables * workload.item_bytes,
    )


OPERATOR = Operator(
    name="linformer",
    title="Linformer",
    module=Linformer,
    source="Wang et al., 2020, arXiv 2006.04768",
    formula="y = softmax(Q (E K)^T / sqrt d) F V, E and F (k x N) learned",
    time_order="N k C",
    memory_order="N C",
    family="low rank",
    grid_parameters="2 N k",
    cost=cost,
    reference=dense_reference,
    backend=kernel_that_ran,
)
