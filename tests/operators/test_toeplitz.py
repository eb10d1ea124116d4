from __future__ import annotations

import torch

from lisabench.contract import Grid
from lisabench.operators.toeplitz import Toeplitz


def test_a_constant_mlp_leaves_the_decay() -> None:
    """An impulse spreads as decay^(|dy| + |dx|), without wrapping around."""
    module = Toeplitz(2, Grid(3, 5), decay=0.5, norm=False)
    with torch.no_grad():
        module.encoder.rest[-1].weight.zero_()
        module.encoder.rest[-1].bias.fill_(1)
        impulse = torch.zeros(1, 3, 5, 2)
        impulse[0, 0, 1] = 1
        spread = module.mix(torch.ones(1, 15, 2), impulse.flatten(1, 2))[0, :, 0].view(3, 5)
    want = torch.tensor([[1, 0, 1, 2, 3], [2, 1, 2, 3, 4], [3, 2, 3, 4, 5]])
    assert torch.allclose(spread, 0.5**want, atol=1e-6)


def test_on_one_row_it_is_the_toeplitz_matrix_of_the_paper() -> None:
    """T[i, j] = decay^|i - j| MLP(j - i), the paper's but for the sign of its offset."""
    module = Toeplitz(3, Grid(1, 6), norm=False).double()
    gate, value = torch.randn(2, 2, 6, 3).double()
    with torch.no_grad():
        along = torch.arange(6).double()
        offset = along - along[:, None]
        entries = module.encoder(torch.stack([torch.zeros(6, 6).double(), offset], dim=-1)) * (0.99 ** offset.abs())[..., None]
        assert torch.allclose(module.mix(gate, value), gate * torch.einsum("ijc,bjc->bic", entries, value))


def test_a_module_fits_another_grid() -> None:
    """An offset keeps its weight, negative ones too, whatever grids there are: the published 2-D code loses those of a smaller grid."""
    large, small = Toeplitz(4, Grid(6, 7)), Toeplitz(4, Grid(3, 5))
    small.load_state_dict(large.state_dict())
    with torch.no_grad():
        like = torch.empty(0)
        assert torch.allclose(small.table(like), large.table(like)[:, 3:-3, 2:-2], atol=1e-6)


def test_kept_spectra_follow_the_encoder() -> None:
    module = Toeplitz(4, Grid(3, 5)).eval()
    gate, value = torch.randn(2, 1, 15, 4)
    last = module.encoder.rest[-1].weight
    with torch.no_grad():
        for change in (lambda: last.mul_(2), lambda: last.data.add_(1)):
            before = module.mix(gate, value)
            assert torch.equal(module.mix(gate, value), before)
            assert module._kept is not None
            assert not module._kept[2][0].is_conj()  # a lazy conjugate would be written out at every call
            change()
            after = module.mix(gate, value)
            assert not torch.allclose(after, before)
            assert torch.equal(after, module.train().mix(gate, value))
            module.eval()
