"""Decide which nodes of a graph compute in FP16: the rules that ConvertFp16 carries out."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field

import onnx_ir as ir

from glimmer_export.calibration.fp16_limits import FP16_MAX, FP16_SAFE, MAX_SCORE, SMALLEST_AMAX
from glimmer_export.calibration.passes.fp16_range import amax_of, is_masked
from glimmer_export.calibration.passes.operators import MOVERS, PRODUCTS, constant, is_float, moved_inputs
from glimmer_export.calibration.passes.residual_stream import residual_stream
from glimmer_export.calibration.tracked import TrackedRanges

__all__ = ["ROLES", "Fp16Plan", "plan_fp16"]

ROLES = frozenset({"norm", "residual", "outside"})
"""What may be kept in FP32: RMSNorms; the residual stream's additions; and whatever stands outside of products."""

_HOISTED = frozenset({"Reshape", "Squeeze", "Transpose", "Unsqueeze"})
"""Movers that keep a value's size: one that FP16 alone reads is given FP16, so that the cast before it is shared."""

_STORED = frozenset({"Pad", "Where"})
"""Movers that write keys and values into a cache: if that is FP16, what is new is cast, never the whole cache."""

_HALF, _SINGLE, _FREE = "half", "single", "free"
"""If a value comes from: an FP16 product; FP32; or constants alone, which can be had in either."""


@dataclass
class Fp16Plan:
    """Nodes that compute in FP16; `free` those of constants, ids and masks alone; `kept` why a product is in FP32."""

    half: set[ir.Node] = field(default_factory=set)
    free: set[ir.Node] = field(default_factory=set)
    kept: list[str] = field(default_factory=list)


def plan_fp16(
    graph: ir.Graph, ranges: TrackedRanges | None, keep_fp32: frozenset[str], keep: Collection[str] = (),
    fp16_io: Collection[str] = (),
) -> Fp16Plan:
    """Decide for every node; values must have types, and of the graph's outputs `fp16_io` are those to be FP16.

    1. A matrix product is FP16, unless the ranges say that an operand or its result passes FP16's largest number or is
       so small that FP16 would lose it, or `keep` names it.
    2. RMSNorms and what the residual stream consists of are FP32 (where `keep_fp32` says so).
    3. Anything else that computes is FP16 where it stands between products: no operand comes from FP32, one comes from
       a product, and a product reads the result or it is an FP16 output. So the attention's softmax, GELU and gating
       product are, and the score head's bias or a cache that crosses the boundary in FP32 are not.
    4. What moves values has the precision of its input, and what writes an FP16 cache that of the cache. What is made
       of constants, ids and masks alone (position bias, mask) has its readers'. A table of two or more dimensions that
       ids look up is stored in FP16.
    """
    return _Planner(graph, ranges, keep_fp32, keep, fp16_io).plan()


class _Planner:
    def __init__(
        self, graph: ir.Graph, ranges: TrackedRanges | None, keep_fp32: frozenset[str], keep: Collection[str],
        fp16_io: Collection[str],
    ) -> None:
        self._named = keep
        self._fp16_outputs = {value for value in graph.outputs if value.name in fp16_io}
        self._nodes = list(graph)
        self._ranges = ranges
        self._keep = keep_fp32
        self._result = Fp16Plan()
        stream = residual_stream(graph)
        self._pinned: set[ir.Node] = set()
        if "norm" in keep_fp32:
            self._pinned |= {node for norm in stream.norms for node in norm.nodes}
        if "residual" in keep_fp32:
            self._pinned |= stream.nodes
        self._source: dict[ir.Value, str] = {}

    def plan(self) -> Fp16Plan:
        for node in self._nodes:
            source = self._source_of(node)
            for value in node.outputs:
                self._source[value] = source
        wanted: set[ir.Node] = set()
        for node in reversed(self._nodes):
            if self._is_wanted(node, wanted):
                wanted.add(node)
        for node in self._nodes:
            if self._computes_half(node, wanted):
                self._result.half.add(node)
        return self._result

    def _source_of(self, node: ir.Node) -> str:
        """Where a node's outputs come from, given that of its inputs."""
        if node in self._pinned or not any(is_float(value) for value in node.outputs):
            return _SINGLE
        if node.op_type == "Cast":
            return _SINGLE if "outside" in self._keep else _HALF
        if node.op_type in PRODUCTS:
            return _SINGLE if self._must_keep(node) else _HALF
        # A dequantised value can be had in either; its scale is the only float among its inputs.
        sources = {self._of_value(value) for value in node.inputs if is_float(value)}
        if not sources - {_FREE}:
            self._result.free.add(node)
            return _FREE
        if _SINGLE in sources or (node.op_type not in MOVERS and self._overflows(node)):
            return _SINGLE
        return _HALF

    def _of_value(self, value: ir.Value | None) -> str:
        if constant(value) is not None:
            return _FREE
        if value is not None and value.producer() is None:
            return _HALF if value.dtype == ir.DataType.FLOAT16 or "outside" not in self._keep else _SINGLE
        return self._source[value] if value is not None else _FREE

    def _is_wanted(self, node: ir.Node, wanted: set[ir.Node]) -> bool:
        """Whether a node's result reaches an FP16 product through FP16 alone, so that it is worth having in FP16."""
        if node.op_type in PRODUCTS:
            return self._source[node.outputs[0]] == _HALF
        readers = [reader for value in node.outputs for reader in value.consumers()]
        if node.op_type == "QuantizeLinear":
            return any(reader in wanted for reader in readers)
        source = self._source[node.outputs[0]] if node.outputs else _SINGLE
        handed_over = any(value in self._fp16_outputs for value in node.outputs)
        if source == _SINGLE:
            movers = _HOISTED | _STORED if handed_over else _HOISTED
            hoisted = node.op_type in movers and node not in self._pinned and is_float(node.outputs[0])
            return hoisted and self._all_wanted(node, readers, wanted)
        if source == _FREE:
            return self._all_wanted(node, readers, wanted) or not self._keep
        return handed_over or any(reader in wanted for reader in readers) or "outside" not in self._keep

    def _all_wanted(self, node: ir.Node, readers: list[ir.Node], wanted: set[ir.Node]) -> bool:
        output = node.outputs[0]
        handed_over = output in self._fp16_outputs
        used = handed_over or (bool(readers) and not output.is_graph_output())
        return used and all(reader in wanted for reader in readers)

    def _computes_half(self, node: ir.Node, wanted: set[ir.Node]) -> bool:
        if node in self._pinned or not any(is_float(value) for value in node.outputs) or node.op_type == "Cast":
            return False
        if node in wanted:
            # Constants are what they are: a table beyond FP16 is read in FP32, and cast if that is asked for.
            return node not in self._result.free or self._fits(node, node.outputs[0], FP16_MAX)
        if node.op_type == "Gather" and (table := constant(node.inputs[0])) is not None:
            return len(table.shape) > 1 and table.shape[-1] != 1 and self._fits(node, node.inputs[0], FP16_SAFE)
        if node.op_type in MOVERS and self._source[node.outputs[0]] == _HALF:
            moved = [value for value in moved_inputs(node) if is_float(value) and self._of_value(value) == _HALF]
            return all(self._is_half(value) for value in moved)
        return False

    def _is_half(self, value: ir.Value) -> bool:
        node = value.producer()
        return value.dtype == ir.DataType.FLOAT16 if node is None else node in self._result.half

    def _magnitude(self, value: ir.Value | None) -> float:
        """0 if nothing is known: without ranges nothing but constants can be judged."""
        if value is None or (self._ranges is None and constant(value) is None):
            return 0.0
        return amax_of(value, self._ranges or TrackedRanges({})) or 0.0

    def _fits(self, node: ir.Node, value: ir.Value | None, limit: float) -> bool:
        amax = self._magnitude(value)
        return amax <= limit or not self._note(node, f"{value.name if value else ''} reaches {amax:.3g}")

    def _must_keep(self, node: ir.Node) -> bool:
        if node.name in self._named:
            return self._note(node, "asked for")
        for value in (*node.inputs, *node.outputs):
            amax = self._magnitude(value)
            if amax > FP16_SAFE:
                return self._note(node, f"{value.name} reaches {amax:.3g}" if value is not None else "")
            # Weights are small: they lose nothing by it that their rounding had not taken.
            operand = value in node.inputs and self._of_value(value) != _FREE
            if value is not None and operand and 0 < amax < SMALLEST_AMAX:
                return self._note(node, f"{value.name} reaches only {amax:.3g}")
        return False

    def _overflows(self, node: ir.Node) -> bool:
        if self._ranges is None:
            return False
        if node.op_type == "Add" and any(is_masked(value) for value in node.inputs):
            scores = [value for value in node.inputs if not is_masked(value)]
            worst = max((self._magnitude(value) for value in scores), default=0.0)
            return worst > MAX_SCORE and self._note(node, f"attention scores reach {worst:.3g}")
        worst = max(self._magnitude(value) for value in node.outputs)
        return worst > FP16_SAFE and self._note(node, f"{node.outputs[0].name} reaches {worst:.3g}")

    def _note(self, node: ir.Node, reason: str) -> bool:
        self._result.kept.append(f"{node.name}: {reason}")
        return True
