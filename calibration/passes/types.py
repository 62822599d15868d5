"""Give every value of a graph its dtype, where the pass that made it did not."""

from __future__ import annotations

import onnx_ir as ir

__all__ = ["infer_missing_types"]


def infer_missing_types(model: ir.Model) -> None:
    """Infer by ONNX's own rules, in place; raises ValueError where a type stays unknown."""
    if not _untyped(model.graph):
        return
    from onnx_ir.passes.common import ShapeInferencePass

    ShapeInferencePass()(model)
    if missing := _untyped(model.graph):
        raise ValueError(f"no type can be inferred for {', '.join(missing[:5])}")


def _untyped(graph: ir.Graph) -> list[str]:
    return [str(value.name) for node in graph for value in node.outputs if value.dtype is None]
