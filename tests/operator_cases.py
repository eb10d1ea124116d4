"""The operators that tests run over: each with its defaults, and with the options that take another way through its code."""

from __future__ import annotations

from typing import Any

from lisabench import registry

BUILT_IN = registry.built_in()
VARIANTS: dict[str, list[dict[str, Any]]] = {
    "linear": [{"key_dim": 5}],
    "lisa": [
        {"engine": "fft"},
        {"engine": "dense"},
        {"engine": "fft", "boundary": "periodic"},
        {"engine": "dense", "boundary": "periodic"},
        {"key_dim": 5, "patterns": 1},
    ],
    "performer": [{"features": 7}],
    "softmax": [{"key_dim": 8}],
}
CASES = [(name, options) for name in BUILT_IN for options in [{}, *VARIANTS.get(name, [])]]


def case_id(case: Any) -> str | None:
    """A readable part of a test's id: `lisa-engine=fft`."""
    if isinstance(case, dict):
        return ",".join(f"{name}={value}" for name, value in case.items()) or "defaults"
    return None
