"""Multiply-adds of an ONNX graph, counted node by node at given dimensions, without running it.

Shapes are inferred one node at a time by ONNX itself, which is told the values of the small integer tensors that
reshape others: those are computed on the way.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from glimmer_export.runtime.contract import BLOCK_DOMAIN, BLOCK_OPERATOR, BundleError
from glimmer_export.runtime.contract.library_errors import LibraryErrors, first_line

if TYPE_CHECKING:
    import onnx
    from numpy.typing import NDArray

__all__ = ["count_graph", "count_model"]

Shape = tuple[int, ...]
KNOWN_ELEMENTS = 1024
"""Larger tensors are no shapes: their values are not followed."""
UNCOUNTED = frozenset({
    "Attention", "BlackmanWindow", "Conv", "ConvInteger", "ConvTranspose", "DeformConv", "Det", "DFT", "GRU", "LSTM",
    "QLinearConv", "RNN", "STFT", "RotaryEmbedding",
})  # fmt: skip
"""Operators with multiply-adds of their own for which there is no rule here: refused, never taken for nothing."""
RAISED = (
    ArithmeticError, AssertionError, AttributeError, LookupError, NotImplementedError, RuntimeError, TypeError,
    ValueError,
)
"""What onnx raises, besides errors of its own, where a node makes no sense: its evaluator is Python and numpy."""
FIX = "export the bundle with this version of glimmer-export"


def count_graph(path: Path, dims: Mapping[str, int]) -> int:
    """Multiply-adds of one run of a graph file; weights beside it are not read.

    `dims` gives a number for each named dimension of its inputs. Raises BundleError if it is no ONNX graph or has a
    node that cannot be counted.
    """
    import onnx
    from google.protobuf.message import DecodeError

    try:
        model = onnx.load(str(path), load_external_data=False)
    except (DecodeError, OSError) as error:
        raise BundleError(f"graph {path}", expected="an ONNX model", found=str(error), fix=FIX) from None
    return count_model(model, dims, subject=f"graph {path.stem}")


def count_model(model: onnx.ModelProto, dims: Mapping[str, int], *, subject: str) -> int:
    """The same for a model in memory."""
    return _Counter(model, dims, subject).count()


class _Counter:
    """Types of all tensors and values of the small ones, as far as the nodes have been walked."""

    def __init__(self, model: onnx.ModelProto, dims: Mapping[str, int], subject: str) -> None:
        self.model, self.subject = model, subject
        self.opsets = {entry.domain: entry.version for entry in model.opset_import}
        self.types: dict[str, onnx.TypeProto] = {}
        self.values: dict[str, NDArray[Any]] = {}
        self._take_initializers()
        self._take_inputs(dims)

    def count(self) -> int:
        """Sum over the nodes, which ONNX keeps in the order of running."""
        total = 0
        for node in self.model.graph.node:
            self._check(node)
            self._check_inputs(node)
            self._infer(node)  # first: what is too large to be a shape's numbers is not made
            self._evaluate(node)
            if rule := MULTIPLY_ADDS.get(node.op_type):
                shapes = [self._shape(node, name) for name in node.input if name]
                total += rule(node, shapes, self._shape(node, node.output[0]))
        return total

    def _take_initializers(self) -> None:
        import onnx

        for tensor in self.model.graph.initializer:
            self.types[tensor.name] = onnx.helper.make_tensor_type_proto(tensor.data_type, tensor.dims)
            external = tensor.data_location == onnx.TensorProto.EXTERNAL
            if not external and 0 <= math.prod(tensor.dims) <= KNOWN_ELEMENTS:
                with self._library_errors(f"constant {tensor.name}"):
                    self.values[tensor.name] = onnx.numpy_helper.to_array(tensor)

    def _take_inputs(self, dims: Mapping[str, int]) -> None:
        import onnx

        for value in self.model.graph.input:
            tensor = value.type.tensor_type
            shape = [dims.get(dim.dim_param) if dim.dim_param else dim.dim_value for dim in tensor.shape.dim]
            if None in shape:
                raise BundleError(
                    f"{self.subject}, input {value.name}", expected=f"the dimensions {', '.join(dims)}",
                    found=", ".join(dim.dim_param or str(dim.dim_value) for dim in tensor.shape.dim), fix=FIX,
                )
            self.types[value.name] = onnx.helper.make_tensor_type_proto(tensor.elem_type, shape)

    def _check(self, node: onnx.NodeProto) -> None:
        """Refuse what would be counted wrongly: a body of its own, an operator of another domain or without a rule."""
        import onnx

        bodies = (onnx.AttributeProto.GRAPH, onnx.AttributeProto.GRAPHS)
        found = None
        if any(attribute.type in bodies for attribute in node.attribute):
            found = f"{node.op_type}, which has a body"
        elif node.domain not in ("", "ai.onnx") and not _is_block_product(node):
            found = f"{node.domain}.{node.op_type}"
        elif node.op_type in UNCOUNTED:
            found = node.op_type
        if found:
            raise BundleError(
                f"{self.subject}, {_label(node)}", expected="an operator that can be counted",
                found=found, fix=FIX,
            )

    def _check_inputs(self, node: onnx.NodeProto) -> None:
        """Refuse an operator that ONNX does not have, and inputs that nothing before gives."""
        import onnx

        absent = [name for name in node.input if name and name not in self.types]
        found = f"{absent[0]}, which nothing before it gives" if absent else None
        if not _is_block_product(node) and not onnx.defs.has(node.op_type, node.domain):
            found = f"{node.op_type}, which ONNX does not have"
        if found:
            raise BundleError(
                f"{self.subject}, {_label(node)}", expected="a graph that ONNX can run",
                found=found, fix=FIX,
            )

    def _evaluate(self, node: onnx.NodeProto) -> None:
        """Values of the outputs, if all inputs are known and the outputs small."""
        from onnx.reference import ReferenceEvaluator

        if node.op_type == "Shape":
            start, end = (_attribute(node, name, default) for name, default in (("start", 0), ("end", None)))
            self.values[node.output[0]] = np.array(self._shape(node, node.input[0])[start:end], np.int64)
            return
        inputs = [name for name in node.input if name]
        if not all(name in self.values for name in inputs) or not all(map(self._is_small, node.output)):
            return
        with self._library_errors(_label(node)):
            outputs = ReferenceEvaluator(node).run(None, {name: self.values[name] for name in inputs})
            made = dict(zip(node.output, map(np.asarray, outputs), strict=True))
        self.values.update(made)

    def _is_small(self, name: str) -> bool:
        """Whether the type says of a value that it may be a shape's numbers."""
        tensor = self.types[name].tensor_type if name in self.types else None
        if tensor is None or not tensor.HasField("shape"):
            return False
        dims = tensor.shape.dim
        return all(dim.HasField("dim_value") for dim in dims) and (
            0 <= math.prod(dim.dim_value for dim in dims) <= KNOWN_ELEMENTS
        )

    def _library_errors(self, what: str) -> LibraryErrors:
        import onnx

        theirs = (*RAISED, onnx.checker.ValidationError, onnx.defs.SchemaError)

        def named(raised: BaseException) -> BundleError:
            return BundleError(
                f"{self.subject}, {what}", expected="a graph that ONNX can run", found=first_line(raised), fix=FIX
            )

        return LibraryErrors(lambda kind: issubclass(kind, theirs), named)

    def _infer(self, node: onnx.NodeProto) -> None:
        import onnx

        if _is_block_product(node):
            element = self.types[node.input[0]].tensor_type.elem_type
            shape = (*self._shape(node, node.input[0])[:-1], _attribute(node, "N", 0))
            self.types[node.output[0]] = onnx.helper.make_tensor_type_proto(element, shape)
            return
        inputs = [name for name in node.input if name]
        try:
            with self._library_errors(_label(node)):
                schema = onnx.defs.get_schema(node.op_type, self.opsets.get(node.domain, 1), node.domain)
                known = {
                    name: onnx.numpy_helper.from_array(self.values[name]) for name in inputs if name in self.values
                }
                inferred = onnx.shape_inference.infer_node_outputs(
                    schema, node, {name: self.types[name] for name in inputs}, known,
                    opset_imports=list(self.model.opset_import), ir_version=self.model.ir_version,
                )
        except onnx.shape_inference.InferenceError as error:
            raise BundleError(
                f"{self.subject}, {_label(node)}", expected="inputs whose shapes fit",
                found=str(error).splitlines()[0], fix="ask for lengths that the model takes",
            ) from None
        self.types.update(inferred)

    def _shape(self, node: onnx.NodeProto, name: str) -> Shape:
        dims = self.types[name].tensor_type.shape.dim if name in self.types else []
        if name not in self.types or not all(dim.HasField("dim_value") for dim in dims):
            raise BundleError(
                f"{self.subject}, {_label(node)}", expected=f"a shape of {name}", found="none",
                fix=FIX,
            )
        return tuple(int(dim.dim_value) for dim in dims)


def _label(node: onnx.NodeProto) -> str:
    return f"node {node.name or ', '.join(node.output)}"


def _is_block_product(node: onnx.NodeProto) -> bool:
    """Whether a node is ONNX Runtime's product with weights of few bits, which ONNX itself does not know."""
    return (node.domain, node.op_type) == (BLOCK_DOMAIN, BLOCK_OPERATOR)


def _matmul(_node: onnx.NodeProto, inputs: Sequence[Shape], output: Shape) -> int:
    return math.prod(output) * inputs[0][-1]


def _gemm(node: onnx.NodeProto, inputs: Sequence[Shape], output: Shape) -> int:
    return math.prod(output) * inputs[0][0 if _attribute(node, "transA", 0) else 1]


def _einsum(node: onnx.NodeProto, inputs: Sequence[Shape], _output: Shape) -> int:
    """Every combination of indices once, times the products that more than two operands need."""
    equation = _attribute(node, "equation", b"").decode().replace(" ", "")
    terms = equation.partition("->")[0].split(",")
    if "." in equation or len(terms) != len(inputs):
        raise BundleError(f"node {node.name}", expected="an Einsum without an ellipsis", found=equation, fix=FIX)
    sizes: dict[str, int] = {}
    for term, shape in zip(terms, inputs, strict=True):
        sizes.update(zip(term, shape, strict=True))
    return math.prod(sizes.values()) * max(0, len(terms) - 1)


def _attribute(node: onnx.NodeProto, name: str, default: Any) -> Any:
    import onnx

    for attribute in node.attribute:
        if attribute.name == name:
            return onnx.helper.get_attribute_value(attribute)
    return default


MULTIPLY_ADDS: dict[str, Callable[[onnx.NodeProto, Sequence[Shape], Shape], int]] = {
    "MatMul": _matmul,
    "MatMulInteger": _matmul,
    "QLinearMatMul": _matmul,
    BLOCK_OPERATOR: _matmul,
    "Gemm": _gemm,
    "Einsum": _einsum,
}
"""Matrix products; elementwise operators have no multiply-adds to count."""
