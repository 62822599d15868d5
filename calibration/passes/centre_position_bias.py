"""Subtract each head's mean from the position bias: softmax takes any constant out again, FP16 does not. Exact."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import onnx_ir as ir
from onnx_ir.passes import InPlacePass, PassResult

from glimmer_export.calibration.linear import set_constant
from glimmer_export.calibration.passes.fp16_range import amax_of, is_masked
from glimmer_export.calibration.passes.operators import MOVERS, constant
from glimmer_export.calibration.tracked import TrackedRanges

__all__ = ["CentrePositionBias", "find_bias_tables", "softmaxes_of"]

_WHOLE = frozenset({"Expand", "Identity", "Reshape", "Squeeze", "Transpose", "Unsqueeze"})
"""What carries every entry on, neither a part of them nor with anything beside them."""


class CentrePositionBias(InPlacePass):
    """Every table of relative-position bias, (distances, heads), less the mean of each of its columns.

    A constant changes no softmax whose every key has it. So a table is centred only if each way from it to a softmax
    over keys is one of lookups, movements, additions and masks, and where what is joined to it on the way (lazy stage A
    attends to question and passage by two products) has the same constant: tables that meet in a softmax are given one
    mean a head. A bias that moves some keys and not others keeps it. After the call, `left` says which those are.

    `ranges` is told of what lies between table and softmax.
    """

    def __init__(self, ranges: TrackedRanges | None = None) -> None:
        super().__init__()
        self.ranges = ranges if ranges is not None else TrackedRanges({})
        self.left: list[str] = []

    def call(self, model: ir.Model) -> PassResult:
        """Rewrite the tables of an FP32 graph."""
        tables = find_bias_tables(model.graph)
        ways = {table: way for table in tables if (way := _Way.of(table)) is not None}
        self.left = [str(table.name) for table in tables if table not in ways]
        changed = False
        for group in _meeting(ways):
            contents = [np.asarray(_content(table), np.float64) for table in group]
            if len({content.shape[1] for content in contents}) > 1 or not _whole(group, ways):
                self.left += [str(table.name) for table in group]
                continue
            mean = np.concatenate(contents).mean(axis=0)
            if not mean.any():
                continue
            for table, content in zip(group, contents, strict=True):
                set_constant(table, (content - mean).astype(np.float32))
            self._track(model.graph, {value for table in group for value in (table, *ways[table].values)})
            changed = True
        return PassResult(model, changed)

    def _track(self, graph: ir.Graph, changed: set[ir.Value]) -> None:
        """Bounds instead of what was seen with the constant in it."""
        for node in graph:
            value = node.outputs[0] if node.outputs else None
            if value is None or value not in changed or str(value.name) not in self.ranges:
                continue
            inputs = node.inputs if node.op_type == "Add" else [each for each in node.inputs if each in changed]
            known = [None if each is None else amax_of(each, self.ranges) for each in inputs]
            found = [amax for amax in known if amax is not None]
            if len(found) == len(known):
                bound = sum(found) if node.op_type == "Add" else max(found)
                self.ranges.define(str(value.name), -bound, bound)


@dataclass
class _Way:
    """From one table to every softmax that it reaches: the values between, in order, and the softmaxes.

    `joined` are the concatenations on the way, all of whose inputs must have the constant.
    """

    table: ir.Value
    values: list[ir.Value] = field(default_factory=list)
    softmaxes: set[ir.Node] = field(default_factory=set)
    joined: set[ir.Node] = field(default_factory=set)

    @classmethod
    def of(cls, table: ir.Value) -> _Way | None:
        """None if the constant would be seen: the table, or what comes of it, is read by anything else."""
        way = cls(table)
        for node, place in table.uses():
            if node.op_type != "Gather" or place != 0 or not way._follow(node.outputs[0], moved=False):
                return None
        return way if way.softmaxes else None

    def _follow(self, value: ir.Value, *, moved: bool) -> bool:
        """`moved`: the heads, last in the table, no longer are the last axis."""
        if value.is_graph_output():
            return False
        if value in self.values:
            return True
        self.values.append(value)
        return all(self._reader(node, value, moved=moved) for node in value.consumers())

    def _reader(self, node: ir.Node, value: ir.Value, *, moved: bool) -> bool:
        if node.op_type == "Shape":
            return True
        if node.op_type == "Softmax":
            self.softmaxes.add(node)
            return moved and _is_over_last_axis(node)
        if node.op_type == "Transpose":
            order = node.attributes.get_ints("perm", ())
            moved = moved or (bool(order) and order[-1] != len(order) - 1)
        elif node.op_type == "Where":
            # Where nothing may be attended, the mask's number stands for the whole score.
            others = [each for each in node.inputs[1:] if each is not value]
            if node.inputs[0] is value or len(others) != 1 or not is_masked(others[0]):
                return False
        elif node.op_type == "Concat":
            self.joined.add(node)
        elif node.op_type not in _WHOLE and not (node.op_type == "Add" and node.inputs[0] is not node.inputs[1]):
            return False
        return self._follow(node.outputs[0], moved=moved)


def find_bias_tables(graph: ir.Graph) -> list[ir.Value]:
    """Constants (distances, heads) that are looked up by row and reach a softmax by what moves, adds and masks."""
    looked_up = {
        node.inputs[0]: None for node in graph
        if node.op_type == "Gather" and node.attributes.get_int("axis", 0) == 0
        and (table := constant(node.inputs[0])) is not None
        and len(table.shape) == 2 and table.dtype.is_floating_point()
    }
    return [table for table in looked_up if table is not None and softmaxes_of(table)]


def softmaxes_of(table: ir.Value) -> list[ir.Node]:
    """Those that a table reaches by no product of matrices."""
    pending = [node.outputs[0] for node in table.consumers()]
    found: dict[ir.Node, None] = {}
    seen: set[ir.Value] = set()
    while pending:
        value = pending.pop()
        if value in seen:
            continue
        seen.add(value)
        for node in value.consumers():
            if node.op_type == "Softmax":
                found[node] = None
            elif node.op_type in {*MOVERS, "Add", "Cast", "Mul"}:
                pending.extend(node.outputs)
    return list(found)


def _meeting(ways: dict[ir.Value, _Way]) -> list[list[ir.Value]]:
    """The tables in groups: those that reach one softmax together."""
    groups: list[tuple[set[ir.Node], list[ir.Value]]] = []
    for table, way in ways.items():
        apart = [group for group in groups if not group[0] & way.softmaxes]
        met = [group for group in groups if group[0] & way.softmaxes]
        softmaxes = way.softmaxes.union(*(group[0] for group in met))
        groups = [*apart, (softmaxes, [*(each for group in met for each in group[1]), table])]
    return [tables for _, tables in groups]


def _whole(group: list[ir.Value], ways: dict[ir.Value, _Way]) -> bool:
    """Whether every concatenation has the constant in all its inputs, and no addition has it twice."""
    values = {table: set(ways[table].values) for table in group}
    every = set().union(*values.values())
    joined = {node for table in group for node in ways[table].joined}
    if not all(value in every for node in joined for value in node.inputs):
        return False
    twice = [
        node for value in every for node in value.consumers()
        if node.op_type == "Add" and all(each in every for each in node.inputs)
    ]
    return not twice


def _is_over_last_axis(node: ir.Node) -> bool:
    axis = node.attributes.get_int("axis", -1)
    shape = node.outputs[0].shape
    return axis == -1 or (shape is not None and axis == len(shape) - 1)


def _content(table: ir.Value) -> np.ndarray:
    tensor = constant(table)
    assert tensor is not None
    return tensor.numpy()
