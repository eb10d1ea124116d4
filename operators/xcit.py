"""XCiT's cross-covariance attention: attention among the channels of a head, d x d, in place of tokens.

    y_ic = sum_e softmax_e(tau q^_c . k^_e) v_ie        q^_c, k^_e: a channel over all tokens, at unit length

tau is learned, one a head, and starts at 1 (in the paper's equation it divides; the published code multiplies, as here). Tokens meet
in the d x d covariances only: an XCiT block adds a local patch interaction (LPI: two depthwise 3 x 3 convolutions
with a batch norm) behind a residual of its own. It is not part of this operator, which alone is far from the published model.

Channels are brought to unit length in float32: in float16 the published normalisation has no eps left (1e-12 is 0), and a
channel of zeros gives NaN. The products can stay in half precision after it: no entry of q^ and k^ is above 1.

Source: El-Nouby et al., XCiT: Cross-Covariance Image Transformers, NeurIPS 2021, sec. 3.2; code: facebookresearch/xcit (XCA).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lisabench.contract import Cost, MultiHeadMixer, Operator, Workload, projection_flops


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
    return F.normalize(x.to(torch.promote_types(x.dtype, torch.float32)), dim=-2).to(x.dtype)


def dense_reference(module: XCiT, query: Tensor, key: Tensor, value: Tensor, *, rows: Tensor) -> Tensor:
    """Cosines between channels as quotients, and the softmax as one."""
    products = torch.stack([(channel.unsqueeze(-1) * key).sum(dim=2) for channel in query.unbind(-1)], dim=2)
    lengths = query.square().sum(dim=2).sqrt().unsqueeze(-1) * key.square().sum(dim=2).sqrt().unsqueeze(-2)
    weights = torch.exp(module.temperature * products / lengths)
    return torch.einsum("bhce,bhre->bhrc", weights / weights.sum(dim=-1, keepdim=True), value[:, :, rows])


def cost(workload: Workload) -> Cost:
    per_head, d = workload.batch * workload.heads, workload.head_dim
    numbers, wide = workload.batch * workload.tokens * workload.dim, max(4, workload.item_bytes)
    weights = 2.0 * per_head * d * d * wide
    return Cost(
        mix_flops=4.0 * per_head * workload.tokens * d * d,
        projection_flops=projection_flops(workload),
        transient_bytes=3.0 * numbers * wide + weights,  # from 2 for one sample to 4 for several, whose heads a product copies
        saved_bytes=2.0 * numbers * wide + weights,
        traffic_bytes=4.0 * numbers * workload.item_bytes,
    )


OPERATOR = Operator(
    name="xcit",
    title="XCiT cross-covariance attention, without its local patch interaction",
    module=XCiT,
    source="El-Nouby et al., NeurIPS 2021, sec. 3.2",
    formula="y = V softmax(tau K^^T Q^), channels of Q^ and K^ at unit length over the tokens",
    time_order="N C d",
    memory_order="N C",
    family="channel",
    symmetries=lambda **options: frozenset({"permutation"}),
    cost=cost,
    reference=dense_reference,
)
