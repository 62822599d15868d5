"""Torch stage -> ONNX graph, by torch.export with every varying dimension of the contract left dynamic.

The part in front of a stage, which selects memory and decodes it from a store's codec, is traced on its own.
"""

from __future__ import annotations

import dataclasses
import gc
import inspect
import logging
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any
from unittest import mock

from glimmer_export.exporter.graphs.rewrites import NameNodes
from glimmer_export.exporter.graphs.samples import Sizes, sample_inputs
from glimmer_export.runtime.contract import GraphIO, IOTensor, ModelShape, codec_inputs

if TYPE_CHECKING:
    import onnx_ir as ir
    from torch import nn

__all__ = ["OPSET", "TracedStages", "graph_from_stage", "memory_prefix"]

OPSET = 20
"""TensorRT 10 before 10.14 stops at opset 20; Gelu needs it."""

TRACED_SIZES = Sizes(
    batch=2, passages=6, selected=3, question=5, passage=7, encoder_tokens=26, prefix=6, cache_length=9, positions=8,
    shortlisted=4,
)
"""No size is 1 and few are equal, so that the tracer neither specialises a dimension nor ties two together."""


class TracedStages:
    """Traces a stage once for graphs that follow each other and differ in their store codec alone."""

    def __init__(self) -> None:
        self._last: tuple[type[nn.Module], GraphIO, ir.Model] | None = None

    def graph(self, stage: nn.Module, io: GraphIO, shape: ModelShape) -> ir.Model:
        """A graph of the stage to be rewritten at will."""
        if self._last is None or self._last[:2] != (type(stage), io):
            self._last = None  # let go of it before the next is made
            self._last = (type(stage), io, graph_from_stage(stage, io, shape))
        return self._last[2].clone()


def graph_from_stage(stage: nn.Module, io: GraphIO, shape: ModelShape) -> ir.Model:
    """Trace a stage whose forward takes `io.inputs` in order; opset 20, standard operators only."""
    import torch

    sample = sample_inputs(io, shape, TRACED_SIZES, seed=0)
    arguments = tuple(torch.from_numpy(sample[tensor.name]) for tensor in io.inputs)
    dynamic: list[Any] = [
        {axis: dim for axis, dim in enumerate(tensor.dims) if isinstance(dim, str)} for tensor in io.inputs
    ]
    parameters = list(inspect.signature(stage.forward).parameters.values())
    if parameters[-1].kind is inspect.Parameter.VAR_POSITIONAL:
        fixed = len(parameters) - 1
        dynamic = [*dynamic[:fixed], tuple(dynamic[fixed:])]
    with _quiet(), _shared_registry(), _uncollected(), _tied_sizes(stage, io):
        program = torch.onnx.export(
            stage,
            arguments,
            dynamo=True,
            opset_version=OPSET,
            input_names=[tensor.name for tensor in io.inputs],
            output_names=[tensor.name for tensor in io.outputs],
            dynamic_shapes=tuple(dynamic),
            verbose=False,
        )
    if program is None:
        raise RuntimeError("torch.onnx.export returned no program")
    return program.model


@contextmanager
def _tied_sizes(stage: nn.Module, io: GraphIO) -> Iterator[None]:
    """Tell the tracer before a stage runs that sizes of one name in the contract are one size.

    It gives each dimension of each input a symbol of its own and unites two where it sees them meet. Where it sees but
    a product of theirs meet, as where batch and passages are flattened into rows, it may find no way to unite them:
    torch 2.11 then refuses the stage, later releases leave a graph whose sizes are not known to be the same.
    """
    import torch

    def tie(_stage: nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
        sizes: dict[str, int] = {}
        for tensor, value in zip(io.inputs, inputs, strict=True):
            for dim, size in zip(tensor.dims, value.shape, strict=True):
                if isinstance(dim, str):
                    torch._check(size == sizes.setdefault(dim, size))  # noqa: SLF001 - documented, and this is its name

    handle = stage.register_forward_pre_hook(tie)
    try:
        yield
    finally:
        handle.remove()


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence what the tracer says of packages we do not use and of dimensions that share a name on purpose."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)


@contextmanager
def _shared_registry() -> Iterator[None]:
    """Have all traces read one table of torch's: what each of its operators is in ONNX.

    It takes a tenth of a small export, is built anew for each graph, and is only read; no parameter takes it. A torch
    that keeps it elsewhere builds its own.
    """
    owner: Any = None
    with suppress(ImportError, AttributeError):
        from torch.onnx._internal.exporter._registration import ONNXRegistry

        owner, build = ONNXRegistry, ONNXRegistry.from_torchlib
    if owner is None:
        yield
        return

    def shared(opset_version: int) -> object:
        return _registry(build, opset_version)

    with mock.patch.object(owner, "from_torchlib", staticmethod(shared)):
        yield


@cache
def _registry(build: Callable[[int], object], opset_version: int) -> object:
    return build(opset_version)


@contextmanager
def _uncollected() -> Iterator[None]:
    """Look for no garbage while a stage is traced: most of what the tracer makes lives as long as the trace does."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


@dataclass(frozen=True)
class MemoryPrefix:
    """A prefix graph, and what the stage behind it takes: `replaces` are the stage's inputs, one a prefix output."""

    graph: ir.Model
    replaces: tuple[str, ...]
    stage_io: GraphIO


def memory_prefix(stage: nn.Module, io: GraphIO, shape: ModelShape, codec: str) -> MemoryPrefix | None:
    """The prefix of a stage whose graph has this I/O; None if it reads no memory.

    A graph that reads memory and `selected` takes the selected passages first and decodes them alone. A stage that
    applies the codec's scale itself keeps `memory_scale` as an input.
    """
    from glimmer_export.exporter.stages import CodecDecoder, SelectedMemory, applies_scale

    inputs = {tensor.name: tensor for tensor in io.inputs}
    if "memory" not in inputs:
        return None
    selects, scaled = "selected" in inputs, not applies_scale(stage)
    codes = tuple(tensor for tensor in codec_inputs(shape, codec) if scaled or tensor.name != "memory_scale")
    decoder = CodecDecoder(codec, shape.d_model, scaled=scaled)
    passages = inputs["selected"].dims[1] if selects else "passages"
    states = IOTensor("memory_states", "float32", ("batch", passages, "passage", shape.d_model))
    mask = IOTensor("memory_states_mask", "int32", ("batch", passages, "passage"))
    if selects:
        prefix_io = GraphIO((*codes, inputs["memory_mask"], inputs["selected"]), (states, mask))
        graph = graph_from_stage(SelectedMemory(decoder), prefix_io, shape)
    else:
        graph = graph_from_stage(decoder, GraphIO(codes, (states,)), shape)
    NameNodes()(graph)
    gone = {tensor.name for tensor in codes} | ({"selected"} if selects else set())
    stage_inputs = []
    for tensor in io.inputs:
        if tensor.name == "memory":
            stage_inputs.append(dataclasses.replace(states, name="memory"))
        elif tensor.name == "memory_mask":
            stage_inputs.append(dataclasses.replace(mask, name="memory_mask"))
        elif tensor.name not in gone:
            stage_inputs.append(tensor)
    replaces = ("memory", "memory_mask") if selects else ("memory",)
    return MemoryPrefix(graph, replaces, GraphIO(tuple(stage_inputs), io.outputs))
