"""The gate, its record beside the manifest, and a session that is told to ask for it."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from calibration.questions import Question
from exporter.parity import ParityOptions, ParityRequest, run_parity
from exporter.parity.gate import gate_names, judge, read_gate
from exporter.parity.record import record_parity
from runtime import Session
from runtime.contract import (
    MANIFEST,
    PARITY_RECORD,
    BundleError,
    GateCheck,
    OptionError,
    OutputError,
    read_parity_record,
)
from tests.bundle_factory import rewrite
from tests.exported import QUESTIONS, copy_bundle
from tests.parity.noise import noisy_bundle

OPTIONS = ParityOptions(threads=1)


@pytest.fixture(scope="module")
def rows(glimmer):
    answers = glimmer.session.answer_many(QUESTIONS)
    gold = [answer.passages[answer.selected[0]].passage.id for answer in answers]
    return [
        Question(f"q{place}", answer.question, (answer.answer,), None, (gold[place],))
        for place, answer in enumerate(answers)
    ]


def run(source, bundle, rows, gate="default", **rest):
    return run_parity(
        ParityRequest(bundle, reference=source.bundle, store=source.store, options=OPTIONS, gate=gate, **rest), rows
    )


def test_a_good_bundle_passes_and_a_session_may_ask_for_it(glimmer, rows, tmp_path):
    bundle = copy_bundle(glimmer, tmp_path / "bundle")
    with pytest.raises(BundleError, match=PARITY_RECORD):
        Session.open(bundle, require_parity=True)
    report = run(glimmer, bundle, rows)
    assert report.gate.passed
    assert [check.name for check in report.gate.checks] == [
        "max_em_loss_points", "min_answers_equal_of_correct", "min_top_m_overlap", "max_gold_in_top_m_loss_points",
    ]  # fmt: skip
    record = read_parity_record(bundle)
    assert record.gate == report.gate
    assert record.report["answers_equal"] == 1.0
    assert record.report["graphs"]["decoder_step"]["snr_db"] is None
    Session.open(bundle, glimmer.store, require_parity=True).close()


def test_a_bad_bundle_fails_and_a_session_refuses_it_when_told_to(glimmer, rows, tmp_path):
    bundle = noisy_bundle(glimmer, tmp_path / "bundle", "live_stage_b", 1.0)
    report = run(glimmer, bundle, rows)
    assert not report.gate.passed
    assert {check.name for check in report.gate.checks if not check.passed} == {
        "max_em_loss_points", "min_answers_equal_of_correct",
    }  # fmt: skip
    with pytest.raises(BundleError, match="max_em_loss_points"):
        Session.open(bundle, require_parity=True)
    Session.open(bundle).close()


def test_a_record_of_another_manifest_is_stale(glimmer, rows, tmp_path):
    bundle = copy_bundle(glimmer, tmp_path / "bundle")
    run(glimmer, bundle, rows)
    manifest = bundle / MANIFEST
    manifest.write_text(manifest.read_text(encoding="utf-8") + "\n", encoding="utf-8")
    with pytest.raises(BundleError, match="a record of the manifest"):
        Session.open(bundle, require_parity=True)


def change(**values):
    return lambda path: rewrite(path, **values)


def change_gate(**values):
    def damage(path):
        data = json.loads(path.read_text(encoding="utf-8"))
        rewrite(path, gate={**data["gate"], **values})

    return damage


def drop(name):
    def damage(path):
        data = json.loads(path.read_text(encoding="utf-8"))
        del data[name]
        path.write_text(json.dumps(data), encoding="utf-8")

    return damage


CORRUPTIONS = [
    (lambda path: path.unlink(), "a file parity.json"),
    (lambda path: path.write_bytes(path.read_bytes()[:200]), "a JSON object"),
    (lambda path: path.write_text("[]", encoding="utf-8"), "a JSON object"),
    (lambda path: path.write_bytes(b"\xff\xfe"), "a JSON object"),
    (change(schema_version=3), "install a newer"),
    (change(schema_version="1"), "schema_version 1 to 2"),
    (change(schema_version=True), "schema_version 1 to 2"),
    (drop("schema_version"), "schema_version 1 to 2"),
    (drop("manifest_sha256"), "a field manifest_sha256"),
    (drop("gate"), "a field gate"),
    (drop("report"), "report: expected an object"),
    (change(report=[]), "report: expected an object"),
    (change(extra=1), "only the fields"),
    (change(manifest_sha256="abc"), "a SHA-256"),
    (change(manifest_sha256=1), "manifest_sha256"),
    (change(manifest_sha256="0" * 64), "a record of the manifest"),
    (change(gate=None), "gate: expected an object"),
    (change_gate(passed="yes"), "passed"),
    (change_gate(passed=False), "the result of its checks"),
    (change_gate(checks={}), "a list"),
    (change_gate(checks=[{"name": "x", "limit": 1, "found": 2, "passed": False}]), "the result of its checks"),
    (change_gate(checks=[{"name": "x", "limit": None, "found": 2, "passed": True}]), "limit"),
    (change_gate(surprise=1), "only the fields"),
]


@pytest.fixture(scope="module")
def recorded(glimmer, rows, tmp_path_factory):
    bundle = copy_bundle(glimmer, tmp_path_factory.mktemp("recorded") / "bundle")
    run(glimmer, bundle, rows)
    return bundle


@pytest.mark.parametrize(("damage", "message"), CORRUPTIONS)
def test_each_damage_to_the_record_is_named(recorded, damage, message):
    path = recorded / PARITY_RECORD
    content = path.read_bytes()
    try:
        damage(path)
        with pytest.raises(BundleError, match=message):
            Session.open(recorded, require_parity=True)
    finally:
        path.write_bytes(content)
    Session.open(recorded, require_parity=True).close()


def test_what_was_not_measured_does_not_pass(glimmer, exported, rows, tmp_path):
    bundle = copy_bundle(glimmer, tmp_path / "bundle")
    plain = [Question(row.qid, row.question, (), None, ()) for row in rows]
    report = run(glimmer, bundle, plain)
    assert {check.name: (check.found, check.passed) for check in report.gate.checks} == {
        "max_em_loss_points": (None, False), "min_answers_equal_of_correct": (None, False),
        "min_top_m_overlap": (1.0, True), "max_gold_in_top_m_loss_points": (None, False),
    }  # fmt: skip
    name, gate = read_gate("default")
    assert [check.name for check in judge(name, gate, replace(report, selects=False)).checks] == [
        "max_em_loss_points", "min_answers_equal_of_correct",
    ]  # fmt: skip


def test_a_gate_of_ones_own(glimmer, rows, tmp_path):
    bundle = noisy_bundle(glimmer, tmp_path / "bundle", "live_stage_b", 0.01)
    path = tmp_path / "strict.yaml"
    path.write_text("description: strict\nmin_snr_db: {live_stage_b: 90, decoder_step: 90, encoder: 1}\n", "utf-8")
    checks = {check.name: check for check in run(glimmer, bundle, rows, str(path)).gate.checks}
    assert not checks["min_snr_db.live_stage_b"].passed
    assert checks["min_snr_db.decoder_step"].passed
    assert checks["min_snr_db.encoder"] == GateCheck("min_snr_db.encoder", 1.0, None, passed=False)


def test_exactly_the_limit_passes(glimmer, rows, tmp_path):
    report = run(glimmer, glimmer.bundle, rows, None)
    name, gate = read_gate("default")
    lost = replace(report, em=replace(report.em, delta=0.965 - 0.97))
    assert judge(name, gate, lost).passed
    assert not judge(name, gate, replace(report, em=replace(report.em, delta=-0.0051))).passed
    assert judge(name, gate, replace(report, em=replace(report.em, delta=0.3))).passed


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("description: x\nmax_em_loss: 1\n", "max_em_loss"),
        ("description: x\nmin_top_m_overlap: 98\n", "min_top_m_overlap"),
        ("max_em_loss_points: 1\n", "description"),
        ("[1, 2", "YAML"),
        ("- 1\n", "limits"),
        ("description: checks nothing\n", "at least one limit"),
    ],
)
def test_a_bad_gate_is_named(tmp_path, content, message):
    path = tmp_path / "gate.yaml"
    path.write_text(content, encoding="utf-8")
    with pytest.raises(OptionError, match=message):
        read_gate(str(path))


def test_an_unknown_gate_names_those_that_there_are(tmp_path):
    assert "default" in gate_names()
    with pytest.raises(OptionError, match="default"):
        read_gate("absent")
    with pytest.raises(OptionError, match=r"absent\.yaml"):
        read_gate(str(tmp_path / "absent.yaml"))


def test_a_report_without_a_gate_is_not_recorded(glimmer, rows):
    with pytest.raises(ValueError, match="gate"):
        record_parity(glimmer.bundle, run(glimmer, glimmer.bundle, rows, None))
    assert not (glimmer.bundle / PARITY_RECORD).exists()


def test_what_cannot_be_written_is_said_before_anything_is_compared(glimmer, rows, tmp_path, monkeypatch):
    monkeypatch.setattr("runtime.Session.open", lambda *_, **__: pytest.fail("opened"))
    with pytest.raises(OutputError):
        run(glimmer, glimmer.bundle, rows, None, html=tmp_path / "absent" / "report.html")
    with pytest.raises(OptionError, match="absent"):
        run(glimmer, glimmer.bundle, rows, "absent")
    bundle = copy_bundle(glimmer, tmp_path / "bundle")
    (bundle / PARITY_RECORD).mkdir()
    with pytest.raises(OutputError):
        run(glimmer, bundle, rows)


