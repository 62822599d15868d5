"""A graph's inputs in the types that it takes: what bundles hand over in FP16 or FP32 may come in either."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from glimmer_export.runtime.backends.contract import Tensor
from glimmer_export.runtime.contract import BundleError, boundary_of

__all__ = ["in_types"]


def in_types(inputs: Mapping[str, Tensor], dtypes: Mapping[str, np.dtype[Any]], subject: str) -> dict[str, Tensor]:
    """The inputs that a graph has, in its order; others are left aside.

    An array of the host is cast where the graph of another bundle, or torch, gave it in FP32 for FP16 or the other way
    round; what FP16 does not hold is infinite then, as where a graph casts it. Raises BundleError by name for a tensor
    on a device, which is not cast, and TypeError for another type than these.
    """
    return {name: _in_type(name, inputs[name], dtype, subject) for name, dtype in dtypes.items()}


def _in_type(name: str, tensor: Tensor, dtype: np.dtype[Any], subject: str) -> Tensor:
    if tensor.dtype == dtype:
        return tensor
    if boundary_of(name) is None or tensor.dtype not in (np.float16, np.float32):
        raise TypeError(f"{subject}, {name}: expected {dtype}, found {tensor.dtype}")
    if not isinstance(tensor, np.ndarray):
        raise BundleError(
            f"{subject}, {name}", expected=f"a tensor of {dtype}", found=f"one of {tensor.dtype}",
            fix="take both graphs from one bundle",
        )
    with np.errstate(over="ignore"):
        return tensor.astype(dtype)
