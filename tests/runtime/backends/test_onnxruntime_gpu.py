"""ONNX Runtime with I/O binding, on the one provider that needs no GPU; those of a GPU run the same code."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from glimmer_export.runtime import Passage, Session
from glimmer_export.runtime.backends.onnxruntime_gpu import OnnxRuntimeDeviceBackend, OrtTensor
from glimmer_export.runtime.contract import BackendError, BundleError
from tests.exported import CORPUS, QUESTIONS, VARIANTS
from tests.reference_answers import assert_same_scores


def bound() -> OnnxRuntimeDeviceBackend:
    return OnnxRuntimeDeviceBackend("CPUExecutionProvider", "cpu", threads=1)


def assert_same(answer, expected) -> None:
    assert (answer.token_ids, answer.selected) == (expected.token_ids, expected.selected)
    assert_same_scores(answer, expected)


@pytest.mark.parametrize("variant", VARIANTS)
def test_answers_are_the_cpus(exported, variant):
    source = exported(variant)
    with Session.open(source.bundle, source.store, backend=bound(), verify=False) as session:
        for question in QUESTIONS:
            assert_same(session.answer(question), source.session.answer(question))
        for answer, expected in zip(
            session.answer_many(QUESTIONS), source.session.answer_many(QUESTIONS), strict=True
        ):
            assert_same(answer, expected)
        rows = [Passage(None, row["title"], row["text"]) for row in CORPUS[7:11]]
        assert_same(session.answer("w2", passages=rows), source.session.answer("w2", passages=rows))


def test_tensors_go_from_graph_to_graph(glimmer, monkeypatch):
    """What one graph gives the next is bound as it is, not copied from the host."""
    with Session.open(glimmer.bundle, glimmer.store, backend=bound()) as session:
        seen = {}
        for name, graph in session.graphs.items():
            launch = graph.launch

            def spied(inputs, name=name, launch=launch):
                seen.setdefault(name, []).append({key for key, value in inputs.items() if isinstance(value, OrtTensor)})
                return launch(inputs)

            monkeypatch.setattr(graph, "launch", spied)
        session.answer(QUESTIONS[0])
    assert seen["live_stage_a"] == [{"question_states", "memory", "memory_scale", "memory_mask"}]
    (stage_b,) = seen["live_stage_b"]
    assert stage_b >= {"memory_mask", "rerank_states"}
    assert "selected" not in stage_b
    first, *others = seen["decoder_step"]
    assert "decoder_input_ids" not in first
    assert others
    assert all(inputs >= first | {"decoder_input_ids"} for inputs in others)


def test_a_graph_alone_goes_from_host_to_host(glimmer):
    backend = bound()
    io = glimmer.io["memory_encoder"]
    ids = np.array([[5, 6, 7, 1]], np.int32)
    found = backend.load(glimmer.graph("memory_encoder"), io).run({"input_ids": ids, "attention_mask": ids * 0 + 1})
    expected = glimmer.session.graphs["memory_encoder"].run({"input_ids": ids, "attention_mask": ids * 0 + 1})
    assert type(found["hidden_states"]) is np.ndarray
    assert (found["hidden_states"] == expected["hidden_states"]).all()
    backend.close()


def test_several_threads(glimmer):
    expected = [glimmer.session.answer(question) for question in QUESTIONS] * 3
    with Session.open(glimmer.bundle, glimmer.store, backend=bound()) as session, ThreadPoolExecutor(4) as pool:
        for answer, wanted in zip(pool.map(session.answer, QUESTIONS * 3), expected, strict=True):
            assert_same(answer, wanted)


def test_a_provider_that_is_not_there():
    with pytest.raises(BackendError, match=r"onnxruntime-cuda: expected .*CUDAExecutionProvider, found .*CPUExecution"):
        OnnxRuntimeDeviceBackend()


def test_a_provider_that_does_not_start(glimmer):
    """ONNX Runtime falls back to the CPU then, and says so only in its log."""
    backend = bound()
    backend._provider = "CUDAExecutionProvider"
    with pytest.raises(BackendError, match="CUDAExecutionProvider to start, found CPUExecutionProvider"):
        backend.load(glimmer.graph("memory_encoder"), glimmer.io["memory_encoder"])


def test_a_damaged_graph(glimmer, tmp_path):
    (tmp_path / "graph.onnx").write_bytes(b"none")
    with pytest.raises(BundleError, match="that ONNX Runtime can load"):
        bound().load(tmp_path / "graph.onnx", glimmer.io["memory_encoder"])


def test_a_run_that_the_device_refuses(glimmer):
    ids = np.full((1, 3), 10**6, np.int32)
    graph = bound().load(glimmer.graph("memory_encoder"), glimmer.io["memory_encoder"])
    with pytest.raises(BackendError, match="a graph that runs"):
        graph.run({"input_ids": ids, "attention_mask": np.ones_like(ids)})
