"""Our stages in TensorRT's place, through the runtime's whole CUDA layer, answer as ONNX Runtime does on the CPU."""

from __future__ import annotations

import pytest

from glimmer_export.exporter.bench.gpu.backends import described, open_backend, torch_library
from glimmer_export.exporter.bench.gpu.setting import TORCH
from glimmer_export.runtime import Session
from tests.exported import QUESTIONS
from tests.reference_answers import assert_same_scores


@pytest.mark.parametrize("switches", [{}, {"passage_cache_bytes": 1 << 20}, {"cuda_graphs": False, "overlap": False}])
def test_answers_are_those_of_the_cpu(two_layers, setting, fakes, switches):
    with Session.open(two_layers.bundle("fp32"), two_layers.store, backend="onnxruntime-cpu", threads=1) as session:
        expected = [*map(session.answer, QUESTIONS), *session.answer_many(QUESTIONS)]
    with (
        open_backend(setting, TORCH, two_layers, "fp32", **switches) as backend,
        Session.open(two_layers.bundle("fp32"), two_layers.store, backend=backend) as session,
    ):
        found = [*map(session.answer, QUESTIONS), *session.answer_many(QUESTIONS)]
    for answer, wanted in zip(found, expected, strict=True):
        assert (answer.token_ids, answer.selected) == (wanted.token_ids, wanted.selected)
        assert_same_scores(answer, wanted)
    assert bool(fakes.calls["cudaGraphLaunch"]) == switches.get("cuda_graphs", True)
    assert torch_library(setting).queued["decoder_step"]


def test_the_stages_are_in_no_module_of_the_runtime(two_layers, setting, fakes):
    """They stand in for the package `tensorrt`, which the runtime imports by its name."""
    with open_backend(setting, TORCH, two_layers, "fp32") as backend:
        assert backend.name == "tensorrt"
    assert (described(TORCH, "fp32"), described(TORCH, "fp16")) == ("torch stages (float32)", "torch stages (bfloat16)")
