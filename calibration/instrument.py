"""A graph whose every float tensor is an output: what calibration reads while the graph runs."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import onnx

__all__ = ["InstrumentedGraph", "ObservedTensor", "instrument"]

SAME_VALUES = frozenset({"Flatten", "Identity", "Reshape", "Squeeze", "Transpose", "Unsqueeze"})
"""Operators whose output holds the values of their first input, in another shape."""


@dataclass(frozen=True)
class ObservedTensor:
    """A float tensor of a graph; dims are numbers, names, or None where nothing is known.

    `values_of` names the tensor whose values it holds in another shape, None where they are its own.
    """

    name: str
    dims: tuple[int | str | None, ...] | None
    is_input: bool
    values_of: str | None

    @property
    def channels(self) -> int | None:
        """Size of the last axis, None where it varies or there is none."""
        last = self.dims[-1] if self.dims else None
        return last if isinstance(last, int) else None


@dataclass(frozen=True)
class InstrumentedGraph:
    """`model` is the serialised graph, whose outputs are the observed tensors that are no inputs."""

    model: bytes
    tensors: tuple[ObservedTensor, ...]


def instrument(path: Path) -> InstrumentedGraph:
    """Make every float tensor that depends on the inputs of the graph in `path` an output.

    What comes of weights and constants alone is left out: it is known without running. External data stays where it
    is. Tensors inside control flow are not seen.
    """
    import onnx

    model = onnx.load(str(path), load_external_data=False)
    types = _types(model)
    floats = {onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16}
    constants = {weight.name for weight in model.graph.initializer} | {""}
    tensors: dict[str, ObservedTensor] = {}
    for value in model.graph.input:
        if value.name not in constants and value.type.tensor_type.elem_type in floats:
            tensors[value.name] = ObservedTensor(value.name, _dims(value), is_input=True, values_of=None)
    for node in model.graph.node:
        if constants.issuperset(node.input):
            constants.update(node.output)
            continue
        source = tensors.get(node.input[0]) if node.op_type in SAME_VALUES else None
        values_of = (source.values_of or source.name) if source is not None else None
        for name in node.output:
            value = types.get(name)
            if value is not None and value.type.tensor_type.elem_type in floats:
                tensors[name] = ObservedTensor(name, _dims(value), is_input=False, values_of=values_of)
    del model.graph.output[:]
    model.graph.output.extend(
        onnx.helper.make_tensor_value_info(tensor.name, types[tensor.name].type.tensor_type.elem_type, None)
        for tensor in tensors.values() if not tensor.is_input and _is_read(tensor)
    )
    return InstrumentedGraph(model.SerializeToString(), tuple(tensors.values()))


def _is_read(tensor: ObservedTensor) -> bool:
    """Another shape of known values has nothing of its own but its channels."""
    return tensor.values_of is None or tensor.channels is not None


def _types(model: onnx.ModelProto) -> dict[str, onnx.ValueInfoProto]:
    """Element type and dims of every tensor that nodes write, by name."""
    import onnx

    known = {value.name: value for value in (*model.graph.value_info, *model.graph.output)}
    if any(name and name not in known for node in model.graph.node for name in node.output):
        inferred = onnx.shape_inference.infer_shapes(model).graph
        known = {value.name: value for value in inferred.value_info} | known
    return known


def _dims(value: onnx.ValueInfoProto) -> tuple[int | str | None, ...] | None:
    tensor = value.type.tensor_type
    if not tensor.HasField("shape"):
        return None
    return tuple(
        dim.dim_value if dim.HasField("dim_value") else dim.dim_param or None for dim in tensor.shape.dim
    )
