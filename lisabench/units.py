"""Numbers as people read them. Everything inside lisabench is SI; only this file makes text of it."""

from __future__ import annotations

import math

_DECIMAL = [(1e15, "P"), (1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"), (1.0, "")]
_BINARY = [(2.0**40, "TiB"), (2.0**30, "GiB"), (2.0**20, "MiB"), (2.0**10, "KiB"), (1.0, "B")]
_ENERGY = [(1.0, "J"), (1e-3, "mJ"), (1e-6, "µJ")]
_TIME = [(1.0, "s"), (1e-3, "ms"), (1e-6, "µs"), (1e-9, "ns")]
MISSING = "–"


def significant(value: float, digits: int = 3) -> str:
    """A number with so many significant digits and no exponent: 0.01234 -> '0.0123', 1234.5 -> '1234'."""
    if value == 0:
        return "0"
    rounded = abs(float(f"{value:.{digits}g}"))
    decimals = max(0, digits - 1 - math.floor(math.log10(rounded)))
    return f"{value:.{decimals}f}"


def _scaled(value: float, steps: list[tuple[float, str]], digits: int) -> str:
    # A value that rounds up to the next step is shown there: 999.96 us is "1.00 ms", not "1000 us".
    size, unit = next((step for step in steps if abs(value) >= step[0] * (1 - 0.5 * 10**-digits)), steps[-1])
    return f"{significant(value / size, digits)} {unit}".rstrip()


def seconds(value: float | None, digits: int = 3) -> str:
    """0.00123 -> '1.23 ms'."""
    return MISSING if value is None or math.isnan(value) else _scaled(value, _TIME, digits) if value else "0 s"


def size_in_bytes(value: float | None, digits: int = 3) -> str:
    """3145728 -> '3.00 MiB'; whole bytes below a KiB."""
    if value is None or math.isnan(value):
        return MISSING
    return f"{value:.0f} B" if abs(value) < 1024 else _scaled(value, _BINARY, digits)


def flops(value: float | None, digits: int = 3) -> str:
    """2.5e9 -> '2.50 G'; the column or axis says FLOP."""
    return MISSING if value is None or math.isnan(value) else _scaled(value, _DECIMAL, digits)


def energy(value: float | None, digits: int = 3) -> str:
    """0.0123 -> '12.3 mJ'."""
    return MISSING if value is None or math.isnan(value) else _scaled(value, _ENERGY, digits)


def duration(value: float) -> str:
    """A wait for a person: 75 -> '1 min 15 s'."""
    whole = max(0, round(value))
    hours, minutes, rest = whole // 3600, whole // 60 % 60, whole % 60
    if hours:
        return f"{hours} h {minutes:02d} min"
    return f"{minutes} min {rest:02d} s" if minutes else f"{rest} s"


def interval(low: float, middle: float, high: float) -> str:
    """Half the width of an interval in percent of its middle: '±0.8%'."""
    if not middle or math.isnan(middle):
        return MISSING
    return f"±{significant(50 * (high - low) / middle, 2)}%"
