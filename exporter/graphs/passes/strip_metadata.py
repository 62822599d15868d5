"""Remove what the tracer writes about the machine it ran on: stack traces with absolute paths, producer notes."""

from __future__ import annotations

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
        model.producer_name, model.producer_version = "glimmer-export", None
        model.doc_string = None
        return PassResult(model, modified=True)
