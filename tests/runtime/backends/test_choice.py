"""`backend="auto"`: the best that works, and why not the others."""

from __future__ import annotations

import json
import shutil
import sys

import onnxruntime
import pytest

from glimmer_export.runtime import BACKEND_NAMES, Session
from glimmer_export.runtime.backends.onnxruntime_cpu import OnnxRuntimeBackend
from glimmer_export.runtime.contract import ENGINES, MANIFEST, BackendError, OptionError
from tests.bundle_factory import rewrite
from tests.exported import QUESTIONS, copy_bundle

CPU = "onnxruntime-cpu"


def choice(bundle, **options):
    with Session.open(bundle, **options) as session:
        return session.backend_choice


def test_without_a_gpu_it_is_the_cpu(glimmer):
    found = choice(glimmer.bundle)
    assert found.name == CPU
    assert list(found.refused) == ["tensorrt", "tensorrt-rtx", "onnxruntime-cuda", "openvino"]
    assert "expected the package tensorrt, found none" in found.refused["tensorrt"]
    assert "CUDAExecutionProvider" in found.refused["onnxruntime-cuda"]
    assert "tensorrt" not in sys.modules


def test_the_cpu_by_name_tries_nothing_else(glimmer):
    found = choice(glimmer.bundle, backend=CPU)
    assert (found.name, found.refused) == (CPU, {})


def test_a_backend_of_the_callers_is_no_choice(glimmer):
    class Backend:
        name = "mine"

        def load(self, path, io):
            return glimmer.session.graphs[path.stem]

    with Session.open(glimmer.bundle, glimmer.store, backend=Backend()) as session:
        assert session.backend_choice is None
        assert session.answer(QUESTIONS[0]).token_ids == glimmer.session.answer(QUESTIONS[0]).token_ids


def test_engines_of_this_gpu_come_first(glimmer, engined, gpu):
    gpu()
    found = choice(engined(glimmer))
    assert (found.name, found.refused) == ("tensorrt", {})


def test_then_those_of_tensorrt_rtx(glimmer, engined, gpu):
    gpu("tensorrt_rtx")
    found = choice(engined(glimmer, "tensorrt_rtx"))
    assert found.name == "tensorrt-rtx"
    assert list(found.refused) == ["tensorrt"]


def test_engines_of_another_gpu_are_a_reason(glimmer, engined, gpu):
    gpu(capability=(8, 9))
    found = choice(engined(glimmer))
    assert found.name == CPU
    assert "glimmer-export build" in found.refused["tensorrt"]


def test_no_driver_is_a_reason(glimmer, engined, gpu):
    """Which cuda-python 12.6 tells by a RuntimeError."""
    gpu().cuda.driver = False
    found = choice(engined(glimmer))
    assert found.name == CPU
    assert "an NVIDIA GPU and its driver" in found.refused["tensorrt"]


def test_a_damaged_engine_is_a_reason_and_leaves_nothing_behind(glimmer, engined, gpu, tmp_path):
    """`gpu` sees to it that what was loaded before it was given back."""
    gpu()
    bundle = shutil.copytree(engined(glimmer), tmp_path / "bundle")
    (engine,) = (bundle / ENGINES).glob("*/decoder_step.engine")
    engine.write_bytes(b"")
    found = choice(bundle)
    assert found.name == CPU
    assert "bytes, found 0 bytes" in found.refused["tensorrt"]


def test_a_named_backend_is_taken_or_fails(glimmer):
    for name in set(BACKEND_NAMES) - {"auto", "openvino", CPU}:
        with pytest.raises(BackendError):
            Session.open(glimmer.bundle, backend=name)


def test_a_name_that_is_none(glimmer):
    with pytest.raises(OptionError, match="one of auto, tensorrt"):
        Session.open(glimmer.bundle, backend="gpu")


def test_graphs_for_a_cpu_stay_there(glimmer, monkeypatch, tmp_path):
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: ["CUDAExecutionProvider"])
    bundle = copy_bundle(glimmer, tmp_path / "bundle")
    manifest = json.loads((bundle / MANIFEST).read_text(encoding="utf-8"))
    quantization = {
        "target": "cpu", "cpu_kind": "x86", "method": "max", "policy": "int8", "residual_scales": {}, "keep": [],
    }  # fmt: skip
    rewrite(bundle / MANIFEST, **{**manifest, "quantization": quantization})
    assert "quantised for a CPU" in choice(bundle).refused["onnxruntime-cuda"]


@pytest.mark.parametrize("backend", [CPU, "onnxruntime-cuda", OnnxRuntimeBackend(1)])
def test_a_passage_cache_is_tensorrts(glimmer, backend):
    with pytest.raises(OptionError, match="passage_cache_bytes"):
        Session.open(glimmer.bundle, backend=backend, passage_cache_bytes=100)


def test_a_store_that_cannot_be_opened_leaves_no_device_behind(glimmer, engined, gpu, tmp_path):
    gpu()
    with pytest.raises(Exception, match="manifest"):
        Session.open(engined(glimmer), tmp_path, backend="tensorrt")
