"""Each stage is traced once for all tests that export it: tracing is most of what an export takes.

What the tracer makes of a stage follows from its modules, their settings and weights, and from the graph's I/O. Codecs
are traced anew each time: a test may register one under any name, and they are small.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from numpy.typing import NDArray
from torch import nn

from glimmer_export.exporter.graphs import trace
from glimmer_export.exporter.stages import CodecDecoder
from glimmer_export.runtime.contract import GraphIO, ModelShape
from tests.once import Once

__all__ = ["traced_once"]

MODULE = vars(nn.Module())
"""What every module has, of which tracing asks but whether it is in training."""
View = tuple[str, tuple[int, ...], tuple[int, ...]]
"""A weight of the stage by its name, and as which view of it the graph has it: shape, and strides in bytes."""


@pytest.fixture(scope="session", autouse=True)
def traced_once(once: Once) -> Iterator[None]:
    """`graph_from_stage`, called by the exporter, reads what an earlier call has traced of the same."""
    real = trace.graph_from_stage

    def graph_from_stage(stage: nn.Module, io: GraphIO, shape: ModelShape) -> ir.Model:
        if any(isinstance(module, CodecDecoder) for module in stage.modules()):
            return real(stage, io, shape)

        def make(directory: Path) -> None:
            _write(directory, real(stage, io, shape), stage)

        return _read(once(f"traced {_digest(stage, io, shape)}", make, for_all_runs=True), stage)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(trace, "graph_from_stage", graph_from_stage)
        yield


def _digest(stage: nn.Module, io: GraphIO, shape: ModelShape) -> str:
    """SHA-256 of all that the tracer sees of a stage."""
    digest = hashlib.sha256(repr((io, shape)).encode())
    for name, module in stage.named_modules():
        settings = {key: value for key, value in vars(module).items() if key == "training" or key not in MODULE}
        digest.update(repr((name, type(module), settings)).encode())
    places: dict[int, str] = {}
    for name, weight in _weights(stage).items():
        tied = places.setdefault(_place(weight), name)
        digest.update(repr((name, tied, weight.dtype, weight.shape)).encode())
        digest.update(np.ascontiguousarray(weight).data)
    return digest.hexdigest()


def _weights(stage: nn.Module) -> dict[str, NDArray[Any]]:
    """Parameters and buffers where they lie in memory, under each of their names."""
    found = [*stage.named_parameters(remove_duplicate=False), *stage.named_buffers(remove_duplicate=False)]
    return {name: tensor.detach().numpy() for name, tensor in found}


def _place(weight: NDArray[Any]) -> int:
    place: int = weight.__array_interface__["data"][0]
    return place


def _write(directory: Path, graph: ir.Model, stage: nn.Module) -> None:
    """The graph, and which of its weights are views of the stage's: an export tells by their place whose they are."""
    places = {_place(weight): name for name, weight in _weights(stage).items()}
    views: dict[str, View] = {}
    for name, value in graph.graph.initializers.items():
        assert value.const_value is not None
        array = value.const_value.numpy()
        if (source := places.get(_place(array))) is not None:
            views[name] = source, array.shape, array.strides
    (directory / "views.json").write_text(json.dumps(views), encoding="utf-8")
    onnx.save(ir.serde.serialize_model(graph), directory / "graph.onnx")


def _read(directory: Path, stage: nn.Module) -> ir.Model:
    graph = ir.serde.deserialize_model(onnx.load(directory / "graph.onnx"))
    weights = _weights(stage)
    for name, (source, shape, strides) in json.loads((directory / "views.json").read_text(encoding="utf-8")).items():
        view = np.lib.stride_tricks.as_strided(weights[source], shape, strides)
        graph.graph.initializers[name].const_value = ir.tensor(view, name=name)
    return graph
