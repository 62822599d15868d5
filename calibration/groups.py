"""Products that are quantised or left in float together, by layer and kind, and the multiply-adds that they do."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import onnx_ir as ir

from glimmer_export.calibration.linear import constant, find_linears
from glimmer_export.calibration.load_graph import load_graph
from glimmer_export.calibration.passes.quantize_embedding import find_lookups
from glimmer_export.runtime.backends import Array, Backend, Graph
from glimmer_export.runtime.contract import GraphIO, IOTensor, stage_of

if TYPE_CHECKING:
    import onnx_ir as ir

__all__ = ["CountingBackend", "Group", "find_groups"]

JOINED = {"q": ("qkv", "[qkv]"), "k": ("qkv", "[qkv]"), "v": ("qkv", "[qkv]"), "wi": ("wi", r"wi(_\d)?")}
"""Modules that read one value and go together: their kind, and the expression for all of them."""


@dataclass(frozen=True)
class Group:
    """`nodes` of one graph, and `pattern`, which finds these among all `graph/node` and no others.

    `kind` is `qkv`, `o`, `wi` or `wo` inside a block, `embedding` for a table of rows, `unnamed` for a product
    without a module, else the module's own name: `lm_head`, `score`. `weights` counts elements.
    """

    graph: str
    kind: str
    pattern: str
    nodes: tuple[str, ...]
    weights: int


def find_groups(graph: ir.Graph, name: str, *, embeddings: bool) -> list[Group]:
    """The groups of an exported graph whose weights are folded, in its order; every product is in one.

    `embeddings`: with the tables of rows, each a group.
    """
    lookups = find_lookups(graph)
    tables = {_module(str(node.name)) for node in lookups}
    found: dict[tuple[str, str], list[tuple[str, int]]] = {}
    for node in lookups if embeddings else ():
        table = node.inputs[0]
        assert table is not None
        key = ("embedding", f"{re.escape(_module(str(node.name)))}/Gather")
        found.setdefault(key, []).append((str(node.name), constant(table).size))
    for linear in find_linears(graph):
        found.setdefault(_kind(linear.name, tables), []).append((linear.name, constant(linear.weight).size))
    return [
        Group(
            name, kind, f"^{re.escape(name)}/{expression}", tuple(node for node, _ in nodes),
            sum(size for _, size in nodes),
        )
        for (kind, expression), nodes in found.items()
    ]


def _module(node: str) -> str:
    return node.rpartition("/")[0]


def _kind(node: str, tables: Collection[str]) -> tuple[str, str]:
    """The kind of a product, and the expression for those that go with it."""
    module = _module(node)
    if not module:  # the tracer had no name for it, and its weight none either
        return "unnamed", f"{re.escape(node)}$"
    if module in tables:  # tied: the table is the vocabulary projection too
        return "lm_head", f"{re.escape(module)}/MatMul"
    parent, dot, leaf = module.rpartition(".")
    kind, expression = JOINED.get("wi" if leaf.startswith("wi") else leaf, (leaf, re.escape(leaf)))
    return kind, f"{re.escape(parent + dot)}{expression}/"


class CountingBackend:
    """Runs FP32 graphs as they are, and adds up in `work` the multiply-adds of every product by (graph, node).

    A table's lookup counts one for each element that it reads.
    """

    def __init__(self, backend: Backend) -> None:
        self.name = backend.name
        self.work: dict[tuple[str, str], float] = defaultdict(float)
        self._backend = backend

    def load(self, path: Path, io: GraphIO) -> Graph:
        """Load a graph with sizes added; its name is the file's."""
        import onnx_ir

        from glimmer_export.calibration.passes.fold_weights import FoldWeights

        model = load_graph(path)
        FoldWeights()(model)
        counted = _add_sizes(model.graph)
        sizes = tuple(IOTensor(output, "float32", ()) for output in counted)
        with TemporaryDirectory() as folder:
            copy = Path(folder) / path.name
            onnx_ir.save(model, copy, external_data=f"{path.name}.data")
            graph = self._backend.load(copy, replace(io, outputs=(*io.outputs, *sizes)))
        return _Counted(graph, stage_of(path.stem), counted, self.work)

    def close(self) -> None:
        """Close the graphs' backend."""
        self._backend.close()


class _Counted:
    def __init__(
        self, graph: Graph, name: str, counted: dict[str, tuple[str, int]], work: dict[tuple[str, str], float]
    ) -> None:
        self._graph, self._name, self._counted, self._work = graph, name, counted, work

    def run(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        outputs = self._graph.run(inputs)
        for output, (node, times) in self._counted.items():
            self._work[self._name, node] += float(outputs.pop(output)) * times
        return outputs


def _add_sizes(graph: ir.Graph) -> dict[str, tuple[str, int]]:
    """Add the size of what each product reads as an output; by its name the node, and the work of one element."""
    from glimmer_export.calibration.linear import constant, find_linears
    from glimmer_export.calibration.passes.quantize_embedding import find_lookups

    read = [(linear.node, linear.x, constant(linear.weight).shape[-1]) for linear in find_linears(graph)]
    for node in find_lookups(graph):
        table, ids = node.inputs
        assert table is not None
        assert ids is not None
        read.append((node, ids, constant(table).shape[-1]))
    counted = {}
    for node, value, times in read:
        output = f"size/{node.name}"
        _add_size(graph, node, value, output)
        counted[output] = (str(node.name), times)
    return counted


def _add_size(graph: ir.Graph, node: ir.Node, value: ir.Value, name: str) -> None:
    import onnx_ir as ir

    size = ir.node("Size", [value], name=f"{name}/Size")
    size.outputs[0].name = f"{name}/int64"
    cast = ir.node("Cast", [size.outputs[0]], {"to": ir.DataType.FLOAT}, name=f"{name}/Cast")
    output = cast.outputs[0]
    output.name, output.dtype, output.shape = name, ir.DataType.FLOAT, ir.Shape(())
    graph.insert_before(node, [size, cast])
    graph.outputs.append(output)
