"""Operators against packages that other people wrote: equal where these are right, and their faults shown where they are not.

The packages come with the extra `peers`; a test whose package is absent is skipped.
"""

from __future__ import annotations

import warnings
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from lisabench.contract import Grid, MultiHeadMixer
from lisabench.operators import performer
from lisabench.operators.linformer import Linformer
from lisabench.operators.nystrom import Nystrom
from lisabench.operators.performer import Performer

DIM = 24
EXACT = 1e-10  # of float64


@pytest.fixture(autouse=True)
def _in_float64() -> Any:
    torch.manual_seed(0)
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def peer(name: str) -> ModuleType:
    """The package, or a skip that says what to install; what its import warns of is its authors' affair."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        module: ModuleType = pytest.importorskip(
            name, reason=f"needs {name}, of the extra `peers`, in a version that imports here", exc_type=ImportError
        )
    return module


def give_projections(ours: MultiHeadMixer, weights: dict[str, Tensor], out: nn.Linear) -> None:
    """The peer's projections to ours; those of peers have no bias, but for the last one."""
    with torch.no_grad():
        for name, weight in weights.items():
            layer = getattr(ours, name)
            layer.weight.copy_(weight)
            layer.bias.zero_()
        ours.out.weight.copy_(out.weight)
        ours.out.bias.copy_(out.bias)


def far(got: Tensor, want: Tensor) -> float:
    return float((got - want).norm() / want.norm())


# --- performer-pytorch -------------------------------------------------------------------------------------------------


def performers() -> tuple[Any, Performer]:
    ours = Performer(DIM, 2, Grid(5, 7), features=30)
    theirs = peer("performer_pytorch").FastAttention(DIM // 2, nb_features=30)
    theirs.projection_matrix.copy_(ours.weights)
    return theirs, ours


def test_performer_gives_what_performer_pytorch_gives() -> None:
    """But for eps, which the two add to features of other sizes: on short tokens that is little."""
    theirs, ours = performers()
    query, key, value = 0.3 * torch.randn(3, 2, 2, 35, DIM // 2)
    with torch.no_grad():
        assert far(theirs(query, key, value), ours.mix(query, key, value)) < 1e-3


def test_performer_is_performer_pytorch_without_eps(monkeypatch: pytest.MonkeyPatch) -> None:
    theirs, ours = performers()
    source = peer("performer_pytorch.performer_pytorch")
    monkeypatch.setattr(performer, "EPS", 0.0)
    query, key, value = 3 * torch.randn(3, 2, 2, 35, DIM // 2)
    of_query, of_key = (
        source.softmax_kernel(t, projection_matrix=theirs.projection_matrix, is_query=is_query, eps=0.0)
        for t, is_query in ((query, True), (key, False))
    )
    with torch.no_grad():
        assert far(source.linear_attention(of_query, of_key, value), ours.mix(query, key, value)) < EXACT


def test_performer_pytorch_forgets_long_tokens() -> None:
    """Its maximum leaves out |x|^2 / 2: eps drowns the features of long tokens, and each output is the mean of the values."""
    theirs, ours = performers()
    query, key, value = torch.randn(3, 1, 2, 35, DIM // 2)
    mean = value.mean(dim=-2, keepdim=True).expand_as(value)
    with torch.no_grad():
        assert far(theirs(10 * query, 10 * key, value), mean) < 1e-6
        assert far(ours.mix(10 * query, 10 * key, value), mean) > 0.1


# --- nystrom-attention -------------------------------------------------------------------------------------------------


def nystroms(tokens: int, *, heads: int = 1, landmarks: int = 12) -> tuple[Any, Nystrom]:
    """Without theirs' convolution of the values, which ours has not."""
    package = peer("nystrom_attention")
    theirs = package.NystromAttention(DIM, dim_head=DIM // heads, heads=heads, num_landmarks=landmarks, residual=False).eval()
    ours = Nystrom(DIM, heads, Grid(1, tokens), landmarks=landmarks)
    give_projections(ours, dict(zip(("query", "key", "value"), theirs.to_qkv.weight.chunk(3), strict=True)), theirs.to_out[0])
    return theirs, ours


def test_nystrom_gives_what_nystrom_attention_gives() -> None:
    theirs, ours = nystroms(48)
    x = 3 * torch.randn(1, 48, DIM)
    with torch.no_grad():
        assert far(ours(x), theirs(x)) < EXACT


@pytest.mark.parametrize("heads", [1, 2])
def test_samples_and_heads_of_nystrom_attention_see_each_other(heads: int) -> None:
    """Its pseudoinverse begins with the largest norms of the whole batch: a mate that is long changes a sample's result."""
    theirs, ours = nystroms(48, heads=heads)
    x = 3 * torch.randn(1, 48, DIM)
    with_mate = torch.cat([x, 10 * torch.randn(1, 48, DIM)])
    with torch.no_grad():
        assert far(theirs(with_mate)[:1], theirs(x)) > 1e-3
        assert far(ours(with_mate)[:1], ours(x)) < EXACT
        if heads > 1:
            assert far(theirs(x), ours(x)) > 1e-6


def test_padding_of_nystrom_attention_gets_weight() -> None:
    """Told by a mask that all tokens are real, it gives another result where it pads: the zeros took part before."""
    for tokens, padded in ((48, False), (50, True)):
        theirs, _ = nystroms(tokens)
        x = 3 * torch.randn(1, tokens, DIM)
        with torch.no_grad():
            change = far(theirs(x), theirs(x, mask=torch.ones(1, tokens, dtype=torch.bool)))
        assert (change > 1e-2) is padded
        assert padded or change < 1e-6  # its mask adds 1e-8 to a divisor


def test_weights_of_nystrom_sum_to_one_where_the_landmarks_do_not_divide() -> None:
    """Values that are all one must come out as one; padded with zeros they come out as less."""
    theirs, ours = nystroms(50)
    ours.iterations = theirs.pinv_iterations = 30
    query, key, _ = ours.prepare(2 * torch.randn(1, 50, DIM))
    of_one, value = torch.zeros(DIM, DIM), torch.ones(1, 1, 50, DIM)
    of_one[:, 0] = 1
    x = torch.randn(1, 50, DIM)
    x[..., 0] = 1
    with torch.no_grad():
        assert far(ours.mix(query, key, value), value) < 1e-6
        theirs.to_qkv.weight[2 * DIM :] = of_one
        theirs.to_out[0].weight.copy_(torch.eye(DIM))
        theirs.to_out[0].bias.zero_()
        assert theirs(x).mean() < 0.9


# --- linformer ---------------------------------------------------------------------------------------------------------


def linformers(grid: Grid, *, share: bool = False) -> tuple[Any, Linformer]:
    theirs = peer("linformer").LinformerSelfAttention(DIM, grid.tokens, k=6, heads=2, share_kv=share).eval()
    ours = Linformer(DIM, 2, grid, rank=6, sharing="key-value" if share else "headwise")
    value = theirs.to_k if share else theirs.to_v
    give_projections(ours, {"query": theirs.to_q.weight, "key": theirs.to_k.weight, "value": value.weight}, theirs.to_out)
    with torch.no_grad():
        ours.key_mixtures.copy_(theirs.proj_k.T)
        if not share:
            ours.value_mixtures.copy_(theirs.proj_v.T)
    return theirs, ours


@pytest.mark.parametrize("share", [False, True])
def test_linformer_gives_what_linformer_gives(share: bool) -> None:
    """Shared: only with one projection for keys and values besides, which the paper does not share."""
    theirs, ours = linformers(Grid(5, 7), share=share)
    x = torch.randn(3, 35, DIM)
    with torch.no_grad():
        assert far(ours(x), theirs(x)) < EXACT


def test_linformer_package_takes_a_shorter_sequence_in_silence() -> None:
    """Another grid, whose rows are of another length, gets the mixtures of other places; ours refuses."""
    theirs, ours = linformers(Grid(5, 7))
    fewer = torch.randn(1, 20, DIM)  # 5 x 4
    with torch.no_grad():
        assert theirs(fewer).shape == fewer.shape
        with pytest.raises(RuntimeError):
            ours(fewer)
