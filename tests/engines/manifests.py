"""What of a bundle's manifest profiles are derived from, without a bundle; and the targets that have a GPU."""

from __future__ import annotations

from types import SimpleNamespace

from glimmer_export.exporter.config.read import config_names
from glimmer_export.exporter.config.targets import read_target
from glimmer_export.runtime.contract import (
    FileEntry,
    Forms,
    GraphEntry,
    ModelShape,
    boundaries_of,
    graph_io,
    tensor_entries,
    with_fp16,
)

__all__ = ["GPUS", "manifest_of"]

GPUS = {name: gpu for name in config_names("target") if (gpu := read_target(name).tensorrt) is not None}


def manifest_of(
    shape: ModelShape, cross_attention: str, stage_a: str = "full", *, precision: str = "fp16", graph_bytes: int = 0,
    fp16_boundaries: bool = False,
) -> SimpleNamespace:
    """`graph_bytes` are the weights of each graph; with `fp16_boundaries` all that may cross in FP16 does."""
    forms = Forms(("fp16",), stage_a if shape.traits.selects else None, cross_attention)
    io = graph_io(shape, forms)
    io = with_fp16(io, boundaries_of(io) if fp16_boundaries else ())
    graphs = {
        name: GraphEntry((FileEntry(name, graph_bytes, ""),), *tensor_entries(graph), precision, 0, 0)
        for name, graph in io.items()
    }
    return SimpleNamespace(model=shape, stage_a=forms.stage_a, graphs=graphs)
