"""Several tensors in one stretch of memory: one allocation, and where they cross to the GPU one copy."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import accumulate
from math import prod

from glimmer_export.runtime.backends.contract import Array, Spec
from glimmer_export.runtime.backends.tensorrt.buffers import ALIGNMENT, Lease

__all__ = ["Layout"]


@dataclass(frozen=True)
class Layout:
    """Where each tensor begins, in bytes, and the bytes of all."""

    specs: Mapping[str, Spec]
    offsets: Mapping[str, int]
    num_bytes: int

    @classmethod
    def of(cls, specs: Mapping[str, Spec]) -> Layout:
        """Tensors one behind the other, each aligned."""
        sizes = [-(-prod(shape) * dtype.itemsize // ALIGNMENT) * ALIGNMENT for shape, dtype in specs.values()]
        ends = list(accumulate(sizes))
        return cls(specs, dict(zip(specs, [0, *ends], strict=False)), ends[-1] if ends else 0)

    @classmethod
    def of_arrays(cls, arrays: Mapping[str, Array]) -> Layout:
        """Room for these arrays."""
        return cls.of({name: (array.shape, array.dtype) for name, array in arrays.items()})

    def view(self, lease: Lease, name: str, base: int = 0) -> Array:
        """One tensor in page-locked memory, of which `base` is where the layout begins."""
        shape, dtype = self.specs[name]
        begin = base + self.offsets[name]
        return lease.host[begin : begin + prod(shape) * dtype.itemsize].view(dtype).reshape(shape)

    def write(self, lease: Lease, arrays: Mapping[str, Array], base: int = 0) -> None:
        """Write arrays to their places in page-locked memory."""
        for name, array in arrays.items():
            self.view(lease, name, base)[...] = array
