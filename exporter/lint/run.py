"""A bundle and a machine -> what in its graphs that machine would not take.

ONNX Runtime's rules stand here: that it loads a graph is asked of every target, since parity is measured with it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from glimmer_export.exporter.lint.dtypes import DTYPE_RULES
from glimmer_export.exporter.lint.graph import LintGraph, label
from glimmer_export.exporter.lint.operators import OPERATOR_RULES
from glimmer_export.exporter.lint.qdq import QDQ_RULES
from glimmer_export.exporter.lint.rule import Fault, Finding, Limits, Rule
from glimmer_export.runtime.backends import OnnxRuntimeBackend
from glimmer_export.runtime.bundle import Bundle
from glimmer_export.runtime.contract import BundleError

__all__ = ["CPU_RULES", "GPU_RULES", "lint_bundle"]

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

GPU_RULES = (*OPERATOR_RULES, *DTYPE_RULES, *QDQ_RULES, LOADS)
CPU_RULES = (*ONNXRUNTIME_RULES, LOADS)


def lint_bundle(
    bundle: Bundle, limits: Limits | None, *, on_graph: Callable[[str], None] = lambda _: None
) -> list[Finding]:
    """Every finding, graph by graph; `limits` None stands for a CPU. `on_graph(name)` is called before each.

    Raises BundleError for a file that is no ONNX graph.
    """
    rules = CPU_RULES if limits is None else GPU_RULES
    findings = []
    for name, io in bundle.manifest.io().items():
        on_graph(name)
        graph = LintGraph(bundle.graph_path(name), name, io)
        findings += [Finding.of(rule, name, fault) for rule in rules for fault in rule.check(graph, limits)]
    return findings
