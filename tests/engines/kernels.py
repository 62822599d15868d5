"""What TensorRT-RTX makes of a graph: the kernels of one run and the bytes that they read and write, by its own log.

    python -m tests.engines.kernels -o docs/measurements/kernels.json demo base BUNDLE

Graphs are those of a bundle, or exported here in FP16: of the demo, or of random weights of a size. Each is compiled
for one compute capability, for one size of request; the compiler lists every kernel with the dimensions and types of
its tensors. Nothing is run: there need be no GPU. Rows are written one by one, and a second run goes on behind them.
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
from math import prod
from pathlib import Path
from typing import Any

import tensorrt_rtx

from glimmer_export.exporter.bundle import FormOptions, choose_forms
from glimmer_export.exporter.checkpoint import read_checkpoint
from glimmer_export.exporter.checkpoint.init import init_random
from glimmer_export.exporter.checkpoint.options import ModelOptions
from glimmer_export.exporter.demo.world import CHECKPOINT
from glimmer_export.exporter.graphs import GraphExporter, weights_file
from glimmer_export.runtime.bundle import Bundle
from glimmer_export.runtime.contract import GraphIO, ModelShape, graph_io

BATCHES = (1, 4, 16)
FORMS = ("absorbed", "cached")
"""Of cross-attention; stage A, the same with either, is counted with the first."""
GRAPHS = {"absorbed": ("live_stage_a", "decoder_step"), "cached": ("cross_kv", "decoder_step")}
CAPABILITY = "SM75"
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
        "cache_length": shape.cache_length,
    }


def exported_graphs(size: str, form: str, work: Path) -> Iterator[tuple[str, Path, GraphIO, ModelShape]]:
    """A size's graphs in FP16, not calibrated: what they compute is of no account."""
    directory = CHECKPOINT
    if size != "demo":
        directory = work / "checkpoint"
        if not directory.exists():
            init_random(size, directory, ModelOptions("glimmer"), tokenizer=CHECKPOINT / "tokenizer.json")
    checkpoint = read_checkpoint(directory)
    forms = choose_forms(checkpoint.config, FormOptions(None, form, codecs=("fp16",)))
    (work / form).mkdir()
    with weights_file(work / form) as weights:
        exporter = GraphExporter(checkpoint, forms, weights, precision="fp16", check=False)
        for name, io in graph_io(checkpoint.config.shape, forms).items():
            if name in GRAPHS[form]:
                exporter.export(name, io)
    for name, io in graph_io(checkpoint.config.shape, forms).items():
        if name in GRAPHS[form]:
            yield name, work / form / f"{name}.onnx", io, checkpoint.config.shape


def bundle_graphs(directory: Path) -> Iterator[tuple[str, Path, GraphIO, ModelShape]]:
    """Those of a bundle that are counted."""
    bundle = Bundle.open(directory)
    for name, io in bundle.manifest.io().items():
        if name in GRAPHS[bundle.manifest.cross_attention]:
            yield name, bundle.graph_path(name), io, bundle.manifest.model


def measure(source: str, report: dict[str, Any], output: Path) -> None:
    """Add the rows of a size or a bundle to the report, and write it after each."""
    with tempfile.TemporaryDirectory() as folder:
        graphs: list[tuple[str, tuple[str, Path, GraphIO, ModelShape]]] = []
        if Path(source).is_dir():
            graphs = [(Path(source).name, found) for found in bundle_graphs(Path(source))]
        else:
            for form in FORMS:
                graphs += [(f"{source}, {form}, fp16", found) for found in exported_graphs(source, form, Path(folder))]
        for label, (name, path, io, shape) in graphs:
            for batch in BATCHES:
                key = f"{label}, {name}, batch {batch}"
                if key not in report["rows"]:
                    report["rows"][key] = row_of(kernels_of(path, input_dims(io, sizes_of(shape, batch))))
                    output.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
                    sys.stdout.write(f"{key}: {report['rows'][key]}\n")


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("sources", nargs="+", metavar="demo|SIZE|BUNDLE")
    arguments = parser.parse_args()
    found: dict[str, Any] = {
        "date": datetime.now(timezone.utc).date().isoformat(), "capability": CAPABILITY,
        "compiler": f"tensorrt_rtx {tensorrt_rtx.__version__}", "rows": {},
    }
    if arguments.output.exists():
        found = json.loads(arguments.output.read_text(encoding="utf-8"))
    for each in arguments.sources:
        measure(each, found, arguments.output)
