"""ONNX Runtime's FP32 products in BF16: on an ARM CPU with instructions for it, where it is asked for, nowhere else."""

from __future__ import annotations

import pytest

from glimmer_export.runtime.backends import OnnxRuntimeBackend, onnxruntime_cpu
from glimmer_export.runtime.backends.registry import backend_kind, compute_precision_of
from glimmer_export.runtime.contract import BackendError

OPTION = "mlas.enable_gemm_fastmath_arm64_bfloat16"


@pytest.fixture
def arm(monkeypatch):
    monkeypatch.setattr(onnxruntime_cpu, "cpu_kind", lambda: "arm")
    monkeypatch.setattr(onnxruntime_cpu, "bf16_instructions", lambda: "bf16")


def test_it_is_an_option_of_every_session(arm):
    assert OnnxRuntimeBackend(1, compute_precision="bf16")._make_options().get_session_config_entry(OPTION) == "1"
    for backend in (OnnxRuntimeBackend(1), OnnxRuntimeBackend(1, compute_precision="fp32")):
        with pytest.raises(RuntimeError):
            backend._make_options().get_session_config_entry(OPTION)


@pytest.mark.parametrize(("kind", "instructions"), [("x86-vnni", "avx512_bf16"), ("x86", "none"), ("arm", "none")])
def test_it_is_refused_anywhere_else_by_name(monkeypatch, kind, instructions):
    monkeypatch.setattr(onnxruntime_cpu, "cpu_kind", lambda: kind)
    monkeypatch.setattr(onnxruntime_cpu, "bf16_instructions", lambda: instructions)
    with pytest.raises(BackendError, match=r"backend onnxruntime-cpu in bf16: expected an ARM CPU with BF16"):
        OnnxRuntimeBackend(1, compute_precision="bf16")
    assert compute_precision_of(backend_kind("onnxruntime-cpu"), "auto", lambda *_: True) == "fp32"


@pytest.mark.parametrize(("asked", "witnessed", "taken"), [
    ("auto", True, "bf16"), ("auto", False, "fp32"), ("fp32", True, "fp32"), ("bf16", False, "bf16"),
])  # fmt: skip
def test_it_is_taken_where_it_is_asked_for_or_witnessed(arm, asked, witnessed, taken):
    kind = backend_kind("onnxruntime-cpu")
    assert compute_precision_of(kind, asked, lambda *_: witnessed) == taken
