"""Scale the residual stream of one graph by a power of two: exact, since RMSNorm takes any scale out again."""

from __future__ import annotations

import math

import onnx_ir as ir
from onnx_ir.passes import InPlacePass, PassResult

from glimmer_export.calibration.fp16_limits import FP16_MAX
from glimmer_export.calibration.passes.columns_as_sums import is_column
from glimmer_export.calibration.passes.edit import infer_missing_types, multiplied, replace_constant
from glimmer_export.calibration.passes.fp16_range import amax_of
from glimmer_export.calibration.passes.operators import MOVERS, PRODUCTS, constant, is_float, moved_inputs
from glimmer_export.calibration.passes.residual_stream import ResidualStream, residual_stream
from glimmer_export.calibration.tracked import TrackedRanges

__all__ = ["HEADROOM", "RescaleResidual", "residual_scale"]

HEADROOM = 4.0
"""How far below FP16's largest number the stream's products stay on the calibration data: other texts reach further.

Measured on the demo: 600 questions after the first 100 raise no range by more than 1.42. A power of two more costs
FP16 no precision.
"""


class RescaleResidual(InPlacePass):
    """Multiply everything that stands in the stream's units by `scale`, within the graph (docs/design.md, section 4).

    What writes to the stream is scaled: the weights of the products added to it (o, wo), the embedding table (a copy,
    if a tied output projection reads it too) and the graph's inputs, on entry. RMSNorm's epsilon is scaled by
    `scale^2`, which makes its output the same. What else reads the stream, the score head, has its weight divided,
    not its bias; the graph's outputs are divided on exit. So inputs and outputs keep the checkpoint's units, and the
    final norms are not touched. A stream that is normalised by anything but an RMSNorm does not arise: lazy stage A's
    memory codes are no part of it. Scaling by a power of two rounds nothing, underflow aside.

    `tracked` is told of every value that is scaled.
    """

    def __init__(self, scale: float, tracked: TrackedRanges | None = None) -> None:
        super().__init__()
        if not 0 < scale <= 1 or math.frexp(scale)[0] != 0.5:
            raise ValueError(f"scale {scale} is no power of two of at most 1")
        self.scale = scale
        self.tracked = tracked if tracked is not None else TrackedRanges({})

    def call(self, model: ir.Model) -> PassResult:
        """Rescale an FP32 graph without Q/DQ."""
        infer_missing_types(model)
        stream = residual_stream(model.graph)
        if self.scale == 1 or not stream.norms:
            return PassResult(model, modified=False)
        graph = model.graph
        self._divide_readers(graph, stream)
        for value in stream.values:
            self.tracked.multiply(str(value.name), self.scale)
        for value in stream.written:
            self._scale_writer(graph, value)
        for value in [value for value in graph.outputs if value in stream.values]:
            self.tracked.multiply(str(value.name), 1 / self.scale)
            _divide_output(graph, value, 1 / self.scale)
        for norm in stream.norms:
            place = next(place for place, value in enumerate(norm.epsilon_add.inputs) if constant(value) is not None)
            replace_constant(graph, norm.epsilon_add, place, self.scale**2)
            for node in norm.nodes[:3]:
                self.tracked.multiply(str(node.outputs[0].name), self.scale**2)
            self.tracked.multiply(str(norm.nodes[3].outputs[0].name), self.scale)
            if norm.nodes[4].op_type == "Reciprocal":
                self.tracked.multiply(str(norm.nodes[4].outputs[0].name), 1 / self.scale)
        return PassResult(model, modified=True)

    def _scale_writer(self, graph: ir.Graph, value: ir.Value) -> None:
        """Scale a value at what makes it: a weight or a table, or else behind it."""
        node = value.producer()
        if node is not None and node.op_type in PRODUCTS and constant(node.inputs[1]) is not None:
            for place in range(1, len(node.inputs)):
                replace_constant(graph, node, place, self.scale)
        elif node is not None and node.op_type == "Gather" and constant(node.inputs[0]) is not None:
            replace_constant(graph, node, 0, self.scale)
        else:
            # The value itself stays in the checkpoint's units; its product takes its readers.
            self.tracked.multiply(str(value.name), 1 / self.scale)
            multiplied(graph, value, self.scale)

    def _divide_readers(self, graph: ir.Graph, stream: ResidualStream) -> None:
        """Take the scale out if something else than a norm reads the stream, behind what is linear in it."""
        of_norms = {node for norm in stream.norms for node in norm.nodes}
        pending = sorted(stream.values, key=lambda value: str(value.name))
        seen = set(pending)
        while pending:
            value = pending.pop()
            for node, place in list(value.uses()):
                if node in of_norms or node in stream.nodes or node.op_type == "Shape":
                    continue
                if node.op_type in PRODUCTS and place == 0 and constant(node.inputs[1]) is not None:
                    replace_constant(graph, node, 1, 1 / self.scale)
                elif _is_linear(node, place) and node.outputs[0] not in seen:
                    seen.add(node.outputs[0])
                    pending.append(node.outputs[0])
                    self.tracked.multiply(str(node.outputs[0].name), self.scale)
                else:
                    node.replace_input_with(place, multiplied(graph, value, 1 / self.scale, take_uses=False))


def residual_scale(graph: ir.Graph, tracked: TrackedRanges) -> float:
    """The largest power of two, at most 1, that gives HEADROOM to what FP16 computes of the residual stream.

    That is what is added to it (products, embeddings) and what products read of it; the sum itself is FP32.
    """
    stream = residual_stream(graph)
    read = [value for value in stream.values if _feeds_product(value)]
    worst = max((amax_of(value, tracked) or 0.0 for value in (*_computed(stream), *read)), default=0.0)
    limit = FP16_MAX / HEADROOM
    return 1.0 if worst <= limit else 2.0 ** math.floor(math.log2(limit / worst))


def _computed(stream: ResidualStream) -> list[ir.Value]:
    """Writers that FP16 makes or stores: products and embeddings, not what enters in FP32."""
    return [
        value for value in stream.written
        if (node := value.producer()) is not None and node.op_type in {*PRODUCTS, "Gather"}
    ]


def _feeds_product(value: ir.Value) -> bool:
    return any(node.op_type in PRODUCTS and not is_column(node) for node in value.consumers())


def _is_linear(node: ir.Node, place: int) -> bool:
    """Whether a node's output scales as its input `place` does, the others held."""
    if not is_float(node.outputs[0]):
        return False
    if node.op_type in MOVERS:
        return list(moved_inputs(node)) == [node.inputs[place]]
    if node.op_type == "Mul":
        return node.inputs[0] is not node.inputs[1]
    return place == 0 and node.op_type in {"Div", "ReduceSum", "ReduceMean"}


def _divide_output(graph: ir.Graph, value: ir.Value, factor: float) -> None:
    """Give the graph's output its name and units back, and keep the scaled value for the readers inside."""
    name = str(value.name)
    divided = multiplied(graph, value, factor, take_uses=False)
    value.name, divided.name = f"{name}.scaled", name
    graph.outputs[next(place for place, output in enumerate(graph.outputs) if output is value)] = divided
