"""Rules on Q/DQ: the one form of INT8 that TensorRT 10.3 to 11 and strongly typed networks take."""

from __future__ import annotations

from collections.abc import Iterator
from math import prod
from typing import TYPE_CHECKING, TypeGuard

import numpy as np

from glimmer_export.exporter.lint.graph import LintGraph, attribute, label
from glimmer_export.exporter.lint.rule import Fault, Limits, Rule

if TYPE_CHECKING:
    from onnx import NodeProto, TensorProto

__all__ = ["QDQ_RULES"]

QUANTIZED_TYPES = "TensorRT documentation, Working with Quantized Types"
CODES = ("INT8", "INT4", "FLOAT8E4M3FN", "FLOAT4E2M1")
WEIGHT_ONLY = "INT4"
"""Codes that a weight may have, in blocks along what is multiplied, beside a float activation."""
QUANTIZE_AGAIN = "quantise with `glimmer-export quantize --target tensorrt`"
FP16_SCALES_OPSET = 19


def _nodes(graph: LintGraph, *kinds: str) -> Iterator[NodeProto]:
    return (node for node in graph.nodes if node.op_type in (kinds or ("QuantizeLinear", "DequantizeLinear")))


def _weight(graph: LintGraph, node: NodeProto) -> TensorProto | None:
    """The constant that a QuantizeLinear or DequantizeLinear is about, seen through the pair; None for activations."""
    source = graph.producers.get(node.input[0])
    return graph.constants.get(source.input[0] if _is_quantize(source) else node.input[0])


def _is_quantize(node: NodeProto | None) -> TypeGuard[NodeProto]:
    return node is not None and node.op_type == "QuantizeLinear"


def _signed(graph: LintGraph, _: Limits) -> Iterator[Fault]:
    for node in _nodes(graph):
        codes = node.output[0] if node.op_type == "QuantizeLinear" else node.input[0]
        if (kind := graph.dtype_name(codes)) not in CODES:
            yield label(node), f"codes of {kind}"


def _zero_point(graph: LintGraph, _: Limits) -> Iterator[Fault]:
    for node in _nodes(graph):
        point = node.input[2] if len(node.input) > 2 else ""
        if point and point not in graph.constants:
            yield label(node), f"the zero point {point}, which is computed"
        elif point and (values := graph.array(point)).any():
            yield label(node), f"the zero point {values.reshape(-1)[np.flatnonzero(values)[0]]}"


def _constant_scale(graph: LintGraph, _: Limits) -> Iterator[Fault]:
    for node in _nodes(graph):
        if node.input[1] not in graph.constants:
            yield label(node), f"the scale {node.input[1]}, which is computed"


def _positive_scale(graph: LintGraph, _: Limits) -> Iterator[Fault]:
    for node in _nodes(graph):
        if node.input[1] in graph.constants:
            scale = graph.array(node.input[1]).astype(np.float64)
            if not (np.isfinite(scale) & (scale > 0)).all():
                yield label(node), f"a scale of {scale.min()}"


def _scale_dtype(graph: LintGraph, _: Limits) -> Iterator[Fault]:
    for node in _nodes(graph):
        real = node.input[0] if node.op_type == "QuantizeLinear" else node.output[0]
        kinds = [graph.dtype_name(name) for name in (node.input[1], real)]
        if kinds[0] != kinds[1]:
            yield label(node), f"a scale of {kinds[0]} beside {kinds[1]}"


def _fp16_scale(graph: LintGraph, _: Limits) -> Iterator[Fault]:
    for node in _nodes(graph):
        if graph.dtype_name(node.input[1]) == "FLOAT16" and graph.opset < FP16_SCALES_OPSET:
            yield label(node), f"a FLOAT16 scale in opset {graph.opset}"


def _per_tensor(graph: LintGraph, _: Limits) -> Iterator[Fault]:
    for node in _nodes(graph):
        scale = graph.constants.get(node.input[1])
        if _weight(graph, node) is None and scale is not None and (size := prod(scale.dims)) > 1:
            yield label(node), f"{size} scales"


def _weight_axis(graph: LintGraph, _: Limits) -> Iterator[Fault]:
    for node in _nodes(graph, "DequantizeLinear"):
        scale, weight = graph.constants.get(node.input[1]), _weight(graph, node)
        if scale is None or weight is None or prod(scale.dims) == 1:
            continue
        axis, block = attribute(node, "axis"), attribute(node, "block_size")
        if block is not None and block.i:
            along = (axis.i if axis is not None else 1) % len(weight.dims)
            if graph.dtype_name(weight.name) != WEIGHT_ONLY or len(weight.dims) != 2 or along != 0:
                yield label(node), f"blocks of {block.i}"
            continue
        found = axis.i if axis is not None else 1
        rank = len(weight.dims)
        for reader, place in graph.readers[node.output[0]]:
            transposed = reader.op_type == "Gemm" and (flag := attribute(reader, "transB")) is not None and flag.i
            wanted = 0 if transposed else 1
            if reader.op_type in ("MatMul", "Gemm") and (place != 1 or rank != 2 or found % rank != wanted):
                yield label(node), f"a scale for each channel of axis {found} of a weight {tuple(weight.dims)}"


def _pairs(graph: LintGraph, _: Limits) -> Iterator[Fault]:
    for node in _nodes(graph, "QuantizeLinear"):
        readers = [reader for reader, _ in graph.readers[node.output[0]]]
        strange = [reader.op_type for reader in readers if reader.op_type != "DequantizeLinear"]
        if strange or not readers:
            yield label(node), f"codes that go to {strange[0] if strange else 'nothing'}"
    for node in _nodes(graph, "DequantizeLinear"):
        codes = node.input[0]
        source = graph.producers.get(codes)
        if codes in graph.constants:
            continue
        if not _is_quantize(source):
            yield label(node), f"codes that come from {source.op_type if source is not None else 'an input'}"
        elif not _same(graph, source.input[1], node.input[1]):
            yield label(node), f"the scale {node.input[1]} where QuantizeLinear has {source.input[1]}"


def _same(graph: LintGraph, first: str, second: str) -> bool:
    constants = first in graph.constants and second in graph.constants
    return first == second or (constants and np.array_equal(graph.array(first), graph.array(second)))


def _is_weight_only(graph: LintGraph, source: NodeProto | None) -> bool:
    return source is not None and graph.dtype_name(source.input[0]) == WEIGHT_ONLY


def _both_sides(graph: LintGraph, _: Limits) -> Iterator[Fault]:
    for node in _nodes(graph, "MatMul", "Gemm"):
        sources = [graph.producers.get(name) for name in node.input[:2]]
        quantised = [source is not None and source.op_type == "DequantizeLinear" for source in sources]
        if quantised == [False, True] and _is_weight_only(graph, sources[1]):
            continue
        if quantised[0] != quantised[1]:
            yield label(node), "INT8 on its " + ("left side alone" if quantised[0] else "right side alone")


QDQ_RULES = (
    Rule("qdq-signed", "expected signed codes", QUANTIZED_TYPES, QUANTIZE_AGAIN, _signed),
    Rule("qdq-zero-point", "expected zero points that are constants of 0", QUANTIZED_TYPES, QUANTIZE_AGAIN,
         _zero_point),
    Rule("qdq-constant-scale", "expected a constant scale", QUANTIZED_TYPES,
         "fix it by calibration (`glimmer-export calibrate`)", _constant_scale),
    Rule("qdq-positive-scale", "expected scales that are finite and above 0", QUANTIZED_TYPES,
         "calibrate on inputs that reach this tensor", _positive_scale),
    Rule("qdq-scale-dtype", "expected a scale of the type of what it scales",
         "TensorRT documentation, Strongly Typed Networks", "cast the scale", _scale_dtype),
    Rule("qdq-fp16-scale", f"expected opset {FP16_SCALES_OPSET} or later beside FP16 scales",
         "ONNX, QuantizeLinear-19", "export with opset 20", _fp16_scale),
    Rule("qdq-per-tensor", "expected one scale for an activation", QUANTIZED_TYPES, QUANTIZE_AGAIN, _per_tensor),
    Rule("qdq-weight-axis", "expected a weight's scales along its output channels: axis 1 of (K, N), or INT4 "
         "in blocks of axis 0", QUANTIZED_TYPES,
         QUANTIZE_AGAIN, _weight_axis),
    Rule("qdq-pair", "expected QuantizeLinear and DequantizeLinear in pairs of one scale", QUANTIZED_TYPES,
         "put the DequantizeLinear directly behind the QuantizeLinear", _pairs),
    Rule("qdq-both-sides", "expected Q/DQ on both sides of a product or on none",
         f"{QUANTIZED_TYPES}: weight-only INT8 is not supported", QUANTIZE_AGAIN, _both_sides),
)
