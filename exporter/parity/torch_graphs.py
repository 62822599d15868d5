"""The torch stages in the place of graphs: so a reference can be observed, and mixed with a bundle's graphs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

from glimmer_export.runtime.backends import Array, Graph
from glimmer_export.runtime.contract import Forms, GraphIO, codec_of, graph_io, stage_of

if TYPE_CHECKING:
    from torch import nn

    from glimmer_export.exporter.stages import GlimmerModel

__all__ = ["StageGraph", "graphs_from_model"]


class StageGraph:
    """One stage of the torch model, run as a graph is."""

    def __init__(self, stage: nn.Module, io: GraphIO, codec: str) -> None:
        self._stage, self._io, self._codec = stage, io, codec

    def run(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """Inputs and outputs are those of the graph that is traced from the stage."""
        from glimmer_export.exporter.graphs.check import run_stage

        return run_stage(self._stage, self._io, inputs, self._codec)


def graphs_from_model(model: GlimmerModel, forms: Forms, codec: str | None) -> dict[str, Graph]:
    """The graphs that answer, of a bundle in these forms, for memory in a codec, by their stages, in torch and FP32."""
    from glimmer_export.exporter.stages import stage_from_model

    io = graph_io(model.config.shape, replace(forms, codecs=() if codec is None else (codec,), both_forms=False))
    return {
        stage_of(name): StageGraph(stage_from_model(model, name, forms), tensors, codec_of(name))
        for name, tensors in io.items()
    }
