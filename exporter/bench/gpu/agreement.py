"""A graph beside ONNX Runtime on the CPU, on the inputs that the demo's questions give it; numpy alone compares."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from glimmer_export.calibration.questions import read_questions
from glimmer_export.exporter.bench.gpu.bundles import Model, threads
from glimmer_export.exporter.bench.gpu.recording import Recorder
from glimmer_export.exporter.graphs.comparable import comparable_outputs
from glimmer_export.exporter.tolerances import MIN_SNR_DB
from glimmer_export.runtime import Session
from glimmer_export.runtime.backends import Graph, OnnxRuntimeBackend
from glimmer_export.runtime.backends.registry import load_graphs
from glimmer_export.runtime.bundle import Bundle
from glimmer_export.runtime.contract import LOG_PROBABILITY, GraphIO
from glimmer_export.runtime.store import MemoryStore

__all__ = ["agreement", "reference_runs"]

QUESTIONS = 2
RUNS = 3
"""Runs of a graph that are compared; of a decoder's steps the first."""
LEAST_SNR_DB = MIN_SNR_DB["fp16"]
"""TF32, in which a GPU may multiply FP32, keeps as many digits as FP16; what is wrong in kind is far below."""


def reference_runs(model: Model, precision: str) -> tuple[Bundle, dict[str, Graph], dict[str, list[Any]]]:
    """A bundle, its graphs on the CPU, and what they were given while a few of the demo's questions were answered."""
    bundle = Bundle.open(model.bundle(precision))
    assert bundle.text is not None
    graphs = load_graphs(OnnxRuntimeBackend(threads()), bundle.directory, bundle.manifest, "fp16")
    recorder = Recorder()
    recorder.on = True
    store = MemoryStore.open(model.store, bundle)
    try:
        session = Session(bundle, store, recorder.wrap(graphs), bundle.text, store.codec)
        for question in read_questions(model.questions, QUESTIONS):
            session.answer(question.question)
    finally:
        store.close()
    return bundle, graphs, {name: inputs[:RUNS] for name, inputs in recorder.inputs.items()}


def agreement(io: GraphIO, reference: Graph, candidate: Graph, inputs: list[Mapping[str, Any]]) -> dict[str, Any]:
    """The worst signal-to-noise ratio of a candidate's float outputs, in dB, None if there is no error at all.

    Each input is put to the candidate twice: the second run of a decoder step may be a captured one.
    """
    worst, ran = math.inf, 0
    for row in inputs:
        wanted = {tensor.name: row[tensor.name] for tensor in io.inputs}
        expected = reference.run(wanted)
        for _ in range(2):
            found = candidate.run(wanted)
            worst = min(worst, *_snrs_db(wanted, found, expected))
            ran += 1
    return {"snr_db": worst, "runs": ran, "agrees": worst >= LEAST_SNR_DB}


def _snrs_db(inputs: Mapping[str, Any], found: Mapping[str, Any], expected: Mapping[str, Any]) -> Iterator[float]:
    """Of each float output where something reads it; of a log-probability its error beside the logits.

    It is a difference of logits, and next to 0 for a token that is nearly certain: beside itself their last bit would
    be most of it.
    """
    compared = comparable_outputs(inputs, found)
    for name, value in comparable_outputs(inputs, expected).items():
        yield _snr_db(compared[name], value, value)
    if LOG_PROBABILITY in expected:
        yield _snr_db(found[LOG_PROBABILITY], expected[LOG_PROBABILITY], expected["logits"])


def _snr_db(found: Any, expected: Any, beside: Any) -> float:
    noise, signal = (
        float((values.astype(np.float64) ** 2).mean()) for values in (found.astype(np.float64) - expected, beside)
    )
    if noise == 0:
        return math.inf
    return 10 * math.log10(signal / noise) if math.isfinite(noise) and signal > 0 else -math.inf
