"""The parity command: what it refuses, prints, writes and exits with."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from glimmer_export.exporter.parity.options import parity_backend
from glimmer_export.runtime.contract import BackendError, BundleError, OptionError, QuestionFileError
from tests.bundle_factory import write_rows
from tests.cli.test_missing_extras import run_without
from tests.exported import QUESTIONS
from tests.parity.asked import GATE, write_gate
from tests.parity.noise import noisy_bundle


@pytest.fixture
def questions(glimmer, tmp_path):
    answers = [item for item in glimmer.session.answer_many(QUESTIONS) if item.answer]
    rows = [
        {"question": item.question, "answers": [item.answer], "gold_ids": [item.passages[item.selected[0]].passage.id]}
        for item in answers
    ]
    return write_rows(tmp_path / "questions.jsonl", rows)


def test_against_another_bundle_with_everything(cli, glimmer, questions, tmp_path):
    bundle = noisy_bundle(glimmer, tmp_path / "bundle", "live_stage_b", 1e-6)
    arguments = (
        "parity", bundle, "--reference", glimmer.bundle, "--store", glimmer.store, "--reference-store", glimmer.store,
        "--questions", questions, "--attribution", "--gate", write_gate(tmp_path), "--html", tmp_path / "page.html",
        "--threads", 1,
    )  # fmt: skip
    report = cli(*arguments, "--json").json
    assert (report["em_delta"], report["em_delta_interval"], report["kendall_tau"]) == (0.0, [0.0, 0.0], 1.0)
    assert report["gold_in_top_m"] == {"reference": 1.0, "candidate": 1.0}
    assert report["answers_equal_of_correct"] == 1.0
    asked = len(questions.read_text(encoding="utf-8").splitlines())
    assert report["coverage"]["asked"] == report["coverage"]["answered"] == report["coverage"]["distinct"] == asked > 2
    assert report["graphs"]["decoder_step"] == {"max_abs_err": 0, "mean_abs_err": 0, "snr_db": None, "cosine": 1}
    assert list(report["attribution"]) == [report["costliest_part"]] == ["live_stage_b"]
    assert {
        "em_delta", "em_delta_interval", "answers_equal", "top_m_overlap", "log_prob_delta", "log_prob_error",
        "score_snr_db",
    } == set(report["attribution"]["live_stage_b"])
    gate = report["gate"]
    assert (gate["name"], gate["verdict"], gate["passed"]) == ("few.yaml", "passed", True)
    assert report["differences"] == []
    recorded = json.loads((bundle / "parity.json").read_text(encoding="utf-8"))
    assert recorded["records"][0]["report"] == report
    assert (tmp_path / "page.html").stat().st_size > 5000
    done = cli(*arguments)
    assert done.code == 0
    for word in ("reference bundle", "costs most: live_stage_b", "Kendall", "Gate few.yaml: passed", "page.html"):
        assert word in done.out
    assert cli("inspect", bundle, "--json").code == 0


def test_a_gate_that_fails_exits_with_1(cli, glimmer, questions, tmp_path):
    bundle = noisy_bundle(glimmer, tmp_path / "bundle", "live_stage_b", 1.0)
    arguments = ("parity", bundle, "--reference", glimmer.bundle, "--store", glimmer.store, "--questions", questions)
    assert cli(*arguments).code == 0
    done = cli(*arguments, "--gate", write_gate(tmp_path), "--json")
    assert done.code == 1
    report = json.loads(done.out)
    assert (report["gate"]["verdict"], report["gate"]["passed"]) == ("failed", False)
    assert report["first_difference"]["count"] == len(report["differences"]) > 0
    assert set(report["differences"][0]) == {"qid", "question", "step", "margin", "reference", "candidate"}
    done = cli(*arguments, "--gate", write_gate(tmp_path))
    assert done.code == 1
    for word in ("FAILED", "answers differ", "margin"):
        assert word in done.out


def test_too_few_questions_are_not_measured_and_no_witness(cli, refused, glimmer, questions, tmp_path):
    bundle = noisy_bundle(glimmer, tmp_path / "bundle", "live_stage_b", 1e-6)
    arguments = ("parity", bundle, "--reference", glimmer.bundle, "--store", glimmer.store, "--questions", questions)
    done = cli(*arguments, "--limit", 1, "--gate", "default")
    assert done.code == 1
    for word in ("Gate default: NOT MEASURED", "min_answered", "1000"):
        assert word in done.out
    asked = ("ask", bundle, "w1 w2", "--store", glimmer.store, "--backend", "onnxruntime-cpu", "--require-parity")
    assert "not measured: min_answered" in refused(BundleError, *asked, "witnessed")
    assert cli(*arguments, "--gate", write_gate(tmp_path)).code == 0
    for required in ("witnessed", "device"):
        assert cli(*asked, required).code == 0
    answered = ("answer", bundle, "--store", glimmer.store, "--questions", questions, "--require-parity", "device")
    assert cli(*answered).code == 0
    assert "--backend tensorrt " in refused(BundleError, *answered, "--backend", "tensorrt")


def test_markup_in_a_gate_is_text_and_its_file_is_not_taken_for_ours(cli, glimmer, questions, tmp_path):
    gate = tmp_path / "[red]default[x].yaml"
    gate.write_text(GATE + "min_snr_db:\n  '[/nothing]': 3\n", encoding="utf-8")
    bundle = noisy_bundle(glimmer, tmp_path / "bundle", "live_stage_b", 1e-6)
    arguments = ("parity", bundle, "--reference", glimmer.bundle, "--store", glimmer.store, "--questions", questions)
    done = cli(*arguments, "--gate", gate)
    assert done.code == 1
    assert "Gate [red]default[x].yaml: NOT MEASURED" in done.out
    assert "min_snr_db.[/nothing]" in done.out
    own = shutil.copy(write_gate(tmp_path), tmp_path / "default.yaml")
    assert cli(*arguments, "--gate", own, "--json").json["gate"]["name"] == "default.yaml"


def test_questions_that_nothing_is_found_for_are_not_called_without_answers(cli, glimmer, tmp_path):
    asked = write_rows(tmp_path / "q.jsonl", [{"question": "nowhere", "answers": ["x"]}])
    done = cli("parity", glimmer.bundle, "--reference", glimmer.bundle, "--store", glimmer.store, "--questions", asked)
    assert done.code == 0
    assert done.out.count("not measured: no question was answered") == 2


def test_what_does_not_fit_is_refused(refused, glimmer, exported, questions, tmp_path):
    arguments = ("parity", glimmer.bundle, "--store", glimmer.store, "--questions", questions)
    assert "neither" in refused(OptionError, *arguments)
    both = ("--checkpoint", glimmer.checkpoint, "--reference", glimmer.bundle)
    assert "both" in refused(OptionError, *arguments, *both)
    reference = (*arguments, "--reference", glimmer.bundle)
    assert "default" in refused(OptionError, *reference, "--gate", "absent")
    refused(OptionError, *reference, "--exact-memory")
    refused(BundleError, *arguments, "--reference", exported("fid").bundle)
    refused(BundleError, *arguments, "--reference", tmp_path / "absent")
    refused(QuestionFileError, "parity", glimmer.bundle, "--reference", glimmer.bundle, "--questions", tmp_path / "no")
    without_store = ("parity", glimmer.bundle, "--reference", glimmer.bundle, "--questions", questions)
    assert "store" in refused(OptionError, *without_store)


def test_two_bundles_are_compared_without_torch(glimmer, questions):
    arguments = ("parity", glimmer.bundle, "--reference", glimmer.bundle, "--store", glimmer.store, "--json")
    done = run_without("torch", *arguments, "--questions", questions, "--attribution", "--gate", "absent")
    assert done.returncode == 2
    assert "OptionError" in done.stderr
    done = run_without("torch", *arguments, "--questions", questions, "--limit", 2, "--attribution")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["answers_equal"] == 1.0


def test_an_unknown_backend_is_told_those_there_are():
    with (
        pytest.raises(OptionError, match=r"onnxruntime-cpu-fp16-rounded, tensorrt, .*onnxruntime-cpu, found"),
        parity_backend("tpu", Path("bundle"), None),
    ):
        pass


def test_a_backend_that_cannot_run_here_is_refused(refused, glimmer, questions):
    message = refused(
        BackendError, "parity", glimmer.bundle, "--reference", glimmer.bundle, "--store", glimmer.store,
        "--questions", questions, "--backend", "tensorrt",
    )
    assert "tensorrt" in message
