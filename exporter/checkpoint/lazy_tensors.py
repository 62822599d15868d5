"""Tensors that are read or made when they are asked for, so that a model of any size passes one tensor at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch
    from torch import Tensor

__all__ = ["LazyTensors", "TensorSpec", "specs_of"]


@dataclass(frozen=True)
class TensorSpec:
    """What is known of a tensor before it is there."""

    shape: tuple[int, ...]
    dtype: torch.dtype

    @property
    def size(self) -> int:
        """Number of elements."""
        return prod(self.shape)

    @property
    def num_bytes(self) -> int:
        """Size of its content."""
        return self.size * self.dtype.itemsize


class LazyTensors(Mapping[str, "Tensor"]):
    """Each tensor is loaded at every look-up, and not kept; those of the widest dtype come first."""

    def __init__(self, specs: Mapping[str, TensorSpec], load: Callable[[str], Tensor]) -> None:
        self.specs = dict(sorted(specs.items(), key=lambda item: -item[1].dtype.itemsize))
        self._load = load

    def __getitem__(self, name: str) -> Tensor:
        if name not in self.specs:
            raise KeyError(name)
        return self._load(name)

    def __iter__(self) -> Iterator[str]:
        return iter(self.specs)

    def __len__(self) -> int:
        return len(self.specs)

    def joined(self, others: Mapping[str, Tensor]) -> LazyTensors:
        """These, and `others` with them."""
        return LazyTensors(
            {**self.specs, **specs_of(others)}, lambda name: others[name] if name in others else self[name]
        )

    def stream(self) -> Iterator[tuple[str, Tensor]]:
        """All, one after the other."""
        return ((name, self[name]) for name in self)


def specs_of(tensors: Mapping[str, Tensor]) -> dict[str, TensorSpec]:
    """Shapes and dtypes by name, without a tensor being loaded for it."""
    if isinstance(tensors, LazyTensors):
        return tensors.specs
    return {name: TensorSpec(tuple(tensor.shape), tensor.dtype) for name, tensor in tensors.items()}
