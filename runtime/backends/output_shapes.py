"""What a graph gives is held against its contract: a graph that anybody may have written declares what it likes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

from glimmer_export.runtime.contract import BundleError, GraphIO

__all__ = ["OutputShapes"]


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
        """Raise BundleError where an output of a run has other dimensions."""
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
