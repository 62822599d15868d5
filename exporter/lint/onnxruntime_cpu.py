"""Rules of ONNX Runtime's CPU provider. That it loads a graph is asked of every target: parity is measured with it."""

from __future__ import annotations

from collections.abc import Iterator

from glimmer_export.exporter.lint.graph import LintGraph, label
from glimmer_export.exporter.lint.rule import Fault, Rule
from glimmer_export.runtime.backends import OnnxRuntimeBackend
from glimmer_export.runtime.contract import BundleError

__all__ = ["LOADS", "ONNXRUNTIME_RULES"]

OPSETS = range(7, 24)
"""Those of ONNX Runtime 1.23, the oldest that the extra `cpu` allows (tried)."""


def _opset(graph: LintGraph, _: object) -> Iterator[Fault]:
    if graph.opset not in OPSETS:
        yield graph.name, f"opset {graph.opset}"


def _domain(graph: LintGraph, _: object) -> Iterator[Fault]:
    for node in graph.nodes:
        if node.domain not in ("", "ai.onnx", "com.microsoft"):
            yield label(node), f"{node.domain}.{node.op_type}"


def _loads(graph: LintGraph, _: object) -> Iterator[Fault]:
    try:
        OnnxRuntimeBackend(threads=1).load(graph.path, graph.io)
    except BundleError as error:
        yield graph.name, error.found


COMPATIBILITY = "ONNX Runtime, Compatibility: ONNX opset support"
ONNXRUNTIME_RULES = (
    Rule("onnxruntime-opset", f"expected opset {OPSETS[0]} to {OPSETS[-1]}", COMPATIBILITY, "export with opset 20",
         _opset),
    Rule("onnxruntime-domain", "expected operators of ONNX or ONNX Runtime", COMPATIBILITY,
         "write it with standard operators", _domain),
)
LOADS = Rule(
    "onnxruntime-loads", "expected a graph that ONNX Runtime loads, with its bundle's inputs and outputs",
    "ONNX Runtime, as it is installed here", "export the bundle again", _loads,
)
