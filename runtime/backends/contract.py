"""What every backend offers: load one graph, run it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

from numpy.typing import NDArray

from runtime.contract import GraphIO

__all__ = ["Array", "Backend", "Graph"]

Array = NDArray[Any]


class Graph(Protocol):
    """A loaded graph. Safe from several threads."""

    def run(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """Run once; inputs and outputs by their names in the bundle's contract. Inputs it does not have are ignored."""
        ...


class Backend(Protocol):
    """Loads graphs for one kind of device."""

    name: str

    def load(self, path: Path, io: GraphIO) -> Graph:
        """Load a graph and check its I/O; raises BundleError where the file is damaged or has another I/O."""
        ...
