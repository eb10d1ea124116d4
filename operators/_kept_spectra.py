"""What is made of learned tables (spectra, weights), kept between calls in evaluation and dropped when the parameters change."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Self

import torch
from torch import Tensor, nn


class KeptSpectra(nn.Module):
    """A module whose spectra depend on parameters alone. Copies and files of it hold no spectra.

    On a GPU a change through `.data` is not seen: call `eval()` after it.
    """

    _kept: tuple[Any, tuple[Tensor, ...], tuple[Tensor, ...]] | None = None
    """What the spectra were made from, contents of the parameters then, the spectra."""

    def kept_spectra(self, make: Callable[[], tuple[Tensor, ...]], parameters: Iterable[nn.Parameter], kind: Any) -> tuple[Tensor, ...]:
        """What `make` gives from these parameters: anew in training or with gradients, else only when they or `kind` change.

        `kind` is whatever else it depends on: the dtype, the engine.
        """
        if self.training or torch.is_grad_enabled():
            return make()
        now = tuple(parameters)
        state = (kind, *((p.data_ptr(), p.device, p._version) for p in now))
        # Writing through `.data` leaves no trace in the version; on a CPU the comparison of contents costs next to nothing,
        # on a GPU it would wait for the device.
        if self._kept is not None and self._kept[0] == state and (now[0].is_cuda or all(map(torch.equal, now, self._kept[1]))):
            return self._kept[2]
        spectra = make()
        self._kept = (state, tuple(p.detach().clone() for p in now), spectra)
        return spectra

    def train(self, mode: bool = True) -> Self:
        self._kept = None
        return super().train(mode)

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_kept": None}
