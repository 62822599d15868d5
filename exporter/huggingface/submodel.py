"""A whole graph as one torch module: memory selected and decoded as a store has it, then the graph's stage."""

from __future__ import annotations

import inspect
from typing import Any

from torch import Tensor, nn

from glimmer_export.exporter.huggingface.configuration import GlimmerConfig
from glimmer_export.exporter.stages import CodecDecoder, SelectedMemory, applies_scale
from glimmer_export.runtime.contract import GraphIO, codec_of

__all__ = ["Submodel"]


class Submodel(nn.Module):
    """A graph's inputs -> its outputs, in the order of the contract, as optimum's exporter takes a model.

    `forward` has the graph's inputs for parameters, which optimum and the tracer look up by name. A cache's name has
    dots, which no parameter can have: all caches come as one list, `past_key_values`. Weights are the stage's.
    """

    def __init__(self, stage: nn.Module, graph: str, io: GraphIO, config: GlimmerConfig) -> None:
        super().__init__()
        self.stage = stage
        self.config = config
        self.names = [tensor.name for tensor in io.inputs]
        self.decoder = None
        if "memory" in self.names:
            self.decoder = CodecDecoder(codec_of(graph), config.d_model, scaled=not applies_scale(stage))
        parameters = [
            inspect.Parameter(name, inspect.Parameter.POSITIONAL_OR_KEYWORD)
            for name in dict.fromkeys(name.partition(".")[0] for name in self.names)
        ]
        signature = inspect.Signature(parameters)

        def forward(*inputs: Tensor | list[Tensor], **named: Tensor | list[Tensor]) -> tuple[Tensor, ...]:
            return self._run(signature.bind(*inputs, **named).arguments)

        vars(forward)["__signature__"] = signature
        self.forward = forward

    def _run(self, inputs: dict[str, Any]) -> tuple[Tensor, ...]:
        tensors: list[Tensor] = []
        for value in inputs.values():
            tensors.extend(value if isinstance(value, (list, tuple)) else [value])
        if self.decoder is None:
            outputs = self.stage(*tensors)
        else:
            outputs = self.stage(**self._decoded(self.decoder, dict(zip(self.names, tensors, strict=True))))
        return outputs if isinstance(outputs, tuple) else (outputs,)

    @staticmethod
    def _decoded(decoder: CodecDecoder, inputs: dict[str, Tensor]) -> dict[str, Tensor]:
        """The graph's inputs with memory as the stage takes it."""
        codes = [inputs.pop(name) for name in decoder.names]
        if "selected" in inputs:
            taken = SelectedMemory(decoder)(*codes, inputs["memory_mask"], inputs.pop("selected"))
            inputs["memory"], inputs["memory_mask"] = taken
        else:
            inputs["memory"] = decoder(*codes)
        return inputs
