"""A search of every architecture, each of tiny random weights: what does not apply is not tried, and nothing fails."""

from __future__ import annotations

import pytest

from glimmer_export.calibration.questions import read_questions
from glimmer_export.exporter.tune import Goals, TuneReport, TuneRequest, tune
from tests.bundle_factory import write_rows

NONE_OF = {"lumen": ("m", "stage_a", "mass"), "memory_fid": ("m", "stage_a", "mass"), "fid": ("codec", "m", "mass")}


@pytest.mark.slow
@pytest.mark.parametrize("architecture", NONE_OF)
def test_a_search_ends_with_a_point_that_answers(exported, tmp_path, architecture):
    made = exported(architecture)
    rows = [{"question": f"w{place} w{place + 1}", "answers": [f"w{place}"]} for place in range(1, 9)]
    questions = write_rows(tmp_path / "questions.jsonl", rows)
    request = TuneRequest(
        made.checkpoint, (made.corpus,), (questions,), tmp_path / "out", goals=Goals(store_gb=1.0, em_loss=100.0),
        trials=4, gate="demo", samples=2, sensitivity_samples=0, timed=1,
        tried=(
            "method=max", "index=fts5", "cross_attention=absorbed", "precision=int8,fp32", "weight_only=none",
            *(() if architecture == "fid" else ("codec=int8",)),
        ),
    )  # fmt: skip
    report = tune(request, read_questions([questions]))
    assert isinstance(report, TuneReport)
    assert len(report.trials.complete()) == 4, [trial.dropped for trial in report.trials.all]
    assert {name: report.space.values[name] for name in NONE_OF[architecture]} == dict.fromkeys(
        NONE_OF[architecture], (None,)
    )
    assert not report.gate_passed  # four questions tell a gate nothing
    assert any("not measured" in sentence for sentence in report.sentences())
