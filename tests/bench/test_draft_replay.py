"""A trace of drafts replayed by a tiny model: the runs that it says, and what it takes the other stages to be."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import pytest

from glimmer_export.exporter.bench.draft_replay import replay_trace
from glimmer_export.exporter.bench.draft_trace import DraftTrace
from glimmer_export.runtime import Session
from glimmer_export.runtime.decode import SingleSteps

TRACE = DraftTrace("made up", 2, (((1, 1), (3, 2), (1, 1)), ((1, 1), (3, 3))))


@pytest.fixture
def verified(monkeypatch):
    """The positions of each run behind an answer's first."""
    lengths, verify = [], SingleSteps.verify

    def noted(steps, ids, positions):
        lengths.append(ids.shape[1])
        return verify(steps, ids, positions)

    monkeypatch.setattr(SingleSteps, "verify", noted)
    return lengths


def test_the_runs_are_those_of_the_trace(bench_options, bench_report, verified):
    assert bench_report.peers  # everything is exported
    report = replay_trace(bench_options, TRACE)
    assert set(report.bundles) == {"ours", "int8"}
    assert report.tokens_a_run == pytest.approx(8 / 5)
    for row in report.bundles.values():
        assert (row.questions, row.groups, row.runs) == (2, 2, (8, 5))
    warmed, plain, drafted = [1, 1, 3, 3] * 2, [1] * 3 + [1] * 3, [3, 1, 3]
    assert sorted(verified) == sorted(2 * (warmed + plain + drafted))


def test_the_other_stages_are_all_but_decoding(bench_options, bench_report, monkeypatch):
    assert bench_report.peers
    times = {"question_encoder": 1.0, "live_stage_b": 3.0, "decode": 5.0, "total": 9.5}  # and what lies between stages
    answer = SimpleNamespace(error=None, milliseconds=times)
    monkeypatch.setattr(Session, "answer_many", lambda _, questions, *__, **___: [answer for _ in questions])
    row = replay_trace(replace(bench_options, peers=()), TRACE).bundles["ours"]
    assert row.other_ms == 4.5
    assert row.end_to_end == pytest.approx((4.5 + row.plain_ms) / (4.5 + row.drafted_ms))
