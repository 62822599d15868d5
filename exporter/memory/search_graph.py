"""The search for a codec's codes as an ONNX graph, for the device on which a store is built.

It finds what numpy's search finds, but for ties, all groups at once. On a CPU numpy is the faster: the graph is for
others.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import numpy as np

from glimmer_export.runtime.backends import Array, Backend, Graph
from glimmer_export.runtime.backends.onnxruntime_gpu import OnnxRuntimeDeviceBackend
from glimmer_export.runtime.codecs import Codec
from glimmer_export.runtime.codecs.product import ProductCodec, Search
from glimmer_export.runtime.codecs.residual import ResidualCodec
from glimmer_export.runtime.contract import GraphIO, IOTensor

if TYPE_CHECKING:
    from onnx import ModelProto

__all__ = ["graph_search", "search_graph", "searched_on"]

ROWS, CODES = "rows", "codes"
OPSET, IR_VERSION = 17, 9
UINT8 = 2
"""TensorProto.UINT8."""


def searched_on(codec: Codec, backend: Backend) -> Codec:
    """The codec with its codes searched on a backend's device, if it is one that loads ONNX and not the CPU.

    Any other codec, and a codec anywhere else, stays as it is. Raises BundleError and BackendError as `Backend.load`.
    """
    if not isinstance(codec, (ProductCodec, ResidualCodec)) or not isinstance(backend, OnnxRuntimeDeviceBackend):
        return codec
    return replace(codec, search=graph_search(backend, codec.arrays["memory_codebook"], codec.kept))


def graph_search(backend: Backend, codebook: Array, kept: int) -> Search:
    """A search by a graph that the backend loads; raises BundleError and BackendError as `Backend.load`."""
    from onnx import save

    stages, groups, _, width = codebook.shape
    rows = IOTensor(ROWS, "float32", ("tokens", groups * width))
    io = GraphIO((rows,), (IOTensor(CODES, "uint8", ("tokens", stages * groups)),))
    with TemporaryDirectory() as folder:
        path = Path(folder, "search.onnx")
        save(search_graph(codebook, kept), path)
        graph = backend.load(path, io)
    return _GraphSearch(graph)


class _GraphSearch:
    def __init__(self, graph: Graph) -> None:
        self._graph = graph

    def __call__(self, rows: Array) -> Array:
        codes: Array = self._graph.run({ROWS: np.ascontiguousarray(rows, np.float32)})[CODES]
        return codes


def search_graph(codebook: Array, kept: int) -> ModelProto:
    """Rows (tokens, groups * width) float32 -> codes (tokens, stages * groups) uint8, as `nearest_sums`.

    `codebook` (stages, groups, centroids, width) float32 lies in it. With `kept` 1 it is the greedy search of products.
    """
    stages, groups, centroids, width = codebook.shape
    make = _Nodes()
    size = make.constant(np.int64(centroids))
    # Of each sum kept, in rows of group, token and sum: what it leaves of the token's part, its cost, its codes.
    parts = make("Reshape", ROWS, make.shape(-1, groups, width))
    left, sums = make("Transpose", parts, perm=[1, 0, 2]), 1
    cost: str | None = None
    codes: list[str] = []
    for stage, centroid in enumerate(codebook):
        last = stage == stages - 1
        count = 1 if last else kept
        products = make("MatMul", left, make.constant(-2 * centroid.transpose(0, 2, 1)))
        distance = make("Add", products, make.constant(np.square(centroid).sum(-1)[:, None]))
        if cost is not None:
            distance = make("Add", distance, make("Reshape", cost, make.shape(groups, -1, 1)))
        distance = make("Reshape", distance, make.shape(groups, -1, sums * centroids))
        if count == 1:
            cost, places = make("ReduceMin", distance, axes=[2]), make("ArgMin", distance, axis=2)
        else:
            cost, places = make.two("TopK", distance, make.shape(count), axis=2, largest=0)
        chosen = places
        if sums > 1:
            before = make("Div", places, size)
            chosen = make("Sub", places, make("Mul", before, size))
            rows = make("Reshape", make("Add", before, make.first_rows(before, groups, sums)), make.shape(-1))
            codes = [make("Gather", earlier, rows) for earlier in codes]
            left = make("Gather", make("Reshape", left, make.shape(-1, width)), rows)
        elif count > 1:
            repeated = make("Expand", make("Unsqueeze", left, make.shape(2)), make.shape(1, 1, count, 1))
            left = make("Reshape", repeated, make.shape(-1, width))
        codes.append(make("Reshape", make("Cast", chosen, to=UINT8), make.shape(-1)))
        if not last:
            of_group = make.constant((np.arange(groups) * centroids).reshape(groups, 1, 1))
            entries = make("Reshape", make("Add", chosen, of_group), make.shape(-1))
            taken = make("Gather", make.constant(centroid.reshape(-1, width)), entries)
            rest = make("Sub", make("Reshape", left, make.shape(-1, width)), taken)
            left, sums = make("Reshape", rest, make.shape(groups, -1, width)), count
    together = make("Concat", *(make("Reshape", stage, make.shape(1, groups, -1)) for stage in codes), axis=0)
    found = make("Reshape", make("Transpose", together, perm=[2, 0, 1]), make.shape(-1, stages * groups))
    return make.model(found, codebook)


class _Nodes:
    """Collects a graph's nodes and constants."""

    def __init__(self) -> None:
        self._nodes: list[Any] = []
        self._constants: list[Any] = []

    def __call__(self, operator: str, *inputs: str, **attributes: Any) -> str:
        """The output of a new node."""
        return self._add(operator, inputs, 1, attributes)[0]

    def two(self, operator: str, *inputs: str, **attributes: Any) -> tuple[str, str]:
        """Both outputs of a new node."""
        first, second = self._add(operator, inputs, 2, attributes)
        return first, second

    def constant(self, values: Any) -> str:
        """A constant's name."""
        from onnx import numpy_helper

        name = f"constant_{len(self._constants)}"
        self._constants.append(numpy_helper.from_array(np.ascontiguousarray(values), name))
        return name

    def shape(self, *sizes: int) -> str:
        """Sizes, axes or a count, int64."""
        return self.constant(np.array(sizes, np.int64))

    def first_rows(self, places: str, groups: int, sums: int) -> str:
        """The row of the first of each token's sums, (groups, tokens, 1), beside places (groups, tokens, any)."""
        tokens = self("Squeeze", self("Shape", places, start=1, end=2))
        zero, one = (self.constant(np.int64(value)) for value in (0, 1))
        counted = self("Range", zero, self("Mul", tokens, self.constant(np.int64(groups))), one)
        return self("Reshape", self("Mul", counted, self.constant(np.int64(sums))), self.shape(groups, -1, 1))

    def model(self, codes: str, codebook: Array) -> ModelProto:
        """The graph from rows to `codes`."""
        from onnx import TensorProto, helper

        stages, groups, _, width = codebook.shape
        self._nodes.append(helper.make_node("Identity", [codes], [CODES]))
        rows = helper.make_tensor_value_info(ROWS, TensorProto.FLOAT, ["tokens", groups * width])
        found = helper.make_tensor_value_info(CODES, TensorProto.UINT8, ["tokens", stages * groups])
        graph = helper.make_graph(self._nodes, "search", [rows], [found], self._constants)
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION)

    def _add(self, operator: str, inputs: Sequence[str], count: int, attributes: dict[str, Any]) -> list[str]:
        from onnx import helper

        outputs = [f"value_{len(self._nodes)}_{number}" for number in range(count)]
        self._nodes.append(helper.make_node(operator, list(inputs), outputs, **attributes))
        return outputs
