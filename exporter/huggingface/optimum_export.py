"""Our graphs by optimum's exporter: what `main_export` wants to know of a model that is none of optimum's own.

    from glimmer_export.exporter.huggingface.optimum_export import onnx_configs, submodels
    from optimum.exporters.onnx import main_export
    from transformers import AutoConfig

    config = AutoConfig.from_pretrained("checkpoint")
    main_export(
        "checkpoint", "onnx", task="text2text-generation", library_name="transformers",
        custom_onnx_configs=onnx_configs(config), fn_get_submodels=submodels,
    )

The graphs have the names, inputs and outputs of a bundle's, memory in a store's codec included, and give the same
outputs within FP32's tolerance. The files are others: optimum-onnx 0.1 traces with torch's older exporter. They are no
bundle either: what a device runs, `glimmer_export.exporter.bundle.export_bundle` writes.
"""

from __future__ import annotations

import inspect
from typing import Any, cast

import torch
from optimum.exporters.onnx.base import OnnxConfig
from optimum.exporters.onnx.model_patcher import PatchingSpec
from optimum.exporters.tasks import TasksManager
from optimum.utils import NormalizedConfig
from torch import Tensor, nn

from glimmer_export.exporter.bundle.forms import DEFAULT_FORMS, FormOptions, choose_forms
from glimmer_export.exporter.graphs.samples import sample_inputs
from glimmer_export.exporter.graphs.trace import OPSET, TRACED_SIZES
from glimmer_export.exporter.huggingface.configuration import GlimmerConfig
from glimmer_export.exporter.huggingface.modeling import GlimmerForConditionalGeneration
from glimmer_export.exporter.stages import CodecDecoder, SelectedMemory, applies_scale, stage_from_model
from glimmer_export.exporter.tolerances import TOLERANCES
from glimmer_export.runtime.contract import GraphIO, IOTensor, OptionError, codec_of, graph_io

__all__ = ["GraphOnnxConfig", "onnx_configs", "submodels"]


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


class GraphOnnxConfig(OnnxConfig):  # type: ignore[misc]  # optimum has no types
    """One graph of the contract, as optimum describes a graph. The sizes that optimum traces at are ours, not its."""

    NORMALIZED_CONFIG_CLASS = NormalizedConfig
    DEFAULT_ONNX_OPSET = OPSET
    ATOL_FOR_VALIDATION = TOLERANCES["t5_logits"].atol

    def __init__(self, config: GlimmerConfig, io: GraphIO) -> None:
        super().__init__(config)
        self.io = io

    @property
    def PATCHING_SPECS(self) -> list[PatchingSpec]:  # noqa: N802  # optimum's name
        """What replaces what the older tracer cannot do; a new list, as optimum appends to it."""
        return [PatchingSpec(torch.Tensor, "unflatten", _unflatten, torch.Tensor.unflatten)]

    @property
    def inputs(self) -> dict[str, dict[int, str]]:
        """The varying axes of each input."""
        return _axes(self.io.inputs)

    @property
    def outputs(self) -> dict[str, dict[int, str]]:
        """The varying axes of each output."""
        return _axes(self.io.outputs)

    def generate_dummy_inputs(self, framework: str = "pt", **_sizes: Any) -> dict[str, Any]:
        """Random inputs as torch tensors (`pt`) or arrays (`np`), those of the caches as one list."""
        sample = sample_inputs(self.io, self._config.checkpoint_config.shape, TRACED_SIZES, seed=0)
        inputs: dict[str, Any] = {}
        for name, array in sample.items():
            value: Any = array if framework == "np" else torch.from_numpy(array)
            root, dot, _rest = name.partition(".")
            if dot:
                inputs.setdefault(root, []).append(value)
            else:
                inputs[root] = value
        return inputs

    def flatten_output_collection_property(self, name: str, field: list[Any]) -> dict[str, Any]:
        """A list of `generate_dummy_inputs` by the graph's own names."""
        names = [tensor.name for tensor in self.io.inputs if tensor.name.startswith(f"{name}.")]
        return dict(zip(names, field, strict=True))


def onnx_configs(config: GlimmerConfig, forms: FormOptions = DEFAULT_FORMS) -> dict[str, GraphOnnxConfig]:
    """`custom_onnx_configs` for a config that AutoConfig read; raises OptionError for forms that do not fit."""
    settings = config.checkpoint_config
    graphs = graph_io(settings.shape, choose_forms(settings, forms))
    return {name: GraphOnnxConfig(config, io) for name, io in graphs.items()}


def submodels(model: GlimmerForConditionalGeneration, forms: FormOptions = DEFAULT_FORMS) -> dict[str, Submodel]:
    """`fn_get_submodels`: a module for each graph, sharing the model's weights.

    Other forms than the default, the same as in `onnx_configs`, are given by `functools.partial(submodels, forms=...)`.
    Raises OptionError for forms that do not fit, and if the model is not in float32.
    """
    if model.dtype != torch.float32:
        raise OptionError(
            "dtype", expected="fp32, as the graphs' inputs and outputs are", found=str(model.dtype),
            fix="export in fp32; `glimmer-export quantize` makes bundles of another precision",
        )
    config = cast(GlimmerConfig, model.config)
    settings = config.checkpoint_config
    chosen = choose_forms(settings, forms)
    return {
        name: Submodel(stage_from_model(model.reference, name, chosen), name, io, config)
        for name, io in graph_io(settings.shape, chosen).items()
    }


def _unflatten(tensor: Tensor, dim: int, sizes: tuple[int, ...]) -> Tensor:
    """`Tensor.unflatten` by a reshape: behind an Unflatten the older tracer takes all sizes for constants."""
    dim %= tensor.dim()
    return tensor.reshape(*tensor.shape[:dim], *sizes, *tensor.shape[dim + 1 :])


def _axes(tensors: tuple[IOTensor, ...]) -> dict[str, dict[int, str]]:
    return {
        tensor.name: {axis: dim for axis, dim in enumerate(tensor.dims) if isinstance(dim, str)} for tensor in tensors
    }


def _know_our_models() -> None:
    """Let optimum take our models for transformers': it goes by the name of the module of a model's class."""
    infer = TasksManager.infer_library_from_model

    def infer_library_from_model(model: Any, *arguments: Any, **options: Any) -> str:
        if isinstance(model, GlimmerForConditionalGeneration):
            return "transformers"
        library: str = infer(model, *arguments, **options)
        return library

    TasksManager.infer_library_from_model = staticmethod(infer_library_from_model)


_know_our_models()
