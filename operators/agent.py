"""Agent attention: a few agents gather from all tokens, and all tokens read from the agents.

    y = softmax(Q A^T / sqrt d + B_q)  softmax(A K^T / sqrt d + B_k) V  +  depthwise 3 x 3 (V)

The agents A are means of the queries over the cells of a coarser grid (`_landmarks`). Each bias has, for every head and
agent, a 7 x 7 map that is stretched over the grid bilinearly, a row term and a column term, as in the published code;
`bias` False leaves both out.

Public code takes sqrt(N) for both sides of the grid (in PVT for the biases alone) and needs a square number of agents. Its
bias has as many rows as agents that it asked for; here as many as the grid has cells for.

Source: Han et al., Agent Attention, ECCV 2024; code: LeapLabTHU/Agent-Attention.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lisabench.contract import Cost, Grid, MultiHeadMixer, Operator, Workload, projection_flops
from lisabench.operators._depthwise import DepthwiseConvolution, dense_depthwise, depthwise_flops
from lisabench.operators._landmarks import dense_pool, landmark_grid, pool

MAP = 7  # side of a bias map before it is stretched
KERNEL = 3


class AgentBias(nn.Module):
    """What is added to the product of each agent and token: (h, L, N)."""

    def __init__(self, heads: int, agents: int, grid: Grid) -> None:
        super().__init__()
        self.grid = grid
        self.map = nn.Parameter(torch.empty(heads, agents, MAP, MAP))
        self.row = nn.Parameter(torch.empty(heads, agents, grid.height, 1))
        self.column = nn.Parameter(torch.empty(heads, agents, 1, grid.width))
        for table in self.parameters():
            nn.init.trunc_normal_(table, std=0.02)

    def forward(self) -> Tensor:
        stretched = F.interpolate(self.map, size=tuple(self.grid), mode="bilinear")
        return (stretched + (self.row + self.column)).flatten(-2)


class Agent(MultiHeadMixer):
    """Multi-head agent attention: (B, N, C) -> (B, N, C). `agents` is the most that are taken."""

    def __init__(self, dim: int, num_heads: int, grid: tuple[int, int], *, agents: int = 49, bias: bool = True) -> None:
        super().__init__(dim, num_heads, grid)
        self.coarse = landmark_grid(self.grid, agents)
        self.gather_bias = AgentBias(num_heads, self.coarse.tokens, self.grid) if bias else None
        self.read_bias = AgentBias(num_heads, self.coarse.tokens, self.grid) if bias else None
        self.local = DepthwiseConvolution(dim, KERNEL, self.grid)

    def mix(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        agents = query.shape[-1] ** -0.5 * pool(query, self.grid, self.coarse)  # (B, h, L, d)
        gathered = _attend(agents, key, value, None if self.gather_bias is None else self.gather_bias())  # (B, h, L, d)
        read_bias = None if self.read_bias is None else self.read_bias().transpose(-1, -2)
        local = self.split_heads(self.local(value.transpose(1, 2).flatten(-2)))
        return _attend(query, agents, gathered, read_bias) + local


def _attend(query: Tensor, key: Tensor, value: Tensor, bias: Tensor | None) -> Tensor:
    scores = query @ key.transpose(-1, -2)
    if bias is not None:
        scores = scores + bias.to(scores.dtype)
    return torch.softmax(scores, dim=-1) @ value


def dense_reference(module: Agent, query: Tensor, key: Tensor, value: Tensor, *, rows: Tensor) -> Tensor:
    """The N x N matrix of weights, with the bias maps stretched by matrices, and the convolution as a sum over all tokens."""
    scale = query.shape[-1] ** -0.5
    agents = dense_pool(query, module.grid, module.coarse)
    gather = scale * torch.einsum("bhld,bhjd->bhlj", agents, key)
    read = scale * torch.einsum("bhid,bhld->bhil", query[:, :, rows], agents)
    if module.gather_bias is not None and module.read_bias is not None:
        gather = gather + _dense_bias(module.gather_bias)
        read = read + _dense_bias(module.read_bias)[..., rows].transpose(-1, -2)
    weights = torch.softmax(read, dim=-1) @ torch.softmax(gather, dim=-1)  # (B, h, rows, N)
    local = dense_depthwise(module.local, value.transpose(1, 2).flatten(-2), rows)
    return weights @ value + module.split_heads(local)


def _dense_bias(bias: AgentBias) -> Tensor:
    def stretch(side: int) -> Tensor:
        """(side, 7): a hat about each place of the map, for the centres of `side` cells over the same length."""
        centres = ((torch.arange(side).to(bias.map) + 0.5) * MAP / side - 0.5).clamp(0, MAP - 1)
        return (1 - (centres[:, None] - torch.arange(MAP).to(bias.map)).abs()).clamp(min=0)

    height, width = bias.grid
    stretched = torch.einsum("ya,xb,hlab->hlyx", stretch(height), stretch(width), bias.map)
    return (stretched + bias.row + bias.column).reshape(*bias.map.shape[:2], height * width)


def cost(workload: Workload, *, agents: int, bias: bool) -> Cost:
    few, d = landmark_grid(workload.grid, agents).tokens, workload.head_dim
    planes, tokens = workload.batch * workload.heads, workload.tokens
    weights, values = planes * tokens * few, planes * tokens * d
    of_bias = workload.heads * tokens * few if bias else 0
    copied = 1 if workload.batch > 1 else 0  # products of heads that lie side by side need a copy once there are samples
    return Cost(
        mix_flops=8.0 * planes * tokens * few * d + depthwise_flops(workload, workload.dim, KERNEL),
        projection_flops=projection_flops(workload),
        transient_bytes=(max(2.0 * weights + (1 + copied) * values + of_bias, 3.0 * values) + of_bias) * workload.item_bytes,
        saved_bytes=(2.0 * weights + 5 * copied * values) * workload.item_bytes,
        traffic_bytes=planes * tokens * 4.0 * d * workload.item_bytes,
    )


OPERATOR = Operator(
    name="agent",
    title="Agent attention",
    module=Agent,
    source="Han et al., ECCV 2024",
    formula="y = softmax(Q A^T / sqrt d + B_q) softmax(A K^T / sqrt d + B_k) V + depthwise(V), A = pooled Q",
    time_order="N L C",
    memory_order="N h L",
    family="low rank",
    grid_parameters="2 (H + W) h L",
    cost=cost,
    reference=dense_reference,
)
