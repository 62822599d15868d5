"""A graph file as the rules see it: nodes of all depths, types and ranks of values, constants."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from glimmer_export.runtime.contract import BundleError, GraphIO

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from onnx import AttributeProto, GraphProto, ModelProto, NodeProto, TensorProto

__all__ = ["LintGraph", "attribute", "label", "present"]


class LintGraph:
    """An ONNX file without its external weights, of which single constants are read when asked for.

    `io` is what the bundle says of its inputs and outputs. Raises BundleError for a file that is no ONNX graph.
    """

    def __init__(self, path: Path, name: str, io: GraphIO) -> None:
        import onnx
        from google.protobuf.message import DecodeError

        self.path, self.name, self.io = path, name, io
        try:
            model = onnx.load(str(path), load_external_data=False)
            # Not strict: a graph that breaks a rule may be one whose types cannot all be inferred.
            self.model: ModelProto = onnx.shape_inference.infer_shapes(model, data_prop=True)
        except (DecodeError, onnx.shape_inference.InferenceError, RuntimeError) as error:
            raise BundleError(
                f"graph {path}", expected="an ONNX graph", found=str(error).splitlines()[0],
                fix="export the bundle again",
            ) from None

    @cached_property
    def graphs(self) -> list[GraphProto]:
        """The graph, and those inside its nodes."""
        found = [self.model.graph]
        for graph in found:  # grows as it goes
            for node in graph.node:
                found += [attribute.g for attribute in node.attribute if attribute.HasField("g")]
        return found

    @cached_property
    def nodes(self) -> list[NodeProto]:
        """The nodes of all depths."""
        return [node for graph in self.graphs for node in graph.node]

    @property
    def opset(self) -> int:
        """The version of the standard operators."""
        return max((entry.version for entry in self.model.opset_import if entry.domain in ("", "ai.onnx")), default=0)

    @cached_property
    def constants(self) -> dict[str, TensorProto]:
        """Initializers, and what Constant nodes hold."""
        found = {tensor.name: tensor for graph in self.graphs for tensor in graph.initializer}
        for node in self.nodes:
            value = attribute(node, "value") if node.op_type == "Constant" else None
            if value is not None:
                found[node.output[0]] = value.t
        return found

    @cached_property
    def producers(self) -> dict[str, NodeProto]:
        """The node that writes a value."""
        return {name: node for node in self.nodes for name in node.output if name}

    @cached_property
    def readers(self) -> dict[str, list[tuple[NodeProto, int]]]:
        """The nodes that read a value, and at which place."""
        found: dict[str, list[tuple[NodeProto, int]]] = defaultdict(list)
        for node in self.nodes:
            for place, name in enumerate(node.input):
                found[name].append((node, place))
        return found

    def dtype(self, name: str) -> int:
        """The TensorProto data type of a value; 0 if it is unknown."""
        if name in self.constants:
            return self.constants[name].data_type
        return self._types[name].elem_type if name in self._types else 0

    def dtype_name(self, name: str) -> str:
        """The same in words, such as FLOAT16."""
        import onnx

        return str(onnx.TensorProto.DataType.Name(self.dtype(name)))

    def rank(self, name: str) -> int | None:
        """Number of dimensions of a value; None if it is unknown."""
        if name in self.constants:
            return len(self.constants[name].dims)
        found = self._types.get(name)
        return len(found.shape.dim) if found is not None and found.HasField("shape") else None

    def array(self, name: str) -> NDArray[np.generic]:
        """The numbers of a constant."""
        import onnx

        return onnx.numpy_helper.to_array(self.constants[name], base_dir=str(self.path.parent))

    @cached_property
    def _types(self) -> dict[str, Any]:
        return {
            value.name: value.type.tensor_type
            for graph in self.graphs
            for value in (*graph.input, *graph.output, *graph.value_info)
        }


def attribute(node: NodeProto, name: str) -> AttributeProto | None:
    """An attribute of a node, None if it has none of that name."""
    return next((found for found in node.attribute if found.name == name), None)


def label(node: NodeProto) -> str:
    """A node's name; if it has none, what it writes."""
    return node.name or f"{node.op_type} -> {node.output[0] if node.output else ''}"


def present(names: Any) -> Iterator[str]:
    """Names of values, without the empty ones, which stand for optional inputs that are left out."""
    return (name for name in names if name)
