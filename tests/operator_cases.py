"""The operators that tests run over: each with its defaults, and with the options that take another way through its code."""

from __future__ import annotations

from typing import Any

from lisabench import registry

BUILT_IN = registry.built_in()
VARIANTS: dict[str, list[dict[str, Any]]] = {
    "afno": [{"hard_thresholding_fraction": 0.5}, {"num_blocks": 2, "hidden_factor": 3, "hard_thresholding_fraction": 0.3}],
    "fnet": [{"norm": "backward"}],
    "agent": [{"agents": 6}, {"agents": 6, "bias": False}],
    "linformer": [{"rank": 5, "sharing": "none"}, {"rank": 5, "sharing": "key-value"}],
    "nystrom": [{"landmarks": 6, "iterations": 3}],
    "soft": [{"landmarks": 6, "iterations": 7}],
    "sra": [{"reduction": 1}, {"reduction": 3}],
    "linear": [{"key_dim": 5}],
    "nprf": [{"features": 5, "key_dim": 7}],
    "topvit": [{"key_dim": 5}],
    "lambda": [{"key_dim": 3}],
    "cosformer": [{"distance": "raster", "key_dim": 5}],
    "focused": [{"focusing": 4.5, "key_dim": 5}],
    "efficientvit": [{"kernel_size": 3}],
    "lisa": [
        {"engine": "mixed"},
        {"engine": "mixed", "boundary": "periodic"},
        {"engine": "fft"},
        {"engine": "dense"},
        {"engine": "fft", "boundary": "periodic"},
        {"engine": "dense", "boundary": "periodic"},
        {"key_dim": 5, "patterns": 1},
    ],
    "performer": [{"features": 7}],
    "softmax": [{"key_dim": 8}],
    "rsa": [{"window": 3, "latent": 5, "key_dim": 7}],
    "softmax_rpe": [{"key_dim": 8}],
    "toeplitz": [{"expand": 2, "width": 5, "layers": 0, "decay": 1.0}],
    "urpe": [{"key_dim": 8}],
    "window": [{"window": 3, "shift": True}],
}
CASES = [(name, options) for name in BUILT_IN for options in [{}, *VARIANTS.get(name, [])]]


def case_id(case: Any) -> str | None:
    """A readable part of a test's id: `lisa-engine=fft`."""
    if isinstance(case, dict):
        return ",".join(f"{name}={value}" for name, value in case.items()) or "defaults"
    return None
