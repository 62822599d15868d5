"""Remove what the tracer writes about the machine it ran on: stack traces with absolute paths, producer notes."""

from __future__ import annotations

from collections.abc import Iterator

import onnx_ir as ir
from onnx_ir.passes import InPlacePass, PassResult
from onnx_ir.passes.common import ClearMetadataAndDocStringPass

__all__ = ["StripMetadata"]


class StripMetadata(InPlacePass):
    """Equal graphs then have equal bytes, wherever they were exported."""

    def call(self, model: ir.Model) -> PassResult:
        """Clear metadata and doc strings of the model, its graph, nodes and values."""
        ClearMetadataAndDocStringPass()(model)
        model.graph.metadata_props.clear()
        model.metadata_props.clear()
        # The pass above clears nodes alone; inputs, weights and what nodes write have notes of their own.
        for value in (*model.graph.inputs, *model.graph.initializers.values(), *_outputs(model.graph)):
            value.metadata_props.clear()
            value.doc_string = None
        model.producer_name, model.producer_version = "glimmer-export", None
        model.doc_string = None
        return PassResult(model, modified=True)


def _outputs(graph: ir.Graph) -> Iterator[ir.Value]:
    return (value for node in graph for value in node.outputs)
