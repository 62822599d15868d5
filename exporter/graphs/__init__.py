"""Torch stages -> ONNX graphs: trace, rewrite, write, check."""

from exporter.graphs.export import ExportedGraph, export_graph
from exporter.graphs.trace import TracedStages

__all__ = ["ExportedGraph", "TracedStages", "export_graph"]
