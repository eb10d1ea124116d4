"""SOFT: attention with a Gaussian kernel in place of softmax, its N x N matrix rebuilt from a few landmarks.

    y = G(Q, Q~)  Z  G(Q~, Q) V,    G(a, b) = exp(-|a - b|^2 / (2 sqrt d)),    Z ~ A^-1,    A = G(Q~, Q~) + 0.01 I
    Z_0 = 1.8 A / |G(Q~, Q~)|_inf^2,    Z <- 2 Z - Z A Z

Keys are the queries, so that the matrix is symmetric; its rows are not normalised. Q~ are means over the cells of a coarser
grid (`_landmarks`); the published code has a strided convolution with normalisation and GELU in their place.
The distances are clamped at 0, below which rounding takes them, and all is float32 also for half-precision input.
Products go from the right, so that none costs N L^2.

The 0.01 on the diagonal is that of the published code: the landmarks' matrix is nearly singular. Gradients are those of the
iteration itself; the published code gives those of the exact inverse, which is another function where the iteration has not
converged. Its normalised variant takes the iteration's start over the whole batch; here each matrix has its own. The code's
convolution of the values, which is added to the output, is left out: it is not part of the approximation.

Source: Lu et al., SOFT, NeurIPS 2021; code: fudan-zvg/SOFT.
"""

from __future__ import annotations

import torch
from torch import Tensor

from lisabench.contract import Cost, MultiHeadMixer, Operator, Workload, in_float32
from lisabench.operators._landmarks import dense_pool, landmark_grid, pool

RIDGE, START = 0.01, 1.8  # those of the published code; the iteration converges where START is below 2


class Soft(MultiHeadMixer):
    """Multi-head softmax-free attention: (B, N, C) -> (B, N, C). `landmarks` is the most that are taken, `iterations` those of Newton's inverse."""

    def __init__(self, dim: int, num_heads: int, grid: tuple[int, int], *, landmarks: int = 49, iterations: int = 20) -> None:
        super().__init__(dim, num_heads, grid)
        if iterations < 0:
            raise ValueError(f"iterations got {iterations}; valid: 0 or more")
        del self.key  # keys are the queries
        self.coarse = landmark_grid(self.grid, landmarks)
        self.iterations = iterations

    def prepare(self, x: Tensor) -> tuple[Tensor, ...]:
        return self.split_heads(self.query(x)), self.split_heads(self.value(x))

    @in_float32
    def mix(self, query: Tensor, value: Tensor) -> Tensor:  # there is no key
        query = query * query.shape[-1] ** -0.25
        few = pool(query, self.grid, self.coarse)
        seen = gaussian(query, few)  # (B, h, N, L)
        inverse = newton_inverse(gaussian(few, few), self.iterations)
        return seen @ (inverse @ (seen.transpose(-1, -2) @ value))


def gaussian(a: Tensor, b: Tensor) -> Tensor:
    """exp(-|a_i - b_j|^2 / 2), (..., N, d) and (..., L, d) -> (..., N, L)."""
    half_norms = [t.square().sum(dim=-1, keepdim=True) / 2 for t in (a, b)]
    return (a @ b.transpose(-1, -2) - half_norms[0] - half_norms[1].transpose(-1, -2)).clamp(max=0).exp()


def newton_inverse(kernel: Tensor, iterations: int) -> Tensor:
    """(..., L, L), each matrix for itself."""
    matrix = kernel + RIDGE * torch.eye(kernel.shape[-1], dtype=kernel.dtype, device=kernel.device)
    inverse = START / kernel.sum(dim=-1).amax(dim=-1)[..., None, None].square() * matrix
    for _ in range(iterations):
        inverse = 2 * inverse - inverse @ matrix @ inverse
    return inverse


def dense_reference(module: Soft, query: Tensor, value: Tensor, *, rows: Tensor) -> Tensor:
    """The N x N matrix from the differences of tokens, with Z from eigenvalues: the iteration acts on each of them alone."""
    few = dense_pool(query, module.grid, module.coarse)

    def kernel(a: Tensor, b: Tensor) -> Tensor:
        distances = torch.cdist(a, b, compute_mode="donot_use_mm_for_euclid_dist")
        return torch.exp(-distances.square() / (2 * query.shape[-1] ** 0.5))

    between = kernel(few, few)
    values, vectors = torch.linalg.eigh(between)
    values = values + RIDGE
    inverted = START * values / torch.linalg.matrix_norm(between, ord=torch.inf)[..., None] ** 2
    for _ in range(module.iterations):
        inverted = inverted * (2 - values * inverted)
    inverse = torch.einsum("bhik,bhk,bhjk->bhij", vectors, inverted, vectors)
    return kernel(query[:, :, rows], few) @ inverse @ kernel(few, query) @ value


def cost(workload: Workload, *, landmarks: int, iterations: int) -> Cost:
    few, d = landmark_grid(workload.grid, landmarks).tokens, workload.head_dim
    planes, tokens = workload.batch * workload.heads, workload.tokens
    wide, widened = max(4, workload.item_bytes), tokens * d * 4.0 * (workload.item_bytes < 4)  # an input once more, in float32
    copied = 1 if workload.batch > 1 else 0  # products of heads that lie side by side need a copy once there are samples
    return Cost(
        mix_flops=planes * (6.0 * tokens * few * d + 4.0 * few**2 * d + 4.0 * few**3 * iterations),
        projection_flops=6.0 * workload.batch * tokens * workload.dim**2,  # of queries, values and the output
        transient_bytes=planes * ((tokens * (d + few + max(few, d)) + 2.0 * few * d + few**2) * wide + 2 * widened),
        saved_bytes=planes * ((tokens * (2.0 * few + d + 3 * copied * d) + (2 * iterations + 8) * few**2) * wide + (1 - copied) * widened),
        traffic_bytes=planes * tokens * 3.0 * d * workload.item_bytes,
    )


OPERATOR = Operator(
    name="soft",
    title="SOFT (softmax-free, Gaussian)",
    module=Soft,
    source="Lu et al., NeurIPS 2021",
    formula="y = G(Q, Q~) (G(Q~, Q~) + 0.01 I)^-1 G(Q~, Q) V, G(a, b) = exp(-|a - b|^2 / (2 sqrt d))",
    time_order="N L C",
    memory_order="N h L",
    family="low rank",
    cost=cost,
    reference=dense_reference,
)
