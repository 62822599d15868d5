"""A graph on two backends: which of them is chosen, and that nobody notices."""

from __future__ import annotations

import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import MappingProxyType

import numpy as np
import pytest

from glimmer_export.runtime import Session
from glimmer_export.runtime.backends import registry
from glimmer_export.runtime.backends.faster import FasterGraph
from glimmer_export.runtime.backends.openvino import NATIVE
from glimmer_export.runtime.contract import BackendError, DeviceMemoryError
from glimmer_export.runtime.cpu_kind import bf16_instructions

GOLDEN = Path(__file__).resolve().parents[2] / "golden"
STORE = GOLDEN / "store-fp16"
INPUTS = {"x": np.arange(3)}


class Slow:
    """Takes so long, and says in its output who it is."""

    def __init__(self, name, seconds=0.0, error=None):
        self.name, self.seconds, self.error, self.runs = name, seconds, error, 0

    dtypes = MappingProxyType({"x": np.dtype(np.int64)})

    def run(self, inputs):
        self.runs += 1
        time.sleep(self.seconds)
        if self.error is not None:
            raise self.error
        return {"y": self.name}


def failure(kind=BackendError):
    return kind("graph", expected="one that runs", found="another", fix="none")


@pytest.mark.parametrize(("first", "last", "chosen"), [(0.0, 0.05, "first"), (0.05, 0.0, "last"), (0.05, 0.05, "last")])
def test_the_faster_is_kept_and_the_last_where_neither_is(first, last, chosen):
    graphs = {"first": Slow("first", first), "last": Slow("last", last)}
    graph = FasterGraph("stage", graphs)
    assert graph.note == "stage: not yet run, by first or last"
    assert [graph.run(INPUTS)["y"] for _ in range(4)] == [chosen] * 4
    assert {name: one.runs for name, one in graphs.items()} == {
        name: 6 if name == chosen else 3 for name in graphs
    }
    assert graph.note.startswith(f"stage: {chosen}; ")
    assert graph.dtypes == Slow.dtypes


def test_one_that_cannot_run_it_is_left_out_and_said():
    graph = FasterGraph("stage", {"first": Slow("first", error=failure()), "last": Slow("last", 0.01)})
    assert graph.run(INPUTS)["y"] == "last"
    assert "not by first: graph: expected one that runs" in graph.note


def test_what_no_backend_runs_is_raised_and_so_is_want_of_memory():
    both = FasterGraph("stage", {name: Slow(name, error=failure()) for name in ("first", "last")})
    with pytest.raises(BackendError, match="one that runs"):
        both.run(INPUTS)
    little = FasterGraph("stage", {"first": Slow("first", error=failure(DeviceMemoryError)), "last": Slow("last")})
    with pytest.raises(DeviceMemoryError):
        little.run(INPUTS)


def test_threads_that_come_meanwhile_wait_for_the_choice():
    graphs = {"first": Slow("first"), "last": Slow("last", 0.02)}
    graph = FasterGraph("stage", graphs)
    with ThreadPoolExecutor(4) as pool:
        assert {found["y"] for found in pool.map(graph.run, [INPUTS] * 8)} == {"first"}
    assert graphs["last"].runs == 3


def test_auto_runs_each_graph_on_the_faster(monkeypatch):
    with Session.open(GOLDEN / "bundle", STORE, threads=1) as session:
        assert session.backend_choice.name == "onnxruntime-cpu"
        assert "a model of more than 32 MiB" in session.backend_choice.refused["openvino"]
        wanted = session.answer("w20 w31 w42 w53")
    monkeypatch.setattr(registry, "ONE_THREAD_BYTES", 0)
    with Session.open(GOLDEN / "bundle", STORE, threads=1) as session:
        assert session.backend_choice.name == "openvino+onnxruntime-cpu"
        assert session.computes == {"openvino": "fp32", "onnxruntime-cpu": "fp32"}
        answer = session.answer("w20 w31 w42 w53")
        notes = dict(note.split(": ", 1) for note in session.backend_choice.notes)
    assert answer.token_ids == wanted.token_ids
    assert answer.log_probability == pytest.approx(wanted.log_probability, abs=1e-3)
    assert notes.keys() == session.graphs.keys()
    ran = {name for name, note in notes.items() if not note.startswith("not yet run")}
    assert ran == session.graphs.keys()
    assert all("ms by openvino" in notes[name] and "ms by onnxruntime-cpu" in notes[name] for name in ran)


def test_auto_takes_openvino_where_it_is_alone(monkeypatch):
    """However small the model is."""
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with Session.open(GOLDEN / "bundle", STORE, threads=1) as session:
        assert session.backend_choice.name == "openvino"
        assert "the package onnxruntime, found none" in session.backend_choice.refused["onnxruntime-cpu"]
        assert session.answer("w20 w31 w42 w53").token_ids


def test_auto_in_bf16_takes_what_computes_it_or_says_what_would():
    arm = "backend onnxruntime-cpu in bf16: expected an ARM CPU with BF16 instructions"
    if bf16_instructions() not in NATIVE:
        with pytest.raises(BackendError, match=arm):
            Session.open(GOLDEN / "bundle", STORE, threads=1, compute_precision="bf16")
        return
    with Session.open(GOLDEN / "bundle", STORE, threads=1, compute_precision="bf16") as session:
        assert session.computes == {"openvino": "bf16"}
        assert arm in session.backend_choice.refused["onnxruntime-cpu"]
