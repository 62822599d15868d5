"""Parity's comparison, with a bundle's engines on the fake of a GPU as the candidate."""

from __future__ import annotations

import shutil

import pytest

from glimmer_export.calibration.questions import Question
from glimmer_export.exporter.parity import ParityOptions, ParityRequest, run_parity
from glimmer_export.exporter.parity.options import parity_backend
from glimmer_export.runtime import Session
from glimmer_export.runtime.contract import BundleError, read_parity_records
from tests.exported import QUESTIONS
from tests.parity.asked import answered_rows, write_gate


@pytest.mark.parametrize("variant", ["glimmer", "glimmer, exact algebra", "memory_fid"])
def test_engines_are_compared_with_the_graphs_on_the_cpu(exported, engined, gpu, variant):
    source = exported(variant)
    bundle = engined(source, batches=(1, 64))
    gpu()
    rows = [Question(str(place), text, (), None, ()) for place, text in enumerate(QUESTIONS[:4])]
    with parity_backend("tensorrt", bundle, None) as backend:
        request = ParityRequest(
            bundle, reference=source.bundle, store=source.store, options=ParityOptions(attribution=True, threads=1),
            backend=backend,
        )
        report = run_parity(request, rows).to_json()
    assert report["answers_equal"] == 1.0
    assert report["graphs"].keys() >= {"memory_encoder", "live_stage_b", "decoder_step"}
    assert all(error["snr_db"] is None or error["snr_db"] > 100 for error in report["graphs"].values())
    assert all(part["answers_equal"] == 1.0 for part in report["attribution"].values())
    assert report["candidate"]["backend"] == "tensorrt"


def test_the_devices_own_record_is_what_a_session_there_asks_for(glimmer, engined, gpu, tmp_path):
    """FP32 graphs beside themselves on the CPU: another arithmetic, so that something is witnessed."""
    bundle = shutil.copytree(engined(glimmer, batches=(1, 64)), tmp_path / "bundle")
    gpu()
    with parity_backend("tensorrt", bundle, None) as backend:
        request = ParityRequest(
            bundle, reference=glimmer.bundle, store=glimmer.store, options=ParityOptions(threads=1),
            gate=write_gate(tmp_path), backend=backend,
        )
        assert run_parity(request, answered_rows(glimmer)).gate.verdict == "passed"
    (record,) = read_parity_records(bundle).records
    assert (record.backend, record.witness, record.versions["tensorrt"]) == ("tensorrt", "device", "10.3.0")
    for name in ("tensorrt", "auto"):
        with Session.open(bundle, glimmer.store, backend=name, require_parity="device") as session:
            assert session.backend_choice.name == "tensorrt"
    with pytest.raises(BundleError, match="witnesses onnxruntime-cpu"):
        Session.open(bundle, glimmer.store, backend="onnxruntime-cpu", require_parity=True)
