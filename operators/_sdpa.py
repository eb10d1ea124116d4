"""Which kernel torch's scaled_dot_product_attention took: it depends on device, dtype, shape and mask, and memory on it by an order of N."""

from __future__ import annotations

_KERNELS = {
    "aten::_scaled_dot_product_flash_attention": "flash",
    "aten::_scaled_dot_product_flash_attention_for_cpu": "flash",
    "aten::_scaled_dot_product_efficient_attention": "efficient",
    "aten::_scaled_dot_product_cudnn_attention": "cudnn",
    "aten::_scaled_dot_product_attention_math": "math",
}


def kernel_that_ran(ran: frozenset[str]) -> str | None:
    """Its name, from the names of the aten operators that a profiler saw."""
    return next((kernel for operator, kernel in _KERNELS.items() if operator in ran), None)
