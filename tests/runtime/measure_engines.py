"""Every graph of bundles on both backends of the CPU, on what questions give it: milliseconds, and how far apart.

    python -m tests.runtime.measure_engines STORE QUESTIONS BUNDLE [BUNDLE ...] --threads 2

A graph's runs are in turn by all engines, after two that are not counted. Prints a table for docs/measurements.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path
from statistics import median

import numpy as np

from glimmer_export.runtime import Session
from glimmer_export.runtime.backends import OnnxRuntimeBackend
from glimmer_export.runtime.backends.openvino import OpenVinoBackend
from glimmer_export.runtime.passage_memory import encode_passages

RUNS = 9


class Kept:
    """A graph that keeps what it was given and gave."""

    def __init__(self, graph, runs):
        self.graph, self.runs, self.dtypes = graph, runs, graph.dtypes

    def run(self, inputs):
        outputs = self.graph.run(inputs)
        self.runs.append(({name: np.array(value) for name, value in inputs.items()}, outputs))
        return outputs


class Keeping(OnnxRuntimeBackend):
    """Loads graphs that keep their runs."""

    def __init__(self, threads):
        super().__init__(threads)
        self.runs = {}

    def load(self, path, io):
        return Kept(super().load(path, io), self.runs.setdefault(path.stem, []))


def recorded(bundle, store, questions, threads):
    """By graph what a question gave it, and for the memory encoder four passages; and its I/O."""
    backend = Keeping(threads)
    with Session.open(bundle, store, backend=backend, verify=False) as session:
        session.answer(questions[0])
        session.answer(questions[1])
        stored = session.store.passages(session.store.first_numbers(4))
        texts = [session.text.passage(item.title, item.text)[0] for item in stored]
        encoder = session.graphs.get("memory_encoder")
        if encoder is not None:
            encode_passages(encoder, texts)
        manifest = session.bundle.manifest
    io = manifest.io()
    return {name: (runs[-1], io[name], manifest.graphs[name].precision) for name, runs in backend.runs.items() if runs}


def snr(reference, found):
    """In decibels, of the output that differs most; what has one number does not count."""
    worst = np.inf
    for name, value in reference.items():
        if not np.issubdtype(value.dtype, np.floating) or value.size == 1:
            continue
        power, error = np.square(value, dtype=np.float64).sum(), np.square(value - found[name], dtype=np.float64).sum()
        worst = min(worst, 10 * np.log10(power / error) if error else np.inf)
    return worst


def main():
    """Print a row for each graph of each bundle."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("store", type=Path)
    parser.add_argument("questions", type=Path)
    parser.add_argument("bundles", type=Path, nargs="+")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--no-bf16", action="store_true")
    options = parser.parse_args()
    questions = [json.loads(line)["question"] for line in options.questions.open(encoding="utf-8")]
    precisions = ["fp32"] if options.no_bf16 else ["fp32", "bf16"]
    engines = {"ONNX Runtime": OnnxRuntimeBackend(options.threads)}
    engines |= {
        f"OpenVINO {name}": OpenVinoBackend(options.threads, compute_precision=name) for name in precisions
    }
    write = sys.stdout.write
    write(f"| graph | precision | tokens | {' | '.join(engines)} | SNR beside ONNX Runtime, dB |\n")
    write(f"| --- | --- | --- |{' ---: |' * (len(engines) + 1)}\n")
    for bundle in options.bundles:
        for name, ((inputs, outputs), io, precision) in recorded(
            bundle, options.store, questions, options.threads
        ).items():
            graphs = {
                engine: backend.load(bundle / "graphs" / f"{name}.onnx", io) for engine, backend in engines.items()
            }
            taken = {engine: [] for engine in graphs}
            for run in range(RUNS + 2):
                for engine, graph in graphs.items():
                    began = time.perf_counter()
                    graph.run(inputs)
                    if run > 1:
                        taken[engine].append(1e3 * (time.perf_counter() - began))
            apart = ", ".join(f"{snr(outputs, graph.run(inputs)):.0f}" for graph in list(graphs.values())[1:])
            mask = max((value for key, value in inputs.items() if key.endswith("mask")), key=np.size)
            times = " | ".join(f"{median(found):.1f}" for found in taken.values())
            write(f"| {name} | {precision} | {'x'.join(map(str, mask.shape))} | {times} | {apart} |\n")
            sys.stdout.flush()


if __name__ == "__main__":
    main()
