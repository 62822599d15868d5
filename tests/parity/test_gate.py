"""The gate: what it limits, what it must have measured to say anything, and bad gates."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from glimmer_export.calibration.questions import Question
from glimmer_export.exporter.config.read import config_names
from glimmer_export.exporter.parity import ParityOptions, ParityRequest, run_parity
from glimmer_export.exporter.parity.gate import judge, read_gate
from glimmer_export.runtime import Session
from glimmer_export.runtime.contract import MANIFEST, GateCheck, OptionError, OutputError
from glimmer_export.runtime.store import Passage
from tests.bundle_factory import rewrite
from tests.exported import copy_bundle, question_answered, update_manifest
from tests.parity.asked import FEW, GATE, answered_rows, write_gate
from tests.parity.noise import noisy_bundle

OPTIONS = ParityOptions(threads=1)
COVERAGE = [
    "min_answered", "max_refused_share", "min_other_graphs", "max_rounded_reference_graphs", "max_fp16_graphs_in_fp32",
]  # fmt: skip
LIMITS = [
    "max_em_loss_points", "min_answers_equal_of_correct", "min_top_m_overlap", "max_gold_in_top_m_loss_points",
]  # fmt: skip
MANY = {"asked": 5000, "answered": 4000, "distinct": 4000, "graded": 4000, "right": 3900, "ranked": 4000}


@pytest.fixture(scope="module")
def rows(glimmer):
    return answered_rows(glimmer)


@pytest.fixture(scope="module")
def close(glimmer, tmp_path_factory):
    """A bundle of other graphs, which answers alike."""
    return noisy_bundle(glimmer, tmp_path_factory.mktemp("close") / "bundle", "live_stage_b", 1e-6)


@pytest.fixture(scope="module")
def report(glimmer, close, rows):
    return run(glimmer, close, rows, None)


def run(source, bundle, rows, gate="default", **rest):
    rest = {"reference": source.bundle, "options": OPTIONS, **rest}
    return run_parity(ParityRequest(bundle, store=source.store, gate=gate, **rest), rows)


def test_a_mass_is_judged_and_not_recorded(glimmer, close, rows, tmp_path):
    """What a record lets a session require is a bundle that reads all m."""
    bundle = shutil.copytree(close, tmp_path / "bundle")
    gate = write_gate(tmp_path)
    report = run(glimmer, bundle, rows, gate, options=ParityOptions(threads=1, mass=1.0))
    assert report.gate.verdict == "passed"
    assert not (bundle / "parity.json").exists()
    assert run(glimmer, bundle, rows, gate, options=ParityOptions(threads=1)).gate.verdict == "passed"
    recorded = (bundle / "parity.json").read_bytes()
    assert run(glimmer, bundle, rows, gate, options=ParityOptions(threads=1, mass=0.01)).gate.verdict == "failed"
    assert (bundle / "parity.json").read_bytes() == recorded
    with Session.open(bundle, glimmer.store, threads=1, backend="onnxruntime-cpu", require_parity=True) as session:
        assert session.answer("w1 w2").error is None
        with pytest.raises(OptionError, match="parity record"):
            session.answer("w1 w2", mass=0.5)


def test_a_shortlist_is_judged_and_not_recorded(exported, tmp_path):
    cascade = exported("glimmer, cascade")
    rows = answered_rows(cascade)
    bundle = shutil.copytree(cascade.bundle, tmp_path / "bundle")
    gate = write_gate(tmp_path)
    report = run(cascade, bundle, rows, gate, options=ParityOptions(threads=1, exact_ranking=True))
    assert report.gate.verdict == "failed"
    assert "min_top_m_overlap" in {check.name for check in report.gate.checks if not check.passed}
    assert not (bundle / "parity.json").exists()
    assert run(cascade, bundle, rows, gate, options=ParityOptions(threads=1)).gate.verdict == "not measured"


def test_drafts_are_judged_and_not_recorded(glimmer, close, rows, tmp_path):
    bundle = shutil.copytree(close, tmp_path / "bundle")
    report = run(glimmer, bundle, rows, write_gate(tmp_path), options=ParityOptions(threads=1, draft_tokens=4))
    assert report.gate.verdict == "passed"
    assert not (bundle / "parity.json").exists()


def missed(gate):
    return [check.name for check in gate.checks if not check.passed]


def covered(report, **counts):
    return replace(report, coverage=replace(report.coverage, **{**MANY, "with_gold": 4000, **counts}))


def test_enough_questions_and_no_loss_pass(report):
    gate = judge(*read_gate("default"), covered(report))
    assert (gate.verdict, gate.passed) == ("passed", True)
    assert [check.name for check in gate.checks] == [*COVERAGE, *LIMITS]
    assert {check.name: check.questions for check in gate.checks} == {
        "min_answered": 4000, "max_refused_share": 5000, "min_other_graphs": None,
        "max_rounded_reference_graphs": None, "max_fp16_graphs_in_fp32": None, "max_em_loss_points": 4000,
        "min_answers_equal_of_correct": 3900, "min_top_m_overlap": 4000, "max_gold_in_top_m_loss_points": 4000,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("counts", "names"),
    [
        ({"answered": 999, "distinct": 999}, ["min_answered"]),
        ({"distinct": 1}, ["min_answered"]),
        ({"refused": 51}, ["max_refused_share"]),
        ({"asked": 0, "answered": 0, "distinct": 0}, ["min_answered", "max_refused_share"]),
        ({"graded": 99}, ["max_em_loss_points"]),
        ({"right": 99}, ["min_answers_equal_of_correct"]),
        ({"ranked": 99}, ["min_top_m_overlap"]),
        ({"with_gold": 99}, ["max_gold_in_top_m_loss_points"]),
    ],
)
def test_too_few_are_not_measured(report, counts, names):
    gate = judge(*read_gate("default"), covered(report, **counts))
    assert (gate.verdict, gate.passed, missed(gate)) == ("not measured", False, names)


def test_a_loss_fails_where_it_was_measured(report):
    name, gate = read_gate("default")
    lost = covered(replace(report, em=replace(report.em, delta=-0.0051)))
    assert (judge(name, gate, lost).verdict, missed(judge(name, gate, lost))) == ("failed", ["max_em_loss_points"])
    assert judge(name, gate, covered(lost, answered=10, distinct=10)).verdict == "not measured"


def test_exactly_the_limit_passes(report):
    name, gate = read_gate("default")
    lost = covered(replace(report, em=replace(report.em, delta=0.965 - 0.97)))
    assert judge(name, gate, lost).passed
    assert judge(name, gate, covered(replace(report, em=replace(report.em, delta=0.3)))).passed
    assert judge(name, gate, covered(report, answered=1000, distinct=1000, asked=1010, refused=10)).passed


def test_a_gate_has_the_minimum_whether_it_names_it_or_not(tmp_path):
    _, gate = read_gate(write_gate(tmp_path, "description: mine\nmin_answers_equal: 0.5\n"))
    assert (gate.min_answered, gate.max_refused_share) == (1000, 0.01)
    _, default = read_gate("default")
    assert (default.min_answered, default.max_refused_share) == (1000, 0.01)


def test_a_few_questions_are_enough_only_for_a_gate_that_says_so(glimmer, close, rows, tmp_path):
    assert run(glimmer, close, rows).gate.verdict == "not measured"
    assert run(glimmer, close, rows, write_gate(tmp_path)).gate.verdict == "passed"
    assert missed(run(glimmer, close, rows[:1], write_gate(tmp_path)).gate)[0] == "min_answered"


def test_one_question_over_and_over_is_one(glimmer, close, rows, tmp_path):
    gate = run(glimmer, close, rows[:1] * len(rows), write_gate(tmp_path)).gate
    assert gate.verdict == "not measured"
    assert gate.checks[0] == GateCheck("min_answered", FEW, 1, passed=False, questions=len(rows))


def test_questions_that_retrieve_nothing_count_for_nothing(glimmer, close, rows, tmp_path):
    nowhere = [Question(f"n{place}", f"nowhere{place}", ("x",), None, ()) for place in range(20)]
    refused = [Question("r", "", ("x",), None, ())]
    report = run(glimmer, close, [*nowhere, *refused], write_gate(tmp_path))
    counts = report.coverage
    assert (counts.asked, counts.answered, counts.refused, counts.unretrieved) == (21, 0, 1, 20)
    assert report.answers_equal is report.em.delta is report.top_m_overlap is None
    assert report.gate.verdict == "not measured"
    mixed = run(glimmer, close, [*rows, *nowhere, *refused], None)
    assert (mixed.coverage.answered, mixed.coverage.asked) == (len(rows), len(rows) + 21)
    assert (mixed.em.reference, mixed.answers_equal) == (1.0, 1.0)
    data = mixed.to_json()
    assert data["coverage"]["asked"] == data["coverage"]["answered"] + 21
    assert data["coverage"]["refused"] == 1


def test_a_selection_without_a_choice_says_nothing(glimmer, close, rows, tmp_path):
    report = run(glimmer, close, rows, write_gate(tmp_path), options=ParityOptions(top_k=2, top_m=2, threads=1))
    assert (report.coverage.ranked, report.top_m_overlap) == (0, 1.0)
    assert (report.gate.verdict, missed(report.gate)) == ("not measured", ["min_top_m_overlap"])


def test_a_bundle_beside_itself_or_a_copy_shows_nothing(glimmer, rows, tmp_path):
    bundle = copy_bundle(glimmer, tmp_path / "bundle")
    for reference in (bundle, glimmer.bundle):
        report = run(glimmer, bundle, rows, write_gate(tmp_path), reference=reference)
        assert (report.gate.verdict, missed(report.gate)) == ("not measured", ["min_other_graphs"])
        assert report.compared.same == report.compared.graphs == len(glimmer.io)


def test_a_checkpoint_is_always_another(glimmer, rows, tmp_path):
    bundle = copy_bundle(glimmer, tmp_path / "bundle")
    request = ParityRequest(
        bundle, checkpoint=glimmer.checkpoint, store=glimmer.store, options=OPTIONS, gate=write_gate(tmp_path)
    )
    assert run_parity(request, rows).gate.verdict == "passed"


def set_precision(bundle, graph, precision):
    manifest = json.loads((bundle / MANIFEST).read_text(encoding="utf-8"))
    manifest["graphs"][graph]["precision"] = precision
    rewrite(bundle / MANIFEST, **manifest)
    return bundle


def test_fp16_that_the_cpu_computes_in_fp32_is_not_measured(glimmer, close, rows, tmp_path):
    bundle = set_precision(shutil.copytree(close, tmp_path / "bundle"), "live_stage_b", "fp16")
    gate = run(glimmer, bundle, rows, write_gate(tmp_path)).gate
    assert (gate.verdict, missed(gate)) == ("not measured", ["max_fp16_graphs_in_fp32"])


def test_a_reference_that_is_rounded_itself_is_none(glimmer, close, rows, tmp_path):
    reference = set_precision(copy_bundle(glimmer, tmp_path / "reference"), "decoder_step", "int8")
    gate = run(glimmer, close, rows, write_gate(tmp_path), reference=reference).gate
    assert (gate.verdict, missed(gate)) == ("not measured", ["max_rounded_reference_graphs"])


def test_a_bad_bundle_fails(glimmer, rows, tmp_path):
    bundle = noisy_bundle(glimmer, tmp_path / "bundle", "live_stage_b", 1.0)
    gate = run(glimmer, bundle, rows, write_gate(tmp_path)).gate
    assert gate.verdict == "failed"
    assert set(missed(gate)) == {"max_em_loss_points", "min_answers_equal_of_correct"}


def test_what_was_not_measured_does_not_pass(glimmer, close, rows, tmp_path):
    plain = [Question(row.qid, row.question, (), None, ()) for row in rows]
    report = run(glimmer, close, plain, write_gate(tmp_path))
    assert report.gate.verdict == "not measured"
    assert {check.name: (check.found, check.passed) for check in report.gate.checks[len(COVERAGE) :]} == {
        "max_em_loss_points": (None, False), "min_answers_equal_of_correct": (None, False),
        "min_top_m_overlap": (1.0, True), "max_gold_in_top_m_loss_points": (None, False),
    }  # fmt: skip
    name, gate = read_gate("default")
    assert [check.name for check in judge(name, gate, replace(report, selects=False)).checks] == [
        *COVERAGE, "max_em_loss_points", "min_answers_equal_of_correct",
    ]  # fmt: skip


def test_a_gate_of_ones_own(glimmer, rows, tmp_path):
    bundle = noisy_bundle(glimmer, tmp_path / "bundle", "live_stage_b", 0.01)
    strict = "description: strict\nmin_answered: 1\nmin_snr_db: {live_stage_b: 90, decoder_step: 90, encoder: 1}\n"
    gate = run(glimmer, bundle, rows, write_gate(tmp_path, strict)).gate
    checks = {check.name: check for check in gate.checks}
    assert gate.verdict == "failed"
    assert not checks["min_snr_db.live_stage_b"].passed
    assert checks["min_snr_db.decoder_step"].passed
    assert checks["min_snr_db.encoder"] == GateCheck("min_snr_db.encoder", 1.0, None, passed=False)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("description: x\nmax_em_loss: 1\n", "max_em_loss"),
        ("description: x\nmin_top_m_overlap: 98\n", "min_top_m_overlap"),
        ("description: x\nmin_answered: 0\nmin_top_m_overlap: 0.9\n", "min_answered"),
        ("description: x\nmin_answered: 9.5\nmin_top_m_overlap: 0.9\n", "min_answered"),
        ("description: x\nmax_refused_share: 2\nmin_top_m_overlap: 0.9\n", "max_refused_share"),
        ("description: x\nmin_snr_db: {decoder_step: -.inf}\n", "min_snr_db"),
        ("description: x\nmax_em_loss_points: .nan\n", "max_em_loss_points"),
        ("max_em_loss_points: 1\n", "description"),
        ("[1, 2", "YAML"),
        ("- 1\n", "expected a mapping of a gate's fields, found a list"),
        ("description: checks nothing\n", "at least one limit"),
        ("description: checks nothing\nmin_answered: 5\nmax_refused_share: 0.5\n", "at least one limit"),
        (f"{GATE}max_em_loss_points: 100\n", "max_em_loss_points' twice"),
    ],
)
def test_a_bad_gate_is_named(tmp_path, content, message):
    with pytest.raises(OptionError, match=message):
        read_gate(write_gate(tmp_path, content))


def test_an_unknown_gate_names_those_that_there_are(tmp_path):
    assert "default" in config_names("gate")
    for name in config_names("gate"):
        read_gate(name)
    with pytest.raises(OptionError, match="default"):
        read_gate("absent")
    with pytest.raises(OptionError, match=r"absent\.yaml"):
        read_gate(str(tmp_path / "absent.yaml"))


def test_what_cannot_be_written_is_said_before_anything_is_compared(glimmer, rows, tmp_path, monkeypatch):
    monkeypatch.setattr("runtime.Session.open", lambda *_, **__: pytest.fail("opened"))
    with pytest.raises(OutputError):
        run(glimmer, glimmer.bundle, rows, None, html=tmp_path / "absent" / "report.html")
    with pytest.raises(OptionError, match="absent"):
        run(glimmer, glimmer.bundle, rows, "absent")
    bundle = copy_bundle(glimmer, tmp_path / "bundle")
    (bundle / "parity.json").mkdir()
    with pytest.raises(OutputError):
        run(glimmer, bundle, rows)


def test_what_neither_side_says_a_word_to_is_no_part_of_the_minimum(glimmer, close, rows, tmp_path):
    """One question is answered with EOS alone, by both."""
    silent = question_answered(glimmer, lambda answer: not answer.answer)
    spoken = [row.question for row in rows]
    asked = [Question(f"{place}", text, ("x",), None, ()) for place, text in enumerate((silent, silent, *spoken))]
    counts = run(glimmer, close, asked, None).coverage
    assert (counts.asked, counts.answered, counts.distinct) == (len(asked), len(asked), len(rows))
    assert counts.blank == 2
    quiet = [Question(f"{number}", silent, ("x",), None, ()) for number in range(2 * FEW)]
    assert missed(run(glimmer, close, quiet, write_gate(tmp_path)).gate)[0] == "min_answered"


def test_white_space_and_another_order_of_passages_make_no_other_question(glimmer, close, rows):
    spaced = [Question(row.question, f" {row.question}  ", row.answers, None, ()) for row in rows]
    counts = run(glimmer, close, [*rows, *spaced], None).coverage
    assert (counts.answered, counts.distinct) == (2 * len(rows), len(rows))
    given = [Passage(None, "", text) for text in ("w1 w2", "w3 w4", "w5 w6")]
    turned = [replace(row, passages=tuple(order)) for row in rows for order in (given, given[::-1])]
    counts = run(glimmer, close, turned, None, options=ParityOptions(threads=1, given_passages=True)).coverage
    assert counts.distinct == len(rows) - counts.blank // 2 > 0


def test_a_candidate_that_falls_silent_is_answered_and_wrong(glimmer, rows, tmp_path):
    bundle = copy_bundle(glimmer, tmp_path / "silent")
    path = bundle / "graphs" / "decoder_step.onnx"
    model = onnx.load(path)
    end = numpy_helper.from_array(np.array([[glimmer.shape.eos_token_id]], np.int32), "end")
    model.graph.initializer.append(end)
    for node in model.graph.node:
        node.output[:] = ["unsaid" if name == "next_token" else name for name in node.output]
    model.graph.initializer.append(numpy_helper.from_array(np.array(0, np.int32), "nothing"))
    model.graph.node.extend([
        onnx.helper.make_node("Mul", ["unsaid", "nothing"], ["no_token"]),
        onnx.helper.make_node("Add", ["no_token", "end"], ["next_token"]),
    ])  # fmt: skip
    onnx.save(model, path)
    update_manifest(bundle, "decoder_step")
    report = run(glimmer, bundle, rows, write_gate(tmp_path))
    assert (report.coverage.answered, report.answers_equal, report.em.candidate) == (len(rows), 0.0, 0.0)
    assert report.gate.verdict == "failed"
