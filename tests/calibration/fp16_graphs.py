"""What the tests of FP16 share: graphs of a variant, their inputs and ranges, and a plain run of a graph in memory."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import onnxruntime

from glimmer_export.calibration.ranges import TensorRange
from glimmer_export.calibration.tracked import TrackedRanges
from glimmer_export.exporter.graphs.samples import Sizes, sample_inputs
from glimmer_export.runtime.contract import LOG_PROBABILITY, read_manifest
from tests.exported import Exported, load_graph

Arrays = dict[str, np.ndarray]

SIZES = Sizes(2, passages=3, selected=2, question=4, passage=6, encoder_tokens=10, prefix=3, cache_length=5)


def graphs_of(source: Exported | Path) -> Iterator[tuple[Path, Arrays]]:
    """Every graph file of a variant or bundle, with inputs of which a passage is wholly absent."""
    bundle = source if isinstance(source, Path) else source.bundle
    manifest = read_manifest(bundle)
    for name, io in manifest.io().items():
        yield bundle / "graphs" / f"{name}.onnx", sample_inputs(io, manifest.model, SIZES, seed=1)


def run(model: ir.Model, inputs: Mapping[str, np.ndarray], *, optimised: bool = False) -> Arrays:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    if not optimised:
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    weights = (value.const_value for value in model.graph.initializers.values())
    for folder in {str(weight.base_dir) for weight in weights if isinstance(weight, ir.ExternalTensor)}:
        # A graph that is given as bytes has no folder of its own.
        options.add_session_config_entry("session.model_external_initializers_file_folder_path", folder)
    session = onnxruntime.InferenceSession(
        ir.to_proto(model).SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    names = [output.name for output in session.get_outputs()]
    wanted = {value.name: inputs[value.name] for value in session.get_inputs()}
    return dict(zip(names, session.run(names, wanted), strict=True))


def every_value(model: ir.Model, inputs: Mapping[str, np.ndarray]) -> Arrays:
    """All float values of a graph by name."""
    model = model.clone()
    outputs = set(model.graph.outputs)
    for node in model.graph:
        model.graph.outputs.extend(
            value for value in node.outputs if value.dtype == ir.DataType.FLOAT and value not in outputs
        )
    found = {**run(model, inputs), **inputs}
    return {name: values for name, values in found.items() if values.dtype.kind == "f"}


def error_scales(model: ir.Model, inputs: Mapping[str, np.ndarray]) -> Arrays:
    """What each float output's error is measured by: its own values, or for a token's log-probability twice the logits.

    That is a difference of two numbers that each move as far as a logit, however near to 0 it comes.
    """
    scales = {name: values for name, values in run(model, inputs).items() if values.dtype.kind == "f"}
    if LOG_PROBABILITY in scales:
        (chosen,) = (node for node in model.graph if node.op_type == "ArgMax")
        scales[LOG_PROBABILITY] = 2 * every_value(model, inputs)[chosen.inputs[0].name]
    return scales


def tracked(model: ir.Model, batches: Sequence[Mapping[str, np.ndarray]]) -> TrackedRanges:
    """The ranges of an FP32 graph; infinities, which are scores of absent passages, left aside."""
    ranges: dict[str, TensorRange] = {}
    for inputs in batches:
        for name, values in every_value(model, inputs).items():
            finite = values[np.isfinite(values)].astype(np.float64)
            if finite.size:
                low, high = float(finite.min()), float(finite.max())
                if name in ranges:
                    low, high = min(low, ranges[name].minimum), max(high, ranges[name].maximum)
                ranges[name] = TensorRange(low, high, finite.size, 1.0, np.zeros(1, np.int64), None)
    return TrackedRanges(ranges)


def inflated(path: Path, exponent: int) -> ir.Model:
    """The same function, epsilon aside, with the stream and its outputs 2**exponent larger."""
    model = load_graph(path)
    for name, value in model.graph.initializers.items():
        if name == "shared.table" or name.endswith((".o.weight", ".wo.weight")):
            value.const_value = ir.tensor(value.const_value.numpy() * np.float32(2.0**exponent), name=name)
    return model


def node_types(model: ir.Model) -> list[str]:
    return [node.op_type for node in model.graph]


def dtypes(values: Any) -> list[tuple[str, str]]:
    return [(value.name, str(value.dtype)) for value in values]
