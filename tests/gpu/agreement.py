"""A graph beside ONNX Runtime on the CPU, on the inputs that the demo's questions give it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from calibration.questions import read_questions
from exporter.parity.graph_errors import ObservedGraph
from exporter.tolerances import MIN_SNR_DB
from runtime import Session
from runtime.backends import Graph, OnnxRuntimeBackend
from runtime.backends.choice import load_graphs
from runtime.bundle import Bundle
from runtime.store import MemoryStore
from tests.gpu.bundles import Model, threads
from tests.gpu.recording import Recorder

__all__ = ["agreement", "reference_runs"]

QUESTIONS = 2
RUNS = 3
"""Runs of a graph that are compared; of a decoder's steps the first."""


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


def agreement(
    name: str, precision: str, bundle: Bundle, reference: Graph, candidate: Graph, inputs: list[Mapping[str, Any]]
) -> dict[str, Any]:
    """Errors of a candidate's float outputs, and whether they are within what its precision allows."""
    observed = ObservedGraph(name, reference, candidate, bundle.manifest.io()[name], len(inputs))
    for row in inputs:
        observed.run(row)
    assert observed.error is not None
    return {**asdict(observed.error), "runs": len(inputs), "agrees": observed.error.snr_db >= MIN_SNR_DB[precision]}
