"""A graph whose tensors are the host's: what ONNX Runtime's CPU provider and OpenVINO share."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import cast

import numpy as np

from glimmer_export.runtime.backends.contract import Array
from glimmer_export.runtime.backends.tensor_checks import OutputShapes, in_types
from glimmer_export.runtime.contract import BundleError, GraphIO

__all__ = ["HostGraph", "check_tensors"]


class HostGraph:
    """One loaded graph; may be run from several threads at once, as `run` may.

    `run` takes the graph's inputs by name, in its order, and gives its outputs in theirs.
    """

    def __init__(self, run: Callable[[dict[str, Array]], Iterable[Array]], io: GraphIO, subject: str) -> None:
        self._run, self._subject = run, subject
        self._shapes = OutputShapes(io, subject)
        self.dtypes = {tensor.name: np.dtype(tensor.dtype) for tensor in io.inputs}
        self._outputs = [tensor.name for tensor in io.outputs]

    def run(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """Run once; inputs must have the dtypes of the contract, or be such that `in_types` casts them.

        Raises BackendError if the graph fails, DeviceMemoryError for want of memory, BundleError where it gives
        other shapes than its contract has.
        """
        wanted = cast("dict[str, Array]", in_types(inputs, self.dtypes, self._subject))
        outputs = dict(zip(self._outputs, self._run(wanted), strict=True))
        self._shapes.check(wanted, outputs)
        return outputs


def check_tensors(
    subject: str, wanted: Sequence[tuple[str, str, int]], actual: Sequence[tuple[str, str, int]]
) -> None:
    """Raise BundleError if a file's tensors (name, type, rank) are other ones than wanted, or in another order."""
    for one, other in zip(wanted, actual, strict=False):
        if one[1] != other[1] and (one[0], one[2]) == (other[0], other[2]):
            raise BundleError(f"{subject}, {one[0]}", expected=one[1], found=other[1], fix="export it again")
    if list(wanted) != list(actual):
        raise BundleError(subject, expected=f"I/O {wanted}", found=f"{actual}", fix="export it again")
