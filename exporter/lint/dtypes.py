"""Rules on types: which a GPU computes in, where an integer may stand, and what a product may mix."""

from __future__ import annotations

from collections.abc import Iterator
from math import prod

from glimmer_export.exporter.lint.graph import LintGraph, label, present
from glimmer_export.exporter.lint.rule import Fault, Limits, Rule

__all__ = ["DTYPE_RULES"]

EVERYWHERE = frozenset({"FLOAT", "FLOAT16", "INT8", "INT32", "INT64", "BOOL"})
SINCE_CAPABILITY = {
    "BFLOAT16": (8, 0), "INT4": (8, 0), "FLOAT8E4M3FN": (8, 9), "FLOAT4E2M1": (10, 0),
}  # fmt: skip
SINCE_VERSION = {"INT4": (10, 14)}
"""Of TensorRT, of which opset 21 is the least that has blocks of weights."""
PRODUCTS = ("MatMul", "Gemm")
MAX_RANK = 8
"""TensorRT's Dims::MAX_DIMS: no shape, axes or bounds of a slice are longer."""


def _dtype(graph: LintGraph, limits: Limits) -> Iterator[Fault]:
    io = {value.name for side in (graph.model.graph.input, graph.model.graph.output) for value in side}
    written = (name for node in graph.nodes for name in present(node.output))
    for name in dict.fromkeys((*graph.constants, *sorted(io), *written)):
        kind = graph.dtype_name(name)
        needed = SINCE_CAPABILITY.get(kind)
        # UINT8 may cross the boundary; what becomes of it inside, other rules say.
        version = SINCE_VERSION.get(kind, (0, 0))
        able = needed and limits.capability >= needed and limits.version >= version
        if kind in EVERYWHERE or (kind == "UINT8" and name in io) or able:
            continue
        because = f", which needs compute capability {needed[0]}.{needed[1]}" if needed else ""
        if version > (0, 0):
            because += f" and TensorRT {version[0]}.{version[1]}"
        yield _writer(graph, name), f"{name} of type {kind}{because}"


def _int64(graph: LintGraph, _: Limits) -> Iterator[Fault]:
    for side in (graph.model.graph.input, graph.model.graph.output):
        for value in side:
            if graph.dtype_name(value.name) == "INT64":
                yield value.name, "an input or output of INT64"
    for name, tensor in graph.constants.items():
        if graph.dtype_name(name) == "INT64" and (size := prod(tensor.dims)) > MAX_RANK:
            yield name, f"a constant of {size} INT64 numbers"


def _gather_nd(graph: LintGraph, _: Limits) -> Iterator[Fault]:
    for node in graph.nodes:
        if node.op_type == "GatherND" and graph.dtype_name(node.input[1]) != "INT64":
            yield label(node), f"indices of {graph.dtype_name(node.input[1])}"


def _int8(graph: LintGraph, _: Limits) -> Iterator[Fault]:
    for node in graph.nodes:
        if node.op_type in ("QuantizeLinear", "DequantizeLinear", "Constant"):
            continue
        for name in present((*node.input, *node.output)):
            if graph.dtype_name(name) == "INT8":
                yield label(node), f"{name} in a {node.op_type}"


def _mixed(graph: LintGraph, _: Limits) -> Iterator[Fault]:
    for node in graph.nodes:
        kinds = [graph.dtype_name(name) for name in present(node.input)]
        if node.op_type in PRODUCTS and len(set(kinds)) > 1:
            yield label(node), " and ".join(kinds)


def _fp32_product(graph: LintGraph, limits: Limits) -> Iterator[Fault]:
    if limits.compiler != "tensorrt-rtx" or limits.capability > (7, 5):
        return
    for node in graph.nodes:
        if node.op_type in PRODUCTS and graph.dtype_name(node.input[0]) == "FLOAT":
            yield label(node), "a product in FP32"


def _writer(graph: LintGraph, name: str) -> str:
    return label(graph.producers[name]) if name in graph.producers else name


DTYPE_RULES = (
    Rule(
        "dtype", "expected a type that the GPU computes in", "TensorRT support matrix, hardware and precision",
        "choose FP16, or INT8 with Q/DQ", _dtype,
    ),
    Rule(
        "int64", f"expected INT32 where INT32 would do: inputs, outputs, constants of more than {MAX_RANK} numbers",
        "TensorRT documentation, Data Types: INT64 is computed at half the rate of INT32 and warned of",
        "cast it to INT32", _int64,
    ),
    Rule(
        "gather-nd", "expected GatherND with INT64 indices",
        "ONNX, GatherND; ONNX Runtime refuses INT32 ones, which TensorRT-RTX 1.7.1 takes (tried)",
        "select with Gather (torch: index_select), which takes INT32", _gather_nd,
    ),
    Rule(
        "int8", "expected INT8 values between QuantizeLinear and DequantizeLinear alone",
        "ONNX-TensorRT, docs/operators.md, quantized types; TensorRT-RTX 1.7.1 refuses an INT8 constant at a Gather "
        "(tried)", "store tables of codes packed in INT32, as `glimmer-export quantize --target tensorrt` does", _int8,
    ),
    Rule(
        "mixed-product", "expected one type in a matrix product",
        "TensorRT documentation, Strongly Typed Networks; TensorRT-RTX 1.7.1 refuses it (tried)",
        "cast one side", _mixed,
    ),
    Rule(
        "fp32-product", "expected FP16 or INT8 products for compute capability 7.5",
        'TensorRT-RTX 1.7.1: "FP32 GEMM is not supported" (tried)',
        "build an FP16 bundle (`glimmer-export quantize --precision fp16` or `int8-fp16`), or with TensorRT itself",
        _fp32_product,
    ),
)
