"""How the products of `_lisa_triton.py` are cut into tiles.

Chosen for Hopper, from how its tensor cores are fed: tiles of 128 x 128, 128 bytes deep, on 8 warps; narrower where they would be fewer than two
a multiprocessor; two to four stages, as many as leave half of the shared memory to a second block. Without tensor cores 64 x 64.
"""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import torch


class Tile(NamedTuple):
    m: int
    n: int
    k: int
    warps: int
    stages: int

    @property
    def blocks(self) -> tuple[int, int, int]:
        return self.m, self.n, self.k

    def number(self, rows: int, columns: int) -> int:
        return -(-rows // self.m) * -(-columns // self.n)


def tile_of(rows: int, columns: int, inner: int, times: int, precision: str, device: torch.device, least: int = 16) -> Tile:
    """The tile, `least` columns or more, of a product (rows, inner) x (inner, columns) that is made `times` over."""
    processors, memory = _limits(device)
    m, k = block(rows, precision), depth_of(inner, precision)
    n = max(least, block(columns, precision))
    while n > max(32, least) and -(-rows // m) * -(-columns // n) * times < 2 * processors:
        n //= 2
    stage = (m + n) * k * (2 if precision == "bf16" else 4)
    return Tile(m, n, k, 8 if m * n >= 128 * 128 else 4, max(2, min(4, memory // 2 // stage)))


def back_tile(
    long: int, places: int, channels: int, inner: int, times: int, precision: str, device: torch.device
) -> tuple[Tile, int, int, int]:
    """The tile of a product (long, inner) x (inner, places x channels), how many cover long x places, and of these and of channels a tile's share.

    It holds a power of two of channels: as many as divide all of them, unless that would make loads short.
    """
    divisor = channels & -channels
    share = min(block(channels, precision), divisor if divisor >= 16 else _power_of_two(channels))
    tile = tile_of(long, places * up_to(channels, share), inner, times, precision, device, max(16, share))
    at_once = tile.n // share
    return tile, -(-long // tile.m) * -(-places // at_once), at_once, share


def block(size: int, precision: str) -> int:
    """The side of a tile along so many rows or columns."""
    return min(64 if precision == "ieee" else 128, max(16, _power_of_two(size)))


def depth_of(inner: int, precision: str) -> int:
    """The depth of a tile: 64 numbers of 2 bytes or 32 of 4, or half of that where fewer zeros are then multiplied."""
    whole = 64 if precision == "bf16" else 32
    return 16 if inner <= 16 else min((whole, whole // 2), key=lambda depth: up_to(inner, depth))


@lru_cache
def _limits(device: torch.device) -> tuple[int, int]:
    """Multiprocessors and the bytes of shared memory of each that a block may have."""
    if device.type != "cuda":
        return 1, 2**16
    found = torch.cuda.get_device_properties(device)
    return found.multi_processor_count, found.shared_memory_per_block_optin  # type: ignore[attr-defined]  # torch's stub lacks it


def _power_of_two(at_least: int) -> int:
    return 1 << (at_least - 1).bit_length()


def up_to(number: int, multiple: int) -> int:
    return -(-number // multiple) * multiple
