"""A graph's inputs in the types that it takes, and its outputs held against its contract.

What bundles hand over in FP16 or FP32 may come in either; a graph that anybody may have written declares what it likes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np

from glimmer_export.runtime.backends.contract import Tensor
from glimmer_export.runtime.contract import BundleError, GraphIO, boundary_of

__all__ = ["OutputShapes", "in_types"]


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


class _Shaped(Protocol):
    @property
    def shape(self) -> tuple[int, ...]:
        """Dimensions."""
        ...


class OutputShapes:
    """The dimensions that a graph's outputs have, by its contract: numbers, and those that an input has by name.

    A dimension whose name no input has, such as `encoder_tokens` where a stage makes them, may be any.
    """

    def __init__(self, io: GraphIO, subject: str) -> None:
        self._subject = subject
        places = {
            dim: (tensor.name, axis)
            for tensor in reversed(io.inputs) for axis, dim in enumerate(tensor.dims) if isinstance(dim, str)
        }
        self._dims = [
            (tensor.name, [dim if isinstance(dim, int) else places.get(dim) for dim in tensor.dims])
            for tensor in io.outputs
        ]

    def check(self, inputs: Mapping[str, _Shaped], outputs: Mapping[str, _Shaped]) -> None:
        """Raise BundleError if an output of a run has other dimensions."""
        for name, dims in self._dims:
            found = outputs[name].shape
            wanted: Sequence[int | None] = [
                dim if dim is None or isinstance(dim, int) else inputs[dim[0]].shape[dim[1]] for dim in dims
            ]
            if len(found) != len(wanted) or any(
                size is not None and size != given for size, given in zip(wanted, found, strict=True)
            ):
                raise BundleError(
                    self._subject, expected=f"{name} of the shape {list(wanted)}".replace("None", "any"),
                    found=str(list(found)), fix="export the bundle again",
                )
