"""Find a graph's residual stream by its structure: what RMSNorms read, what is added to it, who else reads it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import onnx_ir as ir

from glimmer_export.calibration.passes.operators import MOVERS, constant, is_float, moved_inputs, scalar

__all__ = ["Norm", "ResidualStream", "find_norms", "residual_stream"]


@dataclass(frozen=True)
class Norm:
    """One RMSNorm: its nodes in order, what it reads, and the addition of its epsilon."""

    nodes: tuple[ir.Node, ...]
    stream: ir.Value
    epsilon_add: ir.Node

    @property
    def output(self) -> ir.Value:
        """The normalised states, (..., d_model)."""
        return self.nodes[-1].outputs[0]


@dataclass(frozen=True)
class ResidualStream:
    """The values that stand in the stream's units, (..., d_model), and the nodes that make one of another.

    `written` are those of `values` that come from outside: products added to it, embeddings, graph inputs.
    """

    norms: tuple[Norm, ...]
    values: frozenset[ir.Value]
    nodes: frozenset[ir.Node]
    written: tuple[ir.Value, ...]


def find_norms(graph: ir.Graph) -> list[Norm]:
    """Every `x / sqrt(mean(x^2) + epsilon)`, with the weight that multiplies it if there is one.

    Bundles of before December 2026 have `x * (1 / sqrt(...))`, which is found too. The lazy stage A's normalisation of
    memory codes is no such pattern: it works on `x * x`, and its scale is folded.
    """
    return [norm for node in graph if (norm := _norm_at(node)) is not None]


def residual_stream(graph: ir.Graph) -> ResidualStream:
    """Start from what the norms read and follow additions and movements, backwards and forwards."""
    norms = find_norms(graph)
    of_norms = {node for norm in norms for node in norm.nodes}
    values: set[ir.Value] = set()
    pending = [norm.stream for norm in norms]
    while pending:
        value = pending.pop()
        if value in values:
            continue
        values.add(value)
        producer = value.producer()
        if producer is not None and _carries(producer):
            pending.extend(_operands(producer))
        for consumer, place in value.uses():
            if consumer in of_norms or not _carries(consumer) or consumer.inputs[place] not in _operands(consumer):
                continue
            pending.extend(consumer.outputs)
            pending.extend(_operands(consumer))
    values = {value for value in values if constant(value) is None}
    written = [
        value for value in _in_order(graph)
        if value in values and not ((node := value.producer()) is not None and _carries(node))
    ]
    nodes = {node for value in values if (node := value.producer()) is not None and _carries(node)}
    return ResidualStream(tuple(norms), frozenset(values), frozenset(nodes), tuple(written))


def _norm_at(node: ir.Node) -> Norm | None:
    if node.op_type != "Pow" or scalar(node.inputs[1]) != 2.0:
        return None
    stream = node.inputs[0]
    nodes = [node]
    for operators in (("ReduceMean",), ("Add",), ("Sqrt",), ("Div", "Reciprocal")):
        following = _only_consumer(nodes[-1].outputs[0])
        if following is None or following.op_type not in operators:
            return None
        nodes.append(following)
    if nodes[-1].op_type == "Reciprocal":
        following = _only_consumer(nodes[-1].outputs[0])
        if following is None or following.op_type != "Mul":
            return None
        nodes.append(following)
    normed = nodes[-1]
    divides = normed.op_type == "Mul" or normed.inputs[1] is nodes[-2].outputs[0]
    if stream is None or stream not in normed.inputs or not divides or not any(map(constant, nodes[2].inputs)):
        return None
    weighted = _only_consumer(nodes[-1].outputs[0])
    if weighted is not None and weighted.op_type == "Mul" and any(_is_vector(value) for value in weighted.inputs):
        nodes.append(weighted)
    return Norm(tuple(nodes), stream, nodes[2])


def _is_vector(value: ir.Value | None) -> bool:
    tensor = constant(value)
    return tensor is not None and len(tensor.shape) == 1


def _only_consumer(value: ir.Value) -> ir.Node | None:
    consumers = value.consumers()
    return consumers[0] if len(consumers) == 1 else None


def _carries(node: ir.Node) -> bool:
    """Whether a node's output is in the stream when its input is: additions and movements of what is computed."""
    if node.op_type == "Gather" and constant(node.inputs[0]) is not None:
        return False
    return (node.op_type == "Add" or node.op_type in MOVERS) and is_float(node.outputs[0])


def _operands(node: ir.Node) -> list[ir.Value]:
    if node.op_type == "Add":
        return [value for value in node.inputs if value is not None]
    return list(moved_inputs(node))


def _in_order(graph: ir.Graph) -> Iterator[ir.Value]:
    yield from graph.inputs
    for node in graph:
        yield from node.outputs
