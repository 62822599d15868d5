"""OpenVINO gives what ONNX Runtime does, with the settings that it was given, and its exceptions have names of ours."""

from __future__ import annotations

import shutil
import warnings
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from threading import Barrier

import numpy as np
import openvino
import pytest

from glimmer_export.exporter.tolerances import TOLERANCES
from glimmer_export.runtime import Passage, Session
from glimmer_export.runtime.backends import OnnxRuntimeBackend, openvino_library
from glimmer_export.runtime.backends.openvino import NATIVE, OpenVinoBackend
from glimmer_export.runtime.backends.registry import load_backend, load_graphs, open_backend
from glimmer_export.runtime.bundle import Bundle
from glimmer_export.runtime.contract import BackendError, BundleError, OptionError
from glimmer_export.runtime.cpu_kind import bf16_instructions
from tests.runtime.backends.test_onnxruntime_library import IO, VALUES, write_graph

GOLDEN = Path(__file__).resolve().parents[2] / "golden"
STORE = GOLDEN / "store-fp16"
QUESTIONS = ["w20 w31 w42 w53", "w0 w7", "w3 w9 w27"]
native = pytest.mark.skipif(bf16_instructions() not in NATIVE, reason="this CPU has no instructions for BF16")


class Recording(OnnxRuntimeBackend):
    """Keeps what each graph read and gave."""

    def load(self, path, io):
        graph, runs = super().load(path, io), self.runs.setdefault(path.stem, [])
        run = graph.run
        graph.run = lambda inputs: runs.append(({**inputs}, run(inputs))) or runs[-1][1]
        return graph

    def __init__(self):
        super().__init__(1)
        self.runs = {}


def recorded(bundle, store):
    """What ONNX Runtime's graphs read and gave as they answered, from the store and from a passage that is encoded."""
    backend = Recording()
    with Session.open(bundle, store, backend=backend) as session:
        session.answer_many(QUESTIONS)
        session.answer(QUESTIONS[0], passages=[Passage(None, "", "w1 w2 w3")])
    return backend.runs


@pytest.fixture(scope="module")
def runs():
    return recorded(GOLDEN / "bundle", STORE)


def loaded(backend, bundle=GOLDEN / "bundle", codec="fp16"):
    """The graphs that read memory in a codec, and the memory encoder."""
    opened = Bundle.open(bundle)
    names = opened.manifest.stages(codec).values()
    return {name: backend.load(opened.graph_path(name), opened.manifest.io()[name]) for name in names}


def farthest(graph, runs):
    """By output the greatest difference from what another backend gave, beside its greatest value."""
    found = {}
    for inputs, outputs in runs:
        for name, value in graph.run(inputs).items():
            assert (value.dtype, value.shape) == (outputs[name].dtype, outputs[name].shape)
            wanted = outputs[name].astype(np.float64)
            error, most = np.abs(value - wanted).max(initial=0.0), np.abs(wanted).max(initial=0.0)
            found[name] = max(found.get(name, (0.0, 0.0)), (float(error), float(most)))
    return found


def test_every_graph_gives_what_onnxruntime_does(runs):
    graphs = loaded(OpenVinoBackend(1))
    assert graphs.keys() <= runs.keys()
    for name, graph in graphs.items():
        for output, (error, most) in farthest(graph, runs[name]).items():
            assert error <= TOLERANCES["fp32"].atol + TOLERANCES["fp32"].rtol * most, (name, output)


def test_int8_graphs_give_what_onnxruntime_does_to_a_few_codes():
    """A sum in another order moves a value over the edge between two codes here and there, by a 254th of the range."""
    runs = recorded(GOLDEN / "bundle-int8", GOLDEN / "store-int8")
    for name, graph in loaded(OpenVinoBackend(1), GOLDEN / "bundle-int8", "int8").items():
        for output, (error, most) in farthest(graph, runs[name]).items():
            assert error <= TOLERANCES["fp32"].atol + most / 32, (name, output)


@native
def test_bf16_rounds_what_fp32_does_not(runs):
    graphs = loaded(OpenVinoBackend(1, compute_precision="bf16"))
    errors = {
        name: max(error / most for error, most in farthest(graph, runs[name]).values() if most)
        for name, graph in graphs.items()
    }
    assert 1e-4 < max(errors.values()) < 0.05
    # What ranks passages does it in FP32.
    assert errors["live_stage_a"] < 1e-5


def test_outputs_are_copies_and_threads_have_requests_of_their_own(runs):
    graph = loaded(OpenVinoBackend(1))["decoder_step"]
    inputs = [inputs for inputs, _ in runs["decoder_step"][:4]]
    expected = [graph.run(item) for item in inputs]
    kept = [{name: value.copy() for name, value in outputs.items()} for outputs in expected]
    together = Barrier(4)

    def often(item):
        together.wait()
        return [graph.run(item) for _ in range(20)][-1]

    with ThreadPoolExecutor(4) as pool:
        for outputs, wanted in zip(pool.map(often, inputs), kept, strict=True):
            for name, value in outputs.items():
                np.testing.assert_array_equal(value, wanted[name])
    for outputs, wanted in zip(expected, kept, strict=True):
        for name, value in outputs.items():
            np.testing.assert_array_equal(value, wanted[name])


@pytest.mark.parametrize("name", sorted(openvino_library.settings_for(openvino, "fp32", 1)[0]))
def test_a_setting_that_is_read_back_otherwise_is_an_error(monkeypatch, name):
    read = openvino.CompiledModel.get_property
    monkeypatch.setattr(
        openvino.CompiledModel, "get_property", lambda model, key: "another" if key == name else read(model, key)
    )
    with pytest.raises(BackendError, match=f"OpenVINO's {name}: expected .*, found another"):
        loaded(OpenVinoBackend(1))


@pytest.mark.parametrize("flags", [set(), {"avx512_vnni", "avx512f"}, {"bf16"}])
def test_bf16_that_is_only_emulated_is_refused(monkeypatch, flags):
    monkeypatch.setattr("glimmer_export.runtime.cpu_kind.cpu_flags", lambda: flags)
    with pytest.raises(BackendError, match="backend openvino in bf16: expected a CPU with amx_bf16 or avx512_bf16"):
        Session.open(GOLDEN / "bundle", backend="openvino", compute_precision="bf16")
    with Session.open(GOLDEN / "bundle", backend="openvino") as session:
        assert session.backend_choice.compute_precision == "fp32"


def test_bf16_that_openvino_does_not_offer_is_refused(monkeypatch):
    monkeypatch.setattr("glimmer_export.runtime.cpu_kind.cpu_flags", lambda: {"avx512_bf16"})
    monkeypatch.setattr(openvino.Core, "get_property", lambda *_: ["FP32", "INT8"])
    with pytest.raises(BackendError, match="an OpenVINO that computes it on this CPU, found FP32, INT8"):
        OpenVinoBackend(compute_precision="bf16")


@pytest.mark.parametrize(
    ("backend", "options"),
    [
        ("onnxruntime-cuda", {"compute_precision": "bf16"}), ("tensorrt", {"compute_precision": "bf16"}),
        ("onnxruntime-cpu", {"compile_cache": Path("cache")}),
    ],
)  # fmt: skip
def test_what_another_backend_does_not_have_is_refused_by_name(backend, options, tmp_path):
    with pytest.raises(OptionError, match=f"with the backend {backend}, found .*choose one of .*openvino"):
        open_backend(backend, tmp_path, **options)


def test_damaged_graphs_and_other_inputs_and_outputs_are_named(tmp_path):
    backend = OpenVinoBackend(1)
    path = write_graph(tmp_path / "graph.onnx", "Gather")
    assert backend.load(path, IO).run({"values": VALUES, "numbers": np.array([2], np.int32)})["taken"].tolist() == [[1]]
    with pytest.raises(BundleError, match=r"graph\.onnx, values: expected float16, found float32"):
        backend.load(path, replace(IO, inputs=(replace(IO.inputs[0], dtype="float16"), IO.inputs[1])))
    with pytest.raises(BundleError, match=r"graph\.onnx: expected I/O"):
        backend.load(path, replace(IO, outputs=()))
    (tmp_path / "cut.onnx").write_bytes(path.read_bytes()[:-20])
    with pytest.raises(BundleError, match=r"cut\.onnx: expected a graph that OpenVINO can load"):
        backend.load(tmp_path / "cut.onnx", IO)


@pytest.mark.parametrize(("kind", "error"), [(RuntimeError, BackendError), (MemoryError, BackendError)])
def test_what_it_raises_when_a_graph_runs_is_named(tmp_path, monkeypatch, kind, error):
    graph = OpenVinoBackend(1).load(write_graph(tmp_path / "graph.onnx", "Gather"), IO)

    def fails(*_, **__):
        raise kind("Exception from src/inference/src/infer_request.cpp:1:\nthe reason\nmore")

    monkeypatch.setattr(openvino.InferRequest, "infer", fails)
    with pytest.raises(error, match=r"graph\.onnx: expected .*, found the reason;") as caught:
        graph.run({"values": VALUES, "numbers": np.zeros(1, np.int32)})
    assert (type(caught.value).__name__ == "DeviceMemoryError") == (kind is MemoryError)


def test_fewer_threads_than_asked_for_is_a_note():
    with Session.open(GOLDEN / "bundle", STORE, backend="openvino", threads=500) as session:
        answer = session.answer(QUESTIONS[0])
        assert any("threads, as many as it finds cores, not 500" in note for note in session.backend_choice.notes)
    with Session.open(GOLDEN / "bundle", STORE, backend="onnxruntime-cpu") as session:
        assert session.answer(QUESTIONS[0]).token_ids == answer.token_ids


def linked(source, root):
    """Every file a link to a blob elsewhere, under another name."""
    blobs = root / "blobs"
    blobs.mkdir(parents=True)
    for number, path in enumerate(sorted(path for path in source.rglob("*") if path.is_file())):
        blob = shutil.copy(path, blobs / str(number))
        place = root / "snapshot" / path.relative_to(source)
        place.parent.mkdir(parents=True, exist_ok=True)
        place.symlink_to(blob)
    return root / "snapshot"


def test_weights_behind_links_are_read_where_they_are(tmp_path, runs):
    bundle = linked(GOLDEN / "bundle", tmp_path)
    graphs, plain = loaded(OpenVinoBackend(1), bundle), loaded(OpenVinoBackend(1))
    assert any((bundle / "graphs").glob("*.data"))
    for name, graph in graphs.items():
        for output, value in graph.run(runs[name][0][0]).items():
            np.testing.assert_array_equal(value, plain[name].run(runs[name][0][0])[output])


def test_a_compile_cache_is_kept_by_what_it_hangs_on(tmp_path, monkeypatch):
    cache, bundle = tmp_path / "cache", GOLDEN / "bundle"

    def opened(**options):
        with Session.open(bundle, STORE, backend="openvino", threads=1, compile_cache=cache, **options) as session:
            return session.answer(QUESTIONS[0]).token_ids

    first = opened()
    kept = {path: path.stat().st_mtime_ns for path in cache.rglob("*.blob")}
    assert len(kept) >= 4
    assert {path.parent.stat().st_mode & 0o777 for path in kept} == {0o700}
    assert opened() == first
    assert {path: path.stat().st_mtime_ns for path in cache.rglob("*.blob")} == kept
    monkeypatch.setattr("glimmer_export.runtime.backends.compile_cache.cpu_flags", lambda: {"another"})
    assert opened() == first
    assert len([*cache.rglob("*.blob")]) == 2 * len(kept)


def test_a_damaged_compile_cache_is_not_missed(tmp_path):
    for _ in range(2):
        with Session.open(
            GOLDEN / "bundle", STORE, backend="openvino", threads=1, compile_cache=tmp_path / "cache"
        ) as session:
            found = session.answer(QUESTIONS[0])
        for blob in (tmp_path / "cache").rglob("*.blob"):
            blob.write_bytes(blob.read_bytes()[:100])
    assert found.token_ids


def test_a_compile_cache_that_cannot_be_written_is_said_once(tmp_path):
    (tmp_path / "cache").write_text("a file", encoding="utf-8")
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        with Session.open(
            GOLDEN / "bundle", STORE, backend="openvino", threads=1, compile_cache=tmp_path / "cache"
        ) as session:
            assert session.answer(QUESTIONS[0]).token_ids
    assert [str(item.message) for item in said if "compile cache" in str(item.message)] == [
        f"compile cache {tmp_path / 'cache'}: Not a directory; graphs are compiled at every start"
    ]


def test_without_one_nothing_is_kept(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    loaded(OpenVinoBackend(1))
    assert [*tmp_path.rglob("*")] == []


def test_without_the_package_it_says_which_extra_brings_it(monkeypatch, tmp_path):
    monkeypatch.setitem(__import__("sys").modules, "openvino", None)
    with pytest.raises(BackendError, match=r"the package openvino, found none; .*glimmer-export\[openvino\]"):
        open_backend("openvino", tmp_path)


def test_graphs_are_loaded_by_the_manifest_as_on_any_backend():
    opened = Bundle.open(GOLDEN / "bundle")
    with_backend = load_backend("openvino", opened.directory, opened.manifest, "fp16", threads=1)
    assert with_backend.computes == {"openvino": "fp32"}
    assert with_backend.graphs.keys() == load_graphs(
        OnnxRuntimeBackend(1), opened.directory, opened.manifest, "fp16"
    ).keys()
