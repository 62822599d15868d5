"""Torch stages -> ONNX graphs: trace, rewrite, write, check."""

from exporter.graphs.export import ExportedGraph, export_graph

__all__ = ["ExportedGraph", "export_graph"]
