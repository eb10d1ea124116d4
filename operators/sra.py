"""Spatial-reduction attention of PVT: softmax attention to patches of r x r tokens.

    P = LayerNorm(convolution r x r of X with stride r)        y = softmax(Q (P W_k)^T / sqrt d) P W_v

The reduction mixes tokens before keys and values are projected, so mix takes the tokens X beside the queries: convolution,
normalisation and both projections of N / r^2 patches are timed with the attention. They are 2 N C^2 (1 + 2 / r^2) of its
FLOPs; other operators leave their projections of keys and values, 4 N C^2, outside.

The convolution's patches do not overlap: as the paper writes it, it is one linear layer on the r^2 tokens of each, with the
FLOPs of the convolution that the public code has, and without the choice of a kernel for it, on which its memory would depend.

Where r does not divide a side the last patches hold fewer tokens, and the convolution's other taps meet zeros. Public code drops
the rest of the grid there in silence: those tokens are neither keys nor values, and a side shorter than r fails. With
r = 1 there is no reduction and no normalisation, as in the public code.

The default r = 2 is what PVT has on 14 x 14 tokens, the grid of a plain ViT at 224 pixels (8, 4, 2, 1 on 56 x 56 to 7 x 7,
always 49 patches). For one r the attention stays quadratic.

Source: Wang et al., Pyramid Vision Transformer, ICCV 2021; code: whai362/PVT.
"""

from __future__ import annotations

import itertools
import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lisabench.contract import Cost, MultiHeadMixer, Operator, Workload
from lisabench.operators._sdpa import kernel_that_ran


class SpatialReduction(MultiHeadMixer):
    """Multi-head spatial-reduction attention: (B, N, C) -> (B, N, C). `reduction` is r."""

    def __init__(self, dim: int, num_heads: int, grid: tuple[int, int], *, reduction: int = 2) -> None:
        super().__init__(dim, num_heads, grid)
        if reduction < 1:
            raise ValueError(f"reduction got {reduction}; valid: 1 or more")
        self.reduction = reduction
        if reduction > 1:
            self.reduce = nn.Linear(reduction**2 * dim, dim)  # begins as the convolution would
            self.norm = nn.LayerNorm(dim)

    def prepare(self, x: Tensor) -> tuple[Tensor, ...]:
        return self.split_heads(self.query(x)), x

    def mix(self, query: Tensor, tokens: Tensor) -> Tensor:  # type: ignore[override]  # keys and values are made here
        patches = self.patches(tokens) if self.reduction > 1 else tokens
        key, value = self.split_heads(self.key(patches)), self.split_heads(self.value(patches))
        return F.scaled_dot_product_attention(query, key, value)

    def patches(self, tokens: Tensor) -> Tensor:
        """(B, N, C) -> (B, N / r^2, C), rounded up on both sides of the grid."""
        r = self.reduction
        image = tokens.unflatten(1, self.grid)  # (B, H, W, C)
        below, right = (-side % r for side in self.grid)
        if below or right:
            image = F.pad(image, (0, 0, 0, right, 0, below))
        cut = image.unflatten(2, (-1, r)).unflatten(1, (-1, r)).transpose(2, 3)  # (B, H / r, W / r, r, r, C)
        patches: Tensor = self.norm(self.reduce(cut.flatten(3).flatten(1, 2)))
        return patches


def dense_reference(module: SpatialReduction, query: Tensor, tokens: Tensor, *, rows: Tensor) -> Tensor:
    """Each patch as the sum over the tokens that it holds: those at the same place of their patches at a time."""
    r, width = module.reduction, module.grid.width
    patches = tokens
    if r > 1:
        taps = module.reduce.weight.unflatten(1, (r, r, -1))
        token = torch.arange(module.grid.tokens, device=tokens.device)
        y, x = token // width, token % width
        patch = y // r * math.ceil(width / r) + x // r
        patches = module.reduce.bias.repeat(len(tokens), int(patch[-1]) + 1, 1)
        for dy, dx in itertools.product(range(r), range(r)):
            here = (y % r == dy) & (x % r == dx)
            patches.index_add_(1, patch[here], tokens[:, here] @ taps[:, dy, dx].T)
        variance, mean = torch.var_mean(patches, dim=-1, correction=0, keepdim=True)
        patches = (patches - mean) / torch.sqrt(variance + module.norm.eps) * module.norm.weight + module.norm.bias
    key, value = ((patches @ layer.weight.T + layer.bias).unflatten(-1, (module.num_heads, -1)) for layer in (module.key, module.value))
    scores = torch.einsum("bhid,bjhd->bhij", query[:, :, rows], key) / math.sqrt(query.shape[-1])
    return torch.einsum("bhij,bjhd->bhid", torch.softmax(scores, dim=-1), value)


def cost(workload: Workload, *, reduction: int) -> Cost:
    """Convolution, two projections of the patches, and two products; flash kernels compute the scores once more in backward."""
    batch, tokens, dim = workload.batch, workload.tokens, workload.dim
    patches = math.prod(math.ceil(side / reduction) for side in workload.grid)
    linear = 2.0 * batch * patches * dim**2 * (2 + (reduction**2 if reduction > 1 else 0))
    product = 2.0 * batch * tokens * patches * dim
    per_channel = batch * dim * workload.item_bytes
    covered = patches * reduction**2  # tokens and what the last patches are filled up with
    attended = per_channel * (tokens + 3.0 * patches) + batch * workload.heads * tokens * 4
    padded = covered if covered > tokens else 0
    reduced = per_channel * (1.0 * padded + covered + 2 * patches)  # patches are copied to lie side by side
    return Cost(
        mix_flops=linear + 2 * product,
        mix_backward_flops=2 * linear + 5 * product,
        projection_flops=4.0 * batch * tokens * dim**2,  # of queries and the output
        transient_bytes=max(attended, reduced) if reduction > 1 else attended,
        saved_bytes=attended + per_channel * (covered + patches if reduction > 1 else -patches),
        traffic_bytes=per_channel * 3.0 * tokens + dim**2 * (2.0 + reduction**2) * workload.item_bytes,
    )


OPERATOR = Operator(
    name="sra",
    title="Spatial-reduction attention (PVT)",
    module=SpatialReduction,
    source="Wang et al., ICCV 2021",
    formula="y = softmax(Q (P W_k)^T / sqrt d) P W_v, P = LayerNorm(r x r convolution of X with stride r)",
    time_order="N^2/r^2 C",
    memory_order="N C",
    family="low rank",
    symmetries=lambda *, reduction: frozenset({"permutation"} if reduction == 1 else ()),
    cost=cost,
    reference=dense_reference,
    backend=kernel_that_ran,
)
