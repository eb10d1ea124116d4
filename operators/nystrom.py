"""Nystromformer: softmax attention from what tokens and a few landmarks see of each other.

    y = softmax(Q K~^T / sqrt d)  Z  softmax(Q~ K^T / sqrt d) V,    Z ~ pinv(A),  A = softmax(Q~ K~^T / sqrt d)
    Z_0 = A^T / (|A|_1 |A|_inf),    Z <- Z (13 - A Z (15 - A Z (7 - A Z))) / 4

Q~ and K~ are means over the cells of a coarser grid (`_landmarks`); on a grid of one row whose length their number divides
these are the segment means of the paper. Products go from the right, so that none costs N L^2, and all is float32 also for
half-precision input: Z has large entries of both signs. What belongs to small singular values of A grows by 13 / 4 an
iteration, rounding too: the published six leave float32 its digits, twenty do not.

nystrom-attention, and the authors' code for text by default, take the norms that Z begins with over all heads and samples, so
that a sample's result depends on its batch mates; here each matrix has its own. nystrom-attention pads a sequence that the
landmarks do not divide with zero tokens, which without a mask take part in every softmax; here the cells overlap by a row or
column instead and nothing is padded. The published skip connection, a convolution of the values along the sequence, is left
out: it is not part of the approximation.

Source: Xiong et al., Nystromformer, AAAI 2021; code: mlpen/Nystromformer, lucidrains/nystrom-attention.
"""

from __future__ import annotations

import torch
from torch import Tensor

from lisabench.contract import Cost, MultiHeadMixer, Operator, Workload, in_float32, projection_flops
from lisabench.operators._landmarks import dense_pool, landmark_grid, pool


class Nystrom(MultiHeadMixer):
    """Multi-head Nystrom attention: (B, N, C) -> (B, N, C). `landmarks` is the most that are taken, `iterations` those of the pseudoinverse."""

    def __init__(self, dim: int, num_heads: int, grid: tuple[int, int], *, landmarks: int = 64, iterations: int = 6) -> None:
        super().__init__(dim, num_heads, grid)
        if iterations < 0:
            raise ValueError(f"iterations got {iterations}; valid: 0 or more")
        self.coarse = landmark_grid(self.grid, landmarks)
        self.iterations = iterations

    @in_float32
    def mix(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        scale = query.shape[-1] ** -0.5
        few_queries, few_keys = (scale * pool(t, self.grid, self.coarse) for t in (query, key))  # (B, h, L, d)
        gathered = torch.softmax(few_queries @ key.transpose(-1, -2), dim=-1) @ value  # (B, h, L, d)
        between = torch.softmax(few_queries @ few_keys.transpose(-1, -2) / scale, dim=-1)  # (B, h, L, L)
        spread = pseudoinverse(between, self.iterations) @ gathered
        return torch.softmax(query @ few_keys.transpose(-1, -2), dim=-1) @ spread


def pseudoinverse(matrix: Tensor, iterations: int) -> Tensor:
    """(..., L, L), third order, each matrix for itself (Razavi et al. 2014)."""
    identity = torch.eye(matrix.shape[-1], dtype=matrix.dtype, device=matrix.device)
    columns, rows = (matrix.abs().sum(dim=dim, keepdim=True).amax(dim=(-2, -1), keepdim=True) for dim in (-2, -1))
    inverse = matrix.transpose(-1, -2) / (columns * rows)
    for _ in range(iterations):
        product = matrix @ inverse
        inverse = inverse @ (13 * identity - product @ (15 * identity - product @ (7 * identity - product))) / 4
    return inverse


def dense_reference(module: Nystrom, query: Tensor, key: Tensor, value: Tensor, *, rows: Tensor) -> Tensor:
    """The N x N matrix of weights, with Z from singular values: the iteration keeps the singular vectors and acts on each value alone."""
    scale = query.shape[-1] ** -0.5
    few_queries, few_keys = (dense_pool(t, module.grid, module.coarse) for t in (query, key))

    def weights(of: Tensor, to: Tensor) -> Tensor:
        return torch.softmax(scale * torch.einsum("bhid,bhjd->bhij", of, to), dim=-1)

    between = weights(few_queries, few_keys)
    left, values, right = torch.linalg.svd(between)
    norms = [torch.linalg.matrix_norm(between, ord=order) for order in (1, torch.inf)]
    inverted = values / (norms[0] * norms[1])[..., None]
    for _ in range(module.iterations):
        done = values * inverted
        inverted = inverted * (13 - 15 * done + 7 * done**2 - done**3) / 4
    inverse = torch.einsum("bhkj,bhk,bhik->bhji", right, inverted, left)
    return weights(query[:, :, rows], few_keys) @ inverse @ weights(few_queries, key) @ value


def cost(workload: Workload, *, landmarks: int, iterations: int) -> Cost:
    few, d = landmark_grid(workload.grid, landmarks).tokens, workload.head_dim
    planes, tokens = workload.batch * workload.heads, workload.tokens
    wide, widened = max(4, workload.item_bytes), 3.0 * tokens * d * 4 * (workload.item_bytes < 4)  # the inputs once more, in float32
    copied = 1 if workload.batch > 1 else 0  # products of heads that lie side by side need a copy once there are samples
    return Cost(
        mix_flops=planes * (8.0 * tokens * few * d + 4.0 * few**2 * d + 8.0 * few**3 * iterations),
        projection_flops=projection_flops(workload),
        transient_bytes=planes * ((tokens * (few + max(few, d)) + 3.0 * few * d + 2 * few**2) * wide + widened),
        saved_bytes=planes * ((tokens * (2.0 * few + 5 * copied * d) + (6 * iterations + 2) * few**2) * wide + (1 - copied) * widened),
        traffic_bytes=planes * tokens * 4.0 * d * workload.item_bytes,
    )


OPERATOR = Operator(
    name="nystrom",
    title="Nystromformer",
    module=Nystrom,
    source="Xiong et al., AAAI 2021",
    formula="y = softmax(Q K~^T / sqrt d) pinv(softmax(Q~ K~^T / sqrt d)) softmax(Q~ K^T / sqrt d) V",
    time_order="N L C",
    memory_order="N h L",
    family="low rank",
    cost=cost,
    reference=dense_reference,
)
