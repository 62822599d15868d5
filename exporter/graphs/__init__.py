"""Torch stages -> ONNX graphs: trace, rewrite, write, check."""

from glimmer_export.exporter.graphs.export import ExportedGraph, GraphExporter
from glimmer_export.exporter.graphs.write import WeightsFile, weights_file

__all__ = ["ExportedGraph", "GraphExporter", "WeightsFile", "weights_file"]
