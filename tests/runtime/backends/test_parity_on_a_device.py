"""Parity's comparison, with a bundle's engines on the fake of a GPU as the candidate."""

from __future__ import annotations

import pytest

from calibration.questions import Question
from exporter.parity import ParityOptions, ParityRequest, run_parity
from exporter.parity.backends import parity_backend
from tests.exported import QUESTIONS


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
