"""Torch stages -> ONNX graphs: trace, rewrite, write, check."""

from exporter.graphs.export import ExportedGraph, codec_graph, export_graph

__all__ = ["ExportedGraph", "codec_graph", "export_graph"]
