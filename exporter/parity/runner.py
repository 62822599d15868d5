"""Any backend's graph as a runner of Polygraphy's, which its comparator drives."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Mapping

from polygraphy.backend.base import BaseRunner
from polygraphy.common import TensorMetadata

from glimmer_export.exporter.graphs.comparable import comparable_outputs
from glimmer_export.runtime.backends import Array, Graph
from glimmer_export.runtime.contract import GraphIO

__all__ = ["GraphRunner"]


class GraphRunner(BaseRunner):  # type: ignore[misc]  # Polygraphy has no types
    """Runs a loaded graph and gives its float outputs, with 0 at padding."""

    def __init__(self, graph: Graph, io: GraphIO, name: str) -> None:
        super().__init__(name=name)
        self._graph, self._io = graph, io

    def activate_impl(self) -> None:
        """Nothing: the graph is loaded."""

    def deactivate_impl(self) -> None:
        """Nothing: the graph stays loaded."""

    def get_input_metadata_impl(self) -> TensorMetadata:
        """Names, dtypes and shapes of the contract; -1 for a dimension that varies."""
        import numpy as np

        metadata = TensorMetadata()
        for tensor in self._io.inputs:
            shape = tuple(dim if isinstance(dim, int) else -1 for dim in tensor.dims)
            metadata.add(tensor.name, dtype=np.dtype(tensor.dtype), shape=shape)
        return metadata

    def infer_impl(self, feed_dict: Mapping[str, Array]) -> OrderedDict[str, Array]:
        """One run."""
        start = time.perf_counter()
        outputs = self._graph.run(feed_dict)
        self.inference_time = time.perf_counter() - start
        return OrderedDict(comparable_outputs(feed_dict, outputs))
