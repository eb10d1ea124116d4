"""XCiT's cross-covariance attention: attention among the channels of a head, d x d, in place of tokens.

    y_ic = sum_e softmax_e(tau q^_c . k^_e) v_ie        q^_c, k^_e: a channel over all tokens, at unit length

tau is learned, one a head, and starts at 1 (in the paper's equation it divides; the published code multiplies, as here). Tokens meet
in the d x d covariances only: an XCiT block adds a local patch interaction (LPI: two depthwise 3 x 3 convolutions
with a batch norm) behind a residual of its own. It is not part of this operator, which alone is far from the published model.

Channels are brought to unit length in float32: in float16 the published normalisation has no eps left (1e-12 is 0), and a
channel of zeros gives NaN; in float32 its gradient is 1e12 there. Here such a channel stays 0 and has no gradient. The products
can stay in half precision after it: no entry of q^ and k^ is above 1.

Source: El-Nouby et al., XCiT: Cross-Covariance Image Transformers, NeurIPS 2021; code: facebookresearch/xcit (XCA).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from lisabench.contract import Cost, MultiHeadMixer, Operator, Workload, projection_flops

EPS = 1e-12  # that of the published code: shorter channels count as zeros


class XCiT(MultiHeadMixer):
    """Multi-head cross-covariance attention: (B, N, C) -> (B, N, C)."""

    def __init__(self, dim: int, num_heads: int, grid: tuple[int, int]) -> None:
        super().__init__(dim, num_heads, grid)
        self.temperature = nn.Parameter(torch.ones(num_heads, 1, 1))

    def mix(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        covariance = unit_channels(query).transpose(-1, -2) @ unit_channels(key)  # (B, h, d, d)
        weights = torch.softmax(covariance * self.temperature.to(covariance.dtype), dim=-1)
        return value @ weights.transpose(-1, -2)


def unit_channels(x: Tensor) -> Tensor:
    """(B, h, N, d) with each channel at unit length over the tokens, in the dtype of x."""
    length = torch.linalg.vector_norm(x, dim=-2, keepdim=True, dtype=torch.promote_types(x.dtype, torch.float32))
    return (x * ((length > EPS) / length.clamp(min=EPS))).to(x.dtype)


def dense_reference(module: XCiT, query: Tensor, key: Tensor, value: Tensor, *, rows: Tensor) -> Tensor:
    """Cosines between channels as quotients, and the softmax as one."""
    products = torch.stack([(channel.unsqueeze(-1) * key).sum(dim=2) for channel in query.unbind(-1)], dim=2)
    lengths = query.square().sum(dim=2).sqrt().unsqueeze(-1) * key.square().sum(dim=2).sqrt().unsqueeze(-2)
    weights = torch.exp(module.temperature * products / lengths)
    return torch.einsum("bhce,bhre->bhrc", weights / weights.sum(dim=-1, keepdim=True), value[:, :, rows])


def cost(workload: Workload) -> Cost:
    per_head, d = workload.batch * workload.heads, workload.head_dim
    numbers, item = workload.batch * workload.tokens * workload.dim, workload.item_bytes
    copied = 1 if workload.batch > 1 else 0  # products of heads that lie side by side need a copy once there are samples
    units = 8 + item if item < 4 else (2 + 2 * copied) * item  # in half precision the peak is in normalising, with float32 between
    weights = 1.0 * per_head * d * d * item
    return Cost(
        mix_flops=4.0 * per_head * workload.tokens * d * d,
        projection_flops=projection_flops(workload),
        transient_bytes=numbers * units + weights,
        saved_bytes=numbers * (2.0 + copied) * item + 2 * weights,
        traffic_bytes=4.0 * numbers * item,
    )


OPERATOR = Operator(
    name="xcit",
    title="XCiT cross-covariance attention, without its local patch interaction",
    module=XCiT,
    source="El-Nouby et al., NeurIPS 2021",
    formula="y = V softmax(tau K^^T Q^), channels of Q^ and K^ at unit length over the tokens",
    time_order="N C d",
    memory_order="N C",
    family="channel",
    symmetries=lambda **options: frozenset({"permutation"}),
    cost=cost,
    reference=dense_reference,
)
