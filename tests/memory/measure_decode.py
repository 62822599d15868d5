"""What decoding a question's passages costs by store codec: `python -m tests.memory.measure_decode [--width 768]`.

An ONNX graph of each codec's decoder alone reads random codes with random codebooks, one thread, the codecs in turn.
Prints JSON: CPU milliseconds, medians.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from io import BytesIO
from typing import Any

import numpy as np
import onnxruntime
import torch

from glimmer_export.exporter.stages import CodecDecoder
from glimmer_export.runtime.codecs import codec_layout

CODECS = ("fp16", "int8", "int4", "rq4x", "pq8x", "rq8x", "pq16x", "rq16x")
OPSET = 17


def drawn(generator: np.random.Generator, dtype: str, shape: tuple[int, ...]) -> Any:
    """Random codes or values, none of them 0."""
    if dtype == "uint8":
        return generator.integers(1, 256, shape, dtype=np.uint8)
    return generator.uniform(0.5, 1.5, shape).astype(dtype)


def decoder(codec: str, options: argparse.Namespace) -> tuple[onnxruntime.InferenceSession, dict[str, Any]]:
    """A session of the decoder, and what it reads."""
    layout, generator = codec_layout(codec, options.width), np.random.default_rng(0)
    model = CodecDecoder(codec, options.width)
    places = (1, options.passages)
    shapes = {tensor.name: (tensor.dtype, (*places, options.tokens, *tensor.shape)) for tensor in layout.per_token}
    shapes |= {tensor.name: (tensor.dtype, (*places, *tensor.shape)) for tensor in layout.per_passage}
    shapes |= {tensor.name: (tensor.dtype, tensor.shape) for tensor in layout.arrays}
    values = {name: drawn(generator, *shapes[name]) for name in model.names}
    graph = BytesIO()
    torch.onnx.export(
        model, tuple(map(torch.from_numpy, values.values())), graph, dynamo=False, opset_version=OPSET,
        input_names=list(values), output_names=["decoded"],
    )
    settings = onnxruntime.SessionOptions()
    settings.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(graph.getvalue(), settings, providers=["CPUExecutionProvider"])
    read = {entry.name for entry in session.get_inputs()}
    return session, {name: array for name, array in values.items() if name in read}


def main() -> None:
    """Measure, and print JSON."""
    parser = argparse.ArgumentParser()
    for name, default in (("width", 768), ("passages", 25), ("tokens", 304), ("rounds", 20)):
        parser.add_argument(f"--{name}", type=int, default=default)
    options = parser.parse_args()
    decoders = {codec: decoder(codec, options) for codec in CODECS}
    times: dict[str, list[float]] = {codec: [] for codec in CODECS}
    for _ in range(options.rounds + 1):
        for codec, (session, values) in decoders.items():
            start = time.process_time()
            session.run(None, values)
            times[codec].append(1e3 * (time.process_time() - start))
    report = {codec: round(statistics.median(found[1:]), 1) for codec, found in times.items()}
    sys.stdout.write(json.dumps(report) + "\n")


if __name__ == "__main__":
    main()
