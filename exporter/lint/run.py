"""A bundle and a machine -> what in its graphs that machine would not take."""

from __future__ import annotations

from collections.abc import Callable

from glimmer_export.exporter.lint.dtypes import DTYPE_RULES
from glimmer_export.exporter.lint.graph import LintGraph
from glimmer_export.exporter.lint.limits import Limits
from glimmer_export.exporter.lint.onnxruntime_cpu import LOADS, ONNXRUNTIME_RULES
from glimmer_export.exporter.lint.operators import OPERATOR_RULES
from glimmer_export.exporter.lint.qdq import QDQ_RULES
from glimmer_export.exporter.lint.rule import Finding
from glimmer_export.runtime.bundle import Bundle

__all__ = ["CPU_RULES", "GPU_RULES", "lint_bundle"]

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
