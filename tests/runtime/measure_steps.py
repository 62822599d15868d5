"""Milliseconds of a decoder step of bundles, side by side.

    python -m tests.runtime.measure_steps BUNDLE[=LEVEL] ... [--rounds 6] [--tokens 1760] [--threads 2]

Steps of one row over so many encoder tokens, through the CPU backend as a session opens it: eight in a row of each
bundle in turn, the first of a turn not counted. `=LEVEL` sets MatMulNBits' accuracy level. Beside the times stands the
signal-to-noise ratio of the logits next to those of the first bundle, on equal random inputs.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

import numpy as np
import onnx

from glimmer_export.runtime.backends import Array, Graph, OnnxRuntimeBackend
from glimmer_export.runtime.bundle import Bundle
from glimmer_export.runtime.contract import BLOCK_OPERATOR, DECODER_STEP, GraphIO

STEPS = 8


def load(bundle: Bundle, level: str, threads: int) -> Graph:
    """The decoder step, at an accuracy level if one is given."""
    name = bundle.manifest.stages(next(iter(bundle.manifest.codecs), None))[DECODER_STEP]
    path, io = bundle.graph_path(name), bundle.manifest.io()[name]
    if not level:
        return OnnxRuntimeBackend(threads).load(path, io)
    with TemporaryDirectory() as folder:
        model = onnx.load(path)
        for node in model.graph.node:
            for attribute in node.attribute if node.op_type == BLOCK_OPERATOR else ():
                if attribute.name == "accuracy_level":
                    attribute.i = int(level)
        onnx.save(model, Path(folder) / path.name)
        return OnnxRuntimeBackend(threads).load(Path(folder) / path.name, io)


def inputs_of(io: GraphIO, tokens: int) -> dict[str, Array]:
    """Equal for equal inputs; every encoder token may be attended."""
    random = np.random.default_rng(0)
    sizes = {"encoder_tokens": tokens, "cache_length": 8}
    inputs = {}
    for tensor in io.inputs:
        shape = [dim if isinstance(dim, int) else sizes.get(dim, 1) for dim in tensor.dims]
        values = random.standard_normal(shape) / 2 if tensor.dtype.startswith("float") else np.ones(shape)
        inputs[tensor.name] = values.astype(tensor.dtype)
    inputs["step"][:] = 3
    return inputs


def main() -> None:
    """Print a line a bundle."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("bundles", nargs="+")
    for name, default in (("rounds", 6), ("tokens", 1760), ("threads", 2)):
        parser.add_argument(f"--{name}", type=int, default=default)
    asked = parser.parse_args()
    rows = []
    for given in asked.bundles:
        path, _, level = given.partition("=")
        bundle = Bundle.open(Path(path))
        name = bundle.manifest.stages(next(iter(bundle.manifest.codecs), None))[DECODER_STEP]
        rows.append((given, load(bundle, level, asked.threads), inputs_of(bundle.manifest.io()[name], asked.tokens)))
    times: dict[str, list[float]] = {given: [] for given in asked.bundles}
    for _ in range(asked.rounds):
        for given, graph, inputs in rows:
            for step in range(STEPS + 1):
                started = time.perf_counter()
                graph.run(inputs)
                if step:
                    times[given].append(time.perf_counter() - started)
    logits = [graph.run(inputs)["logits"].astype(np.float64) for _, graph, inputs in rows]
    for (given, _, _), found in zip(rows, logits, strict=True):
        noise = np.var(found - logits[0])
        ratio = f"{10 * np.log10(np.var(logits[0]) / noise):.1f} dB" if noise else "the same"
        took = [1e3 * seconds for seconds in times[given]]
        sys.stdout.write(f"{given}: median {median(took):.1f} ms, least {min(took):.1f} ms, logits {ratio}\n")


if __name__ == "__main__":
    main()
