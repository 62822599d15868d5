"""Our own stages run by torch, in any dtype, from a graph's inputs to its outputs: what an engine gains over torch."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from glimmer_export.runtime.contract import Forms, GraphIO, ModelShape, codec_of, graph_io

__all__ = ["Described", "ModelGraphs", "StageOfGraph", "TorchStages"]


class Described(Protocol):
    """A model and its graphs, as a bundle's manifest describes them."""

    @property
    def model(self) -> ModelShape:
        """Its sizes."""
        ...

    @property
    def forms(self) -> Forms:
        """The graphs' forms."""
        ...

    @property
    def fp16_boundaries(self) -> tuple[str, ...]:
        """What crosses the graphs' boundaries in FP16."""
        ...

    def io(self) -> dict[str, GraphIO]:
        """The graphs, and what each takes and gives."""
        ...


@dataclass(frozen=True)
class ModelGraphs:
    """The same of a checkpoint from which nothing was exported."""

    model: ModelShape
    forms: Forms
    fp16_boundaries: tuple[str, ...] = ()

    @classmethod
    def of(cls, checkpoint: Path, target: str) -> ModelGraphs:
        """In the forms that an export for a target would have, for memory in fp16."""
        from glimmer_export.exporter.bundle.forms import FormOptions, choose_forms
        from glimmer_export.exporter.checkpoint import read_checkpoint

        config = read_checkpoint(checkpoint).config
        return cls(config.shape, choose_forms(config, FormOptions(target=target, codecs=("fp16",))))

    def io(self) -> dict[str, GraphIO]:
        """As Described."""
        return graph_io(self.model, self.forms)


class StageOfGraph:
    """A stage with its codec's decoder in front of it, on tensors that are already if the stage is.

    It takes and gives what its graph does, dtypes included; floats are computed with in the stage's dtype.
    """

    def __init__(self, stage: Any, io: GraphIO, codec: str, d_model: int, dtype: Any) -> None:
        from glimmer_export.exporter.stages import CodecDecoder, SelectedMemory, applies_scale

        self._stage, self._dtype = stage, dtype
        self._inputs = [tensor.name for tensor in io.inputs]
        self._outputs = [tensor.dtype for tensor in io.outputs]
        self._decode: Any = None
        if "memory" in self._inputs:
            decoder = CodecDecoder(codec, d_model, scaled=not applies_scale(stage))
            self._codes = decoder.names
            self._selects = "selected" in self._inputs
            self._decode = SelectedMemory(decoder) if self._selects else decoder

    def __call__(self, *tensors: Any) -> list[Any]:
        """Inputs in the order of the graph's -> outputs in theirs."""
        import torch

        values = dict(zip(self._inputs, tensors, strict=True))
        if self._decode is not None:
            values = self._decoded(values)
        found = self._stage(*(self._cast(values[name]) for name in self._inputs if name in values))
        outputs = found if isinstance(found, tuple) else (found,)
        return [value.to(getattr(torch, dtype)) for value, dtype in zip(outputs, self._outputs, strict=True)]

    def _decoded(self, values: dict[str, Any]) -> dict[str, Any]:
        codes = [values.pop(name) for name in self._codes]
        if self._selects:
            memory, mask = self._decode(*codes, values["memory_mask"], values.pop("selected"))
            return {**values, "memory": memory, "memory_mask": mask}
        return {**values, "memory": self._decode(*codes)}

    def _cast(self, value: Any) -> Any:
        return value.to(self._dtype) if value.is_floating_point() else value


class TorchStages:
    """A checkpoint's stages on a device in one dtype, such as "bfloat16"; they share the weights."""

    def __init__(self, checkpoint: Path, device: str, dtype: str) -> None:
        import torch

        from glimmer_export.exporter.checkpoint import read_checkpoint
        from glimmer_export.exporter.stages import model_from_checkpoint

        self.device, self._dtype = device, getattr(torch, dtype)
        self._model = model_from_checkpoint(read_checkpoint(checkpoint)).to(device=device, dtype=self._dtype)

    def stage(self, manifest: Described, graph: str) -> StageOfGraph:
        """What a graph computes."""
        from glimmer_export.exporter.stages import stage_from_model

        module = stage_from_model(self._model, graph, manifest.forms)
        return StageOfGraph(module, manifest.io()[graph], codec_of(graph), manifest.model.d_model, self._dtype)

    def work(
        self, manifest: Described, graph: str, inputs: Sequence[Mapping[str, Any]], at_once: int
    ) -> Callable[[int], None]:
        """`at_once` runs of a stage, on one set of host inputs after the other, then a wait."""
        import torch

        stage = self.stage(manifest, graph)
        placed = [self._placed(manifest.io()[graph], row) for row in inputs]
        wait: Callable[[], Any] = torch.cuda.synchronize if self.device == "cuda" else (lambda: None)

        def work(run: int) -> None:
            with torch.inference_mode():
                for turn in range(at_once):
                    stage(*placed[(run * at_once + turn) % len(placed)])
            wait()

        return work

    def outputs(self, manifest: Described, graph: str, inputs: Mapping[str, Any]) -> list[Any]:
        """One run's outputs as the host's arrays, in the order of the graph's."""
        import torch

        with torch.inference_mode():
            found = self.stage(manifest, graph)(*self._placed(manifest.io()[graph], inputs))
        return [value.cpu().numpy() for value in found]

    def _placed(self, io: GraphIO, row: Mapping[str, Any]) -> list[Any]:
        import torch

        return [torch.from_numpy(np.ascontiguousarray(row[tensor.name])).to(self.device) for tensor in io.inputs]
