"""What TensorRT-RTX makes of a graph: the kernels of one run and the bytes that they read and write, by its own log.

    python -m tests.engines.kernels base large BUNDLE -o docs/measurements/kernels.json --capability SM80 SM86 \\
        --batch 1 16 --decoder-layers 2 4

Graphs are those of a bundle, or of the demo, or of random weights of a size, exported here, calibrated on two questions
and quantised in each of PRECISIONS. Each is compiled for one compute capability, for one size of request; the compiler
lists every kernel with the dimensions and types of its tensors. Nothing is run: there need be no GPU. With few decoder
layers a large model takes minutes, and two depths tell what a layer adds. Rows are written one by one, and a second run
goes on behind them.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from itertools import product
from math import prod
from pathlib import Path
from typing import Any

import tensorrt_rtx

from glimmer_export.calibration.calibrate import CalibrationOptions
from glimmer_export.exporter.bundle import FormOptions, export_bundle
from glimmer_export.exporter.bundle.calibrate import calibrate_bundle
from glimmer_export.exporter.bundle.quantize import ANY_SPEED, QuantizeOptions, quantize_bundle
from glimmer_export.exporter.checkpoint.config import parse_config
from glimmer_export.exporter.checkpoint.initialise import RandomWeights
from glimmer_export.exporter.checkpoint.options import ModelOptions, config_from_options
from glimmer_export.exporter.checkpoint.t5_shape import preset
from glimmer_export.exporter.checkpoint.tokenizer import find_tokenizer
from glimmer_export.exporter.checkpoint.write import write_checkpoint
from glimmer_export.exporter.demo.world import CHECKPOINT
from glimmer_export.runtime.bundle import Bundle
from glimmer_export.runtime.contract import GraphIO, ModelShape
from tests.engines.base_size import QUESTIONS

BATCHES = (1, 4, 16)
FORMS = ("absorbed", "cached")
"""Of cross-attention; stage A, the same with either, is counted with the first."""
GRAPHS = {"absorbed": ("live_stage_a", "decoder_step"), "cached": ("cross_kv", "decoder_step")}
CAPABILITY = "SM75"
PRECISIONS = {
    "fp16": QuantizeOptions("fp16", "tensorrt"),
    "int8-fp16": QuantizeOptions("int8-fp16", "tensorrt"),
    "int8-fp16 everywhere": QuantizeOptions("int8-fp16", "tensorrt", gpu=ANY_SPEED),
}
"""In a decoder, INT8 by default only where it is faster on one of the targets; everywhere is `quantize --gpu none`."""
_flag = getattr(tensorrt_rtx.NetworkDefinitionCreationFlag, "STRONGLY_TYPED", None)
STRONGLY_TYPED = 0 if _flag is None else 1 << int(_flag)
BYTES = {"Float": 4, "Half": 2, "Int64": 8, "Int32": 4, "Int8": 1, "UInt8": 1, "Bool": 1}
TENSOR = re.compile(r"Name: [^,]+, Dimensions: \[([\d,]*)\], .*?Datatype: (\w+)")
KERNEL = re.compile(r"Name: (.*?), LayerType: (\w+), Inputs: \[(.*)\], Constants: \[(.*)\], Outputs: \[(.*)\], TacticN")


@dataclass(frozen=True)
class Kernel:
    """One launch: its kind, and dims with bytes of what it reads, of its constants, and of what it writes."""

    name: str
    kind: str
    inputs: tuple[tuple[tuple[int, ...], int], ...]
    constants: tuple[tuple[tuple[int, ...], int], ...]
    outputs: tuple[tuple[tuple[int, ...], int], ...]


def kernels_of(path: Path, dims: Mapping[str, Sequence[int]], capability: str = CAPABILITY) -> list[Kernel]:
    """The kernels of a graph file whose inputs have these dims; raises RuntimeError where it does not compile."""
    said: list[str] = []

    class Log(tensorrt_rtx.ILogger):
        def __init__(self) -> None:
            tensorrt_rtx.ILogger.__init__(self)

        def log(self, _severity: Any, message: str) -> None:
            said.append(message)

    log = Log()
    builder = tensorrt_rtx.Builder(log)
    network = builder.create_network(STRONGLY_TYPED)
    parser = tensorrt_rtx.OnnxParser(network, log)
    parsed = parser.parse_from_file(str(path))
    config = builder.create_builder_config()
    config.profiling_verbosity = tensorrt_rtx.ProfilingVerbosity.DETAILED
    config.num_compute_capabilities = 1
    config.set_compute_capability(getattr(tensorrt_rtx.ComputeCapability, capability), 0)
    profile = builder.create_optimization_profile()
    for name, sizes in dims.items():
        profile.set_shape(name, sizes, sizes, sizes)
    config.add_optimization_profile(profile)
    if not parsed or builder.build_serialized_network(network, config) is None:
        raise RuntimeError("; ".join(said[-5:]))
    listed = next(message for message in said if message.startswith("Layers:"))
    found = [KERNEL.match(line) for line in listed.splitlines()]
    return [
        Kernel(match[1], match[2], *(_tensors(match[place]) for place in (3, 4, 5)))
        for match in found if match is not None and match[2] != "shape_call"
    ]


def _tensors(listed: str) -> tuple[tuple[tuple[int, ...], int], ...]:
    found = []
    for dims, dtype in TENSOR.findall(listed):
        sizes = tuple(int(size) for size in dims.split(",") if size)
        found.append((sizes, prod(sizes) * BYTES[dtype]))
    return tuple(found)


def row_of(kernels: Sequence[Kernel]) -> dict[str, int]:
    """Kernels, bytes of their constants, and of all else that they read and write."""

    def total(place: str) -> int:
        return sum(size for kernel in kernels for _, size in getattr(kernel, place))

    return {
        "kernels": len(kernels), "constant_bytes": total("constants"),
        "activation_bytes": total("inputs") + total("outputs"),
    }


def input_dims(io: GraphIO, sizes: Mapping[str, int]) -> dict[str, list[int]]:
    """Of each input, the sizes of one request for its named dimensions."""
    return {
        tensor.name: [sizes[dim] if isinstance(dim, str) else dim for dim in tensor.dims] for tensor in io.inputs
    }


def sizes_of(shape: ModelShape, batch: int) -> dict[str, int]:
    """One request of the model's own lengths, by the names of dimensions."""
    read = shape.num_selected or shape.num_retrieved
    tokens = shape.question_length + shape.passage_length
    return {
        "batch": batch, "passages": shape.num_retrieved, "selected": shape.num_selected or 0, "tokens": tokens,
        "question": shape.question_length, "passage": shape.passage_length, "encoder_tokens": read * tokens,
        "cache_length": shape.cache_length, "positions": 1,
    }


def made_bundles(size: str, layers: int | None, work: Path) -> Iterator[tuple[str, Path]]:
    """Bundles of a size in both forms and each precision; of `layers` decoder layers, with one of memory and stage B.

    Stage A has its own depth. Weights are random, and two questions calibrate them: what they compute is of no account.
    """
    checkpoint = CHECKPOINT
    if size != "demo":
        checkpoint = work / "checkpoint"
        config = config_from_options(ModelOptions("glimmer"), preset(size), subject=size)
        if layers is not None:
            thin = {"num_memory_layers": 1, "num_stage_b_layers": 1, "num_decoder_layers": layers}
            config = parse_config(config.model_dump() | thin, subject=size)
        tokenizer = find_tokenizer(None, CHECKPOINT / "tokenizer.json")
        write_checkpoint(checkpoint, config, RandomWeights(config, seed=0), tokenizer)
    for form in FORMS:
        fp32 = work / form
        export_bundle(checkpoint, fp32, FormOptions(None, form, codecs=("fp16",)), check=False)
        options = CalibrationOptions(samples=2, given=True, passages_per_question=2, threads=1)
        calibrate_bundle(fp32, None, QUESTIONS, options)
        for precision, how in PRECISIONS.items():
            bundle = work / f"{form}-{precision}"
            quantize_bundle(fp32, bundle, how)
            yield f"{form}, {precision}", bundle


def bundle_graphs(directory: Path) -> Iterator[tuple[str, Path, GraphIO, ModelShape]]:
    """Those of a bundle that are counted."""
    bundle = Bundle.open(directory)
    for name, io in bundle.manifest.io().items():
        if name in GRAPHS[bundle.manifest.cross_attention]:
            yield name, bundle.graph_path(name), io, bundle.manifest.model


def sources(source: str, layers: int | None, work: Path) -> Iterator[tuple[str, Path]]:
    """The bundles that a size or a directory stands for, with their names in the report."""
    if Path(source).is_dir():
        yield Path(source).name, Path(source)
        return
    label = source if layers is None else f"{source}, {layers} decoder layers"
    for name, bundle in made_bundles(source, layers, work):
        yield f"{label}, {name}", bundle


def measure(source: str, layers: int | None, wanted: argparse.Namespace, report: dict[str, Any]) -> None:
    """Add the rows of a size or a bundle to the report, and write it after each."""
    with tempfile.TemporaryDirectory() as folder:
        for label, bundle in sources(source, layers, Path(folder)):
            for name, path, io, shape in bundle_graphs(bundle):
                for capability, batch in product(wanted.capability, wanted.batch):
                    key = f"{label}, {capability}, {name}, batch {batch}"
                    if key not in report["rows"]:
                        kernels = kernels_of(path, input_dims(io, sizes_of(shape, batch)), capability)
                        report["rows"][key] = row_of(kernels)
                        wanted.output.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
                        sys.stdout.write(f"{key}: {report['rows'][key]}\n")
                        sys.stdout.flush()


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--capability", nargs="+", default=[CAPABILITY])
    parser.add_argument("--batch", nargs="+", type=int, default=list(BATCHES))
    parser.add_argument("--decoder-layers", nargs="+", type=int, default=[None], help="of a size; default: its own")
    parser.add_argument("sources", nargs="+", metavar="demo|SIZE|BUNDLE")
    arguments = parser.parse_args()
    found: dict[str, Any] = {
        "date": datetime.now(timezone.utc).date().isoformat(),
        "compiler": f"tensorrt_rtx {tensorrt_rtx.__version__}", "rows": {},
    }
    if arguments.output.exists():
        found = json.loads(arguments.output.read_text(encoding="utf-8"))
    for each, depth in product(arguments.sources, arguments.decoder_layers):
        measure(each, depth, arguments, found)
