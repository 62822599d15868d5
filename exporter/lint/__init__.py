"""The rules that a graph must keep for a machine to take it, checked without that machine."""

from glimmer_export.exporter.lint.rule import COMPILERS, Finding, Limits, Rule, limits_of
from glimmer_export.exporter.lint.run import CPU_RULES, GPU_RULES, lint_bundle

__all__ = ["COMPILERS", "CPU_RULES", "GPU_RULES", "Finding", "Limits", "Rule", "limits_of", "lint_bundle"]
