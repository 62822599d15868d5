"""Our own stages run by torch, in FP16 or BF16, on the inputs that the graphs got: what an engine gains over torch."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from runtime.codecs import decode_fp16
from runtime.contract import BundleManifest
from tests.gpu.bundles import Model

__all__ = ["TorchStages"]


class TorchStages:
    """The checkpoint's stages on a device in one dtype, such as "bfloat16"."""

    def __init__(self, model: Model, manifest: BundleManifest, device: str, dtype: str) -> None:
        import torch

        from exporter.checkpoint import model_from_checkpoint, read_checkpoint

        self._device, self._dtype = device, getattr(torch, dtype)
        self._manifest = manifest
        self._model = model_from_checkpoint(read_checkpoint(model.checkpoint)).to(device=device, dtype=self._dtype)

    def work(self, graph: str, inputs: Sequence[Mapping[str, Any]], at_once: int) -> Callable[[int], None]:
        """`at_once` runs of a stage, on one set of host inputs after the other, then a wait."""
        import torch

        stage = self._stage(graph)
        placed = [self._arguments(graph, stage, row) for row in inputs]
        wait = torch.cuda.synchronize if self._device == "cuda" else (lambda: None)

        def work(run: int) -> None:
            with torch.inference_mode():
                for turn in range(at_once):
                    stage(*placed[(run * at_once + turn) % len(placed)])
            wait()

        return work

    def outputs(self, graph: str, inputs: Mapping[str, Any]) -> list[Any]:
        """One run's outputs as the host's arrays, in the order of the graph's."""
        import torch

        stage = self._stage(graph)
        with torch.inference_mode():
            found = stage(*self._arguments(graph, stage, inputs))
        return [value.cpu().numpy() for value in (found if isinstance(found, tuple) else (found,))]

    def _stage(self, graph: str) -> Any:
        from exporter.stages import stage_from_model

        return stage_from_model(self._model, graph, self._manifest.forms)

    def _arguments(self, graph: str, stage: Any, row: Mapping[str, Any]) -> list[Any]:
        from exporter.stages import applies_scale

        tensors = self._manifest.io()[graph].inputs
        values = _decoded({tensor.name: row[tensor.name] for tensor in tensors}, applied=applies_scale(stage))
        return [self._placed(values[tensor.name]) for tensor in tensors if tensor.name in values]

    def _placed(self, array: Any) -> Any:
        import torch

        tensor = torch.from_numpy(np.ascontiguousarray(array)).to(self._device)
        return tensor.to(self._dtype) if tensor.is_floating_point() else tensor


def _decoded(values: dict[str, Any], *, applied: bool) -> dict[str, Any]:
    """Memory decoded and selected, which are graphs of their own in front of a stage; their time is not counted."""
    if applied:
        return {**values, "memory": values["memory"].astype(np.float32)}
    if "memory_scale" in values:
        values = {**values, "memory": decode_fp16(values["memory"], values["memory_scale"])}
        del values["memory_scale"]
        if "selected" in values:
            selected = values.pop("selected")
            for name in ("memory", "memory_mask"):
                rows = [passages[places] for passages, places in zip(values[name], selected, strict=True)]
                values[name] = np.stack(rows)
    return values
