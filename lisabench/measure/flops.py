"""Counted FLOPs, by two counters that did not see the analytic formula: fvcore and torch's FlopCounterMode.

Convention: a multiply-add is 2 FLOPs; a complex product 6; a complex FFT of n points 5 n log2 n, a real one half of
it; other pointwise work is not counted. fvcore counts a multiply-add as 1: its figure is doubled. Both counters give 0
for FFTs, complex products and, on a CPU, attention kernels, torch's in silence, and torch over-counts the backward of a
grouped convolution: the handles below put these right.

Both run the call for real, after the timing and on the function that is not compiled: a compiled one that ran under
FlopCounterMode falls back to eager ever after (pytorch#140909).
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode, sdpa_backward_flop_count, sdpa_flop_count

aten = torch.ops.aten
COMPLEX_PRODUCT = 6
AGREE_WITHIN = 0.01


def _fft(points: int, elements: int, *, real: bool) -> float:
    return (2.5 if real else 5.0) * elements * math.log2(points) if points > 1 else 0.0


def _points(tensor: Any, dims: Sequence[int]) -> int:
    return math.prod(tensor.shape[dim] for dim in dims)


def _raw(count: Callable[..., float]) -> Callable[..., float]:
    count._get_raw = True  # type: ignore[attr-defined]  # torch then hands over tensors, not shapes
    return count


@_raw
def _r2c(x: Any, dim: Any, *_: Any, out_val: Any = None, **__: Any) -> float:
    return _fft(_points(x, dim), x.numel(), real=True)


@_raw
def _c2r(x: Any, dim: Any, *_: Any, out_val: Any = None, **__: Any) -> float:
    return _fft(_points(out_val, dim), out_val.numel(), real=True)


@_raw
def _c2c(x: Any, dim: Any, *_: Any, out_val: Any = None, **__: Any) -> float:
    return _fft(_points(x, dim), x.numel(), real=False)


@_raw
def _product(x: Any, y: Any, *_: Any, out_val: Any = None, **__: Any) -> float:
    both = all(isinstance(t, Tensor) and t.is_complex() for t in (x, y))
    return float(COMPLEX_PRODUCT * out_val.numel()) if both else 0.0


def _attention(query: Any, key: Any, value: Any, *_: Any, **__: Any) -> float:
    return float(sdpa_flop_count(query, key, value))


def _attention_backward(grad: Any, query: Any, key: Any, value: Any, *_: Any, **__: Any) -> float:
    return float(sdpa_backward_flop_count(grad, query, key, value))


def _convolution_backward(grad: Any, x: Any, weight: Any, *settings: Any, **__: Any) -> float:
    """On shapes: each of the two gradients costs what the forward did.

    `weight` is (out, in / groups, ...), of a transposed convolution (in, out / groups, ...): all of it meets each position once.
    """
    _bias, _stride, _padding, _dilation, transposed, _output_padding, _groups, wanted = settings
    positions = (x if transposed else grad)[2:]
    once: float = 2.0 * x[0] * math.prod(positions) * math.prod(weight)
    return once * sum(map(bool, wanted[:2]))


_TORCH_HANDLES: dict[Any, Callable[..., float]] = {
    aten._fft_r2c: _r2c,
    aten._fft_c2r: _c2r,
    aten._fft_c2c: _c2c,
    aten.mul: _product,
    aten._scaled_dot_product_flash_attention_for_cpu: _attention,
    aten._scaled_dot_product_flash_attention_for_cpu_backward: _attention_backward,
    aten._scaled_dot_product_fused_attention_overrideable: _attention,
    aten._scaled_dot_product_fused_attention_overrideable_backward: _attention_backward,
    aten.convolution_backward: _convolution_backward,
}


def tally_torch(call: Callable[[], Any], *, handles: bool = True) -> dict[str, float]:
    """FLOPs of one call by operator, backward included where it has one; without `handles`, as torch's counter comes."""
    with FlopCounterMode(display=False, custom_mapping=dict(_TORCH_HANDLES) if handles else None) as counter:
        call()
    counted = counter.get_flop_counts().get("Global", {})
    return {f"aten::{op.__name__}": float(flops) for op, flops in counted.items() if flops}


def count_torch(call: Callable[[], Any]) -> tuple[float, frozenset[str]]:
    """FLOPs of one call, backward included where it has one, and the operators they were counted in."""
    tally = tally_torch(call)
    return float(sum(tally.values())), frozenset(tally)


class _Called(nn.Module):
    """The function as a module, which is what fvcore traces."""

    def __init__(self, module: nn.Module, function: Callable[..., Tensor]) -> None:
        super().__init__()
        self.module, self.function = module, function

    def forward(self, *tensors: Tensor) -> Tensor:
        return self.function(*tensors)


def tally_fvcore(
    module: nn.Module, function: Callable[..., Tensor], tensors: Sequence[Tensor], *, handles: bool = True
) -> dict[str, float]:
    """FLOPs of one forward call `function(*tensors)`, which may use `module`'s parameters, by operator; a multiply-add is 2 here too.

    Without `handles`, as fvcore comes, but for the doubling.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # fvcore is built on torch.jit's tracer, which warns of itself and of shapes used as numbers
        from fvcore.nn import FlopCountAnalysis

        with torch.no_grad():
            analysis = FlopCountAnalysis(_Called(module, function), tuple(tensors))
            analysis.unsupported_ops_warnings(False).uncalled_modules_warnings(False).tracer_warnings("none")
            for name, handle in _FVCORE_HANDLES.items() if handles else ():
                analysis.set_op_handle(f"aten::{name}", handle)
            return {f"aten::{name}": 2.0 * float(flops) for name, flops in analysis.by_operator().items() if flops}


def count_fvcore(module: nn.Module, function: Callable[..., Tensor], tensors: Sequence[Tensor]) -> float:
    """FLOPs of one forward call `function(*tensors)`; a multiply-add is 2 here too."""
    return float(sum(tally_fvcore(module, function, tensors).values()))


def _sizes(value: Any) -> list[int]:
    sizes: list[int] = value.type().sizes()
    return sizes


def _number(value: Any) -> int | None:
    number: int | None = value.toIValue()
    return number


def _is_complex(value: Any) -> bool:
    return value.type().kind() == "TensorType" and str(value.type().scalarType()).startswith("Complex")


def _traced_fft(inputs: list[Any], outputs: list[Any]) -> float:
    """For rfft, irfft, fft, ifft (input, n, dim, norm): fvcore's unit is a multiply-add, so half the FLOPs."""
    source, target, dim = _sizes(inputs[0]), _sizes(outputs[0]), _number(inputs[2])
    dim = -1 if dim is None else dim
    real = not (_is_complex(inputs[0]) and _is_complex(outputs[0]))
    # The complex side of a real transform holds n // 2 + 1 of n points: n is the longer side, or the given length.
    points = _number(inputs[1]) or max(source[dim], target[dim])
    return _fft(points, math.prod(target) // target[dim] * points, real=real) / 2


def _traced_fft2(*, real: bool, inverse: bool) -> Callable[[list[Any], list[Any]], float]:
    """For the two-dimensional transforms over the last two axes (input, s, dim, norm)."""

    def count(inputs: list[Any], outputs: list[Any]) -> float:
        source, target = _sizes(inputs[0]), _sizes(outputs[0])
        lengths = [_number(item) for item in inputs[1].node().inputs()] if inputs[1].node().kind() == "prim::ListConstruct" else []
        if len(lengths) == 2 and all(lengths):
            height, width = (int(length or 0) for length in lengths)
        else:
            height, width = target[-2], target[-1] if inverse or not real else source[-1]
        return _fft(height * width, math.prod(target[:-2]) * height * width, real=real) / 2

    return count


def _traced_product(inputs: list[Any], outputs: list[Any]) -> float:
    return COMPLEX_PRODUCT / 2 * math.prod(_sizes(outputs[0])) if all(map(_is_complex, inputs[:2])) else 0.0


def _traced_attention(inputs: list[Any], outputs: list[Any]) -> float:
    query, key, value = (_sizes(x) for x in inputs[:3])
    return float(sdpa_flop_count(query, key, value)) / 2


def _pointwise(inputs: list[Any], outputs: list[Any]) -> float:
    return 0.0


_FVCORE_HANDLES: Mapping[str, Callable[[list[Any], list[Any]], float]] = {
    "fft_rfft": _traced_fft,
    "fft_irfft": _traced_fft,
    "fft_fft": _traced_fft,
    "fft_ifft": _traced_fft,
    "fft_rfft2": _traced_fft2(real=True, inverse=False),
    "fft_irfft2": _traced_fft2(real=True, inverse=True),
    "fft_fft2": _traced_fft2(real=False, inverse=False),
    "fft_ifft2": _traced_fft2(real=False, inverse=True),
    "mul": _traced_product,
    "scaled_dot_product_attention": _traced_attention,
    "layer_norm": _pointwise,  # fvcore counts these, the convention does not
    "batch_norm": _pointwise,
    "group_norm": _pointwise,
    "mean": _pointwise,
    "adaptive_avg_pool2d": _pointwise,
    "upsample_bilinear2d": _pointwise,
}
