"""What ran in a call: which attention kernel, in which dtype the FFTs, and which widenings.

A call is watched by a TorchDispatchMode, which sees every leaf operator, those of the backward too. What a kernel does
inside is out of its sight: a type promotion within one operator is no `upcast` here. Watch a function that is not
compiled: a compiled one falls back to eager under a dispatch mode. flex_attention runs under no dispatch mode at all
(torch 2.13), so that neither this nor torch's FlopCounterMode can follow it.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

KERNELS = {
    "_scaled_dot_product_flash_attention": "flash",
    "_scaled_dot_product_flash_attention_for_cpu": "flash",
    "_flash_attention_forward": "flash",
    "_flash_attention_forward_no_dropout_inplace": "flash",
    "_scaled_dot_product_efficient_attention": "efficient",
    "_efficient_attention_forward": "efficient",
    "_scaled_dot_product_cudnn_attention": "cudnn",
    "_cudnn_attention_forward": "cudnn",
    "_scaled_dot_product_fused_attention_overrideable": "overrideable",
    "_scaled_dot_product_attention_math": "math",
    "_scaled_dot_product_attention_math_for_mps": "math",
    "_safe_softmax": "math",  # SDPA's math path is written in plain operators; this softmax is its alone
    "_native_multi_head_attention": "native",  # nn.MultiheadAttention's fast path, one opaque operator
}
_FFTS = ("_fft_r2c", "_fft_c2r", "_fft_c2c")
# Operators that allocate, fill, copy or rearrange; views are known by themselves.
_MOVES = re.compile(
    r"(new_)?(empty|zeros|ones|full|rand|randn)(_like|_strided)?|(fill|zero|copy|set|resize|as_strided|detach|normal|uniform|index_put)_"
    r"|scalar_tensor|arange|eye|tril|triu|to|_to_copy|copy|clone|contiguous|resize|reshape|_unsafe_view|_reshape_alias|flatten|unflatten"
    r"|resolve_(conj|neg)|cat|stack|split\w*|pad|constant_pad_nd|roll|flip|expand_as|(select|slice)_(scatter|backward)|index|index_select"
    r"|gather|lift_fresh|is_same_size|item|_local_scalar_dense|_efficientzerotensor|sym_\w+"
)


@dataclass(frozen=True, kw_only=True, eq=False)
class Dispatch:
    """What one call ran.

    `attention`: the kernel that scaled_dot_product_attention took, None where there was none. `fft_dtype`: the dtype of the
    FFTs' real side. `upcast`: conversions to a wider floating dtype, with their counts. `calls`: leaf operators by name
    (`aten::bmm`), with their counts. `used`: those of the tensors looked for whose storage was touched.
    """

    attention: str | None
    fft_dtype: str | None
    upcast: Mapping[str, int]
    calls: Mapping[str, int]
    used: tuple[Tensor, ...]

    @property
    def ran(self) -> frozenset[str]:
        return frozenset(self.calls)

    def record(self, compiled: dict[str, Any] | None = None) -> dict[str, Any]:
        """The field `dispatch` of a record."""
        return {
            "attention": self.attention,
            "fft_dtype": self.fft_dtype,
            "upcast": [f"{conversion} x{count}" for conversion, count in self.upcast.items()],
            "compile": compiled,
        }


class Watcher(TorchDispatchMode):
    """Watches what runs while it is entered; may be entered around or within a FlopCounterMode. `result()` tells."""

    supports_higher_order_operators = True

    def __init__(self, look_for: Iterable[Tensor] = ()) -> None:
        super().__init__()
        self._look_for = [(address, t) for t in look_for if (address := _address(t))]
        self._wanted = {address for address, _ in self._look_for}
        self._touched: set[int] = set()
        self._calls: Counter[str] = Counter()
        self._upcast: Counter[str] = Counter()
        self._fft_dtypes: set[str] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if isinstance(func, torch._ops.OpOverload) and func is not torch.ops.prim.device.default:
            with self:  # under inference_mode composite operators come whole: their parts are what is asked for
                result = func.decompose(*args, **kwargs)
            if result is not NotImplemented:
                return result
        self._note(func, args, kwargs)
        return func(*args, **kwargs)

    def _note(self, func: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> None:
        name = func._schema.name if isinstance(func, torch._ops.OpOverload) else func.name()
        self._calls[name] += 1
        if self._wanted:
            self._touched |= self._wanted & {_address(t) for t in _tensors((args, list(kwargs.values())))}
        plain = name.removeprefix("aten::")
        if plain == "_to_copy" and _widens(args[0].dtype, kwargs.get("dtype")):
            self._upcast[f"{_word(args[0].dtype)} -> {_word(kwargs['dtype'])}"] += 1
        if plain in _FFTS:
            self._fft_dtypes.add(_word(args[0].dtype.to_real()))

    def result(self) -> Dispatch:
        kernels = {KERNELS.get(name.removeprefix("aten::").removesuffix("_backward")) for name in self._calls} - {None}
        return Dispatch(
            attention=", ".join(sorted(filter(None, kernels))) or None,
            fft_dtype=", ".join(sorted(self._fft_dtypes)) or None,
            upcast=dict(self._upcast),
            calls=dict(self._calls),
            used=tuple(t for address, t in self._look_for if address in self._touched),
        )


def watch(call: Callable[[], Any], *, look_for: Iterable[Tensor] = ()) -> Dispatch:
    """What one call of `call` runs.

    A tensor of `look_for` counts as used when its storage is touched in this call: one whose derivative is kept from an
    earlier call is not. Raises what the call raises.
    """
    watcher = Watcher(look_for)
    with watcher:
        call()
    return watcher.result()


@lru_cache(maxsize=1024)
def moves_only(name: str) -> bool:
    """Whether the aten operator of that name (`aten::view`) computes nothing: a view, an allocation, a copy or a rearrangement."""
    plain = name.removeprefix("aten::")
    if _MOVES.fullmatch(plain):
        return True
    packet = getattr(torch.ops.aten, plain, None) if name.startswith("aten::") else None
    return packet is not None and any(getattr(getattr(packet, overload), "is_view", False) for overload in packet.overloads())


def _address(tensor: Tensor) -> int:
    """Where the storage lies; 0 for a tensor that has none."""
    try:
        return tensor.untyped_storage().data_ptr()
    except (RuntimeError, NotImplementedError):  # sparse tensors, and some subclasses
        return 0


def _tensors(value: Any) -> Iterable[Tensor]:
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from _tensors(item)


def _widens(source: torch.dtype, target: torch.dtype | None) -> bool:
    if target is None or source.is_complex != target.is_complex:
        return False
    floating = source.is_complex or (source.is_floating_point and target.is_floating_point)
    return floating and target.itemsize > source.itemsize


def _word(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
