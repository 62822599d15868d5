"""Parity finds a good bundle good, and says which graph of a bad one is bad."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import fields
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from glimmer_export.calibration.questions import Question
from glimmer_export.exporter.parity import ParityOptions, ParityReport, compare_with_checkpoint
from glimmer_export.exporter.parity.graph_errors import GraphError
from glimmer_export.exporter.parity.reference import TorchReference
from glimmer_export.exporter.parity.sides import GraphSide
from glimmer_export.runtime import Passage
from glimmer_export.runtime.codecs import decode_fp16, encode_fp16
from glimmer_export.runtime.contract import CheckpointError, OptionError, QuestionFileError, StoreError
from glimmer_export.runtime.decode import SingleSteps
from tests.exported import (
    CORPUS,
    QUESTIONS,
    REWRITTEN_VARIANTS,
    VARIANTS,
    Exported,
    copy_bundle,
    make_checkpoint,
    update_manifest,
)
from tests.reference_answers import reference_answer, words

IDS = [row["id"] for row in CORPUS]
ONE_THREAD = ParityOptions(threads=1)
SMALL = 1e-3
"""Far above what a good graph errs here, whose largest values are below 50, and below what a perturbed one does."""


def question(text: str, *answers: str, passages=None, qid: str = "q") -> Question:
    return Question(qid, text, answers, passages, ())


def given_rows() -> list[Question]:
    return [question(text, passages=tuple(IDS[place : place + 1 + place % 5])) for place, text in enumerate(QUESTIONS)]


def compare(source: Exported, questions, options: ParityOptions = ONE_THREAD, *, bundle: Path | None = None, **rest):
    return compare_with_checkpoint(
        bundle or source.bundle, rest.get("checkpoint", source.checkpoint), rest.get("store", source.store), questions,
        options,
    )


def assert_good(report: ParityReport, source: Exported, count: int, *, ranked: bool = True) -> None:
    assert (report.questions, report.errors) == (count, 0)
    assert report.answers_equal == 1.0
    assert report.top_m_overlap == (1.0 if source.shape.traits.selects else None)
    assert list(report.graphs) == list(source.io)
    assert max(error.max_abs_err for error in report.graphs.values()) < SMALL
    assert min(error.snr_db for error in report.graphs.values()) > 80
    assert min(error.cosine for error in report.graphs.values()) > 0.999999
    assert report.kendall_tau == (1.0 if source.shape.traits.selects and ranked else None)
    assert (report.em.delta, report.first_difference.count, list(report.differences)) == (None, 0, [])
    assert (report.memory_max_abs_err is None) == (not source.shape.traits.has_memory)


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("passages", ["retrieved", "given"])
def test_a_good_bundle_is_equal_in_every_token(exported, variant, passages):
    source = exported(variant)
    rows = given_rows() if passages == "given" else [question(text) for text in QUESTIONS]
    options = ParityOptions(given_passages=passages == "given", batch_size=3, threads=1)
    told: dict[str, list[int]] = {}

    @contextmanager
    def progress(what, total):
        told[what] = []
        yield told[what].append

    report = compare_with_checkpoint(
        source.bundle, source.checkpoint, source.store, rows, options, progress=progress
    )
    assert_good(report, source, len(QUESTIONS))
    assert (report.passages, report.reference_memory) == (passages, "store")
    assert told["Answering"] == [3, 3, 2]


@pytest.mark.parametrize("variant", REWRITTEN_VARIANTS)
def test_with_memory_of_its_own_the_reference_measures_the_codec(exported, variant):
    source = exported(variant)
    report = compare(source, [question(text) for text in QUESTIONS], ParityOptions(exact_memory=True, threads=1))
    assert report.reference_memory == "exact"
    assert report.answers_equal == 1.0
    if source.shape.traits.has_memory:
        # FP16 with 11 bits: no state of these models is beyond 2**7, and no store of one is exact.
        assert 0 < report.memory_max_abs_err < 2**7 * 2**-11


@pytest.mark.parametrize("exact", [False, True])
def test_the_reference_reads_the_memory_it_is_said_to(glimmer, monkeypatch, exact):
    read = []
    answer = TorchReference.answer

    def spy(self, tokens, passages, memory, num_selected):
        read.extend(memory)
        return answer(self, tokens, passages, memory, num_selected)

    monkeypatch.setattr(TorchReference, "answer", spy)
    # Fewer observed runs than questions: of the rest, the memory comes from elsewhere.
    options = ParityOptions(exact_memory=exact, observed_runs=2, threads=1)
    assert compare(glimmer, [question(text) for text in QUESTIONS], options).answers_equal == 1.0
    assert len(read) > 20
    through_codec = [(decode_fp16(*encode_fp16(states)) == states).all() for states in read]
    assert set(through_codec) == {not exact}


def test_graphs_are_observed_on_questions_from_first_to_last(glimmer, monkeypatch):
    """Four of ten, two at a time: a file of questions is often sorted."""
    seen, answer = [], GraphSide.answer

    def spy(self, rows):
        seen.append([row.question.qid for row in rows])
        return answer(self, rows)

    monkeypatch.setattr(GraphSide, "answer", spy)
    rows = [question(f"w{number} w7", passages=tuple(IDS[:3]), qid=str(number)) for number in range(10)]
    compare(glimmer, rows, ParityOptions(given_passages=True, observed_runs=2, batch_size=2, threads=1))
    assert seen[:2] == [["0", "6"], ["3", "9"]]


@pytest.mark.parametrize("variant", REWRITTEN_VARIANTS)
def test_texts_need_no_store(exported, variant):
    source = exported(variant)
    rows = [
        question(row.question, passages=tuple(Passage(None, CORPUS[place]["title"], CORPUS[place]["text"])
                                              for place in range(3)))
        for row in given_rows()
    ]  # fmt: skip
    report = compare(source, rows, ParityOptions(given_passages=True, threads=1), store=None)
    assert (report.questions, report.answers_equal) == (len(rows), 1.0)
    assert report.memory_max_abs_err is None


@pytest.mark.parametrize("name", ["17", 1, "elsewhere"])
def test_a_given_text_is_not_mistaken_for_the_stores_passage_of_its_id(glimmer, name):
    """FiD's files number their texts, and the numbers are of another corpus."""
    texts = ["w3 w4 w5 w6", "w50 w51", "w20 w21 w22"]
    rows = [question(text, passages=tuple(Passage(name, "w9", text) for text in texts)) for text in QUESTIONS]
    report = compare(glimmer, rows, ParityOptions(given_passages=True, threads=1))
    assert (report.answers_equal, report.top_m_overlap) == (1.0, 1.0)


GRAPHS = [
    ("glimmer", name) for name in ("memory_encoder", "live_stage_a", "live_stage_b", "cross_kv", "decoder_step")
] + [("lumen", "question_encoder"), ("lumen", "live_stage_b"), ("memory_fid", "decoder_prefill"), ("fid", "encoder")]


@pytest.mark.parametrize(("variant", "graph"), GRAPHS)
def test_the_error_of_a_perturbed_graph_grows_and_of_no_other(exported, tmp_path, variant, graph):
    source = exported(variant)
    bundle = copy_bundle(source, tmp_path / "bundle")
    path = bundle / "graphs" / f"{graph}.onnx"
    model = onnx.load(path)
    # A projection: of a table one token picks one row alone.
    weight = next(item for item in model.graph.initializer if item.name.endswith(("v.weight", "o.weight")))
    values = numpy_helper.to_array(weight)
    noise = np.random.default_rng(0).normal(1, 0.05, values.shape)
    weight.CopyFrom(numpy_helper.from_array((values * noise).astype(values.dtype), weight.name))
    onnx.save(model, path)
    update_manifest(bundle, graph)
    report = compare(source, [question(text) for text in QUESTIONS], bundle=bundle)
    assert {name for name, error in report.graphs.items() if error.max_abs_err > SMALL} == {graph}
    assert {name for name, error in report.graphs.items() if error.snr_db < 60} == {graph}


def test_other_answers_are_counted(glimmer, tmp_path):
    """A decoder that says the second best word instead: no answer is equal, while what is read is."""
    bundle = copy_bundle(glimmer, tmp_path / "bundle")
    path = bundle / "graphs" / "decoder_step.onnx"
    model = onnx.load(path)
    (argmax,) = (node for node in model.graph.node if node.op_type == "ArgMax")
    negated = onnx.helper.make_node("Neg", [argmax.input[0]], ["negated"])
    argmax.input[0] = "negated"
    model.graph.node.insert(list(model.graph.node).index(argmax), negated)
    onnx.save(model, path)
    update_manifest(bundle, "decoder_step")
    report = compare(glimmer, [question(text) for text in QUESTIONS], bundle=bundle)
    assert (report.answers_equal, report.top_m_overlap) == (0.0, 1.0)


def test_another_selection_is_measured(glimmer, tmp_path):
    """Scores of the other sign choose the other passages: of three, two are read, so one is always shared."""
    bundle = copy_bundle(glimmer, tmp_path / "bundle")
    path = bundle / "graphs" / "live_stage_a.onnx"
    model = onnx.load(path)
    for node in model.graph.node:
        node.output[:] = ["positive" if name == "scores" else name for name in node.output]
    model.graph.node.append(onnx.helper.make_node("Neg", ["positive"], ["scores"]))
    onnx.save(model, path)
    update_manifest(bundle, "live_stage_a")
    rows = [question(row.question, passages=tuple(IDS[:3])) for row in given_rows()]
    report = compare(glimmer, rows, ParityOptions(given_passages=True, threads=1), bundle=bundle)
    assert report.top_m_overlap == 0.5
    assert report.kendall_tau == -1.0


def test_top_k_and_top_m_hold_for_both(glimmer):
    rows = [question(text) for text in QUESTIONS]
    for top_k, top_m in ((1, None), (3, 1), (4, 4), (2, 5)):
        report = compare(glimmer, rows, ParityOptions(top_k=top_k, top_m=top_m, threads=1))
        assert_good(report, glimmer, len(rows), ranked=top_k > 1)


def test_a_mass_bounds_the_candidate_alone(glimmer):
    """What it still reads is among what torch reads, so that the overlap is whole, of the candidate's passages."""
    rows = [question(text) for text in QUESTIONS]
    report = compare(glimmer, rows, ParityOptions(top_m=4, mass=0.55, threads=1))
    read = [len(glimmer.session.answer(text, top_m=4, mass=0.55).selected) for text in QUESTIONS]
    assert report.passages_read.candidate == np.mean(read) < report.passages_read.reference == 4
    assert report.top_m_overlap == 1.0
    assert (data := report.to_json())["mass"] == 0.55
    assert data["passages_read"] == {"reference": 4.0, "candidate": np.mean(read)}
    assert compare(glimmer, rows).to_json()["mass"] is None


def test_drafts_are_the_candidates_alone(glimmer, monkeypatch):
    rows, verified = [question(text) for text in QUESTIONS], []
    verify = SingleSteps.verify
    monkeypatch.setattr(SingleSteps, "verify", lambda *given: verified.append(given[1].shape) or verify(*given))
    report = compare(glimmer, rows, ParityOptions(draft_tokens=3, batch_size=2, threads=1))
    assert_good(report, glimmer, len(rows))
    assert max(length for _, length in verified) == 4
    assert report.to_json()["draft_tokens"] == 3
    verified.clear()
    assert compare(glimmer, rows).to_json()["draft_tokens"] == 0
    assert verified == []


def test_metrics_are_of_the_rows_that_have_answers(glimmer):
    answers = [glimmer.session.answer(text) for text in QUESTIONS]
    right = [reference_answer(glimmer, answer.question, [item.passage.id for item in answer.passages]).tokens
             for answer in answers]  # fmt: skip
    rows = [question(text) for text in QUESTIONS]
    assert (found := compare(glimmer, rows)).em.reference is None
    assert found.em.candidate is found.f1.reference is found.f1.candidate is found.em.interval is None
    rows[0] = question(QUESTIONS[0], "wrong", words(right[0]))
    rows[1] = question(QUESTIONS[1], "wrong")
    found = compare(glimmer, rows)
    assert (found.em.reference, found.em.candidate, found.em.delta, found.em.interval) == (0.5, 0.5, 0.0, (0.0, 0.0))
    assert (found.f1.reference, found.f1.candidate, found.f1.delta) == (0.5, 0.5, 0.0)
    assert found.answers_equal_of_correct == 1.0


def test_questions_that_cannot_be_taken_are_counted(glimmer):
    rows = [question(QUESTIONS[0], "x"), question("", "x"), question("w1 " * 20, "x"), question("nowhere", "x")]
    report = compare(glimmer, rows)
    assert (report.questions, report.errors, report.answers_equal) == (2, 2, 1.0)
    assert (report.coverage.answered, report.coverage.unretrieved) == (1, 1)
    nothing = compare(glimmer, rows[1:3])
    assert (nothing.questions, nothing.errors, nothing.answers_equal, nothing.graphs) == (0, 2, None, {})


def test_another_checkpoint_is_refused(glimmer, exported, tmp_path):
    with pytest.raises(CheckpointError, match="was made from"):
        compare(glimmer, [question("w1")], checkpoint=exported("fid").checkpoint)
    other = make_checkpoint(tmp_path / "other", "glimmer", num_retrieved=4)
    with pytest.raises(CheckpointError, match="was made from"):
        compare(glimmer, [question("w1")], checkpoint=other)


def test_what_cannot_be_compared_is_named(glimmer, exported):
    with pytest.raises(StoreError):
        compare(glimmer, [question("w1")], store=exported("lumen").store)
    with pytest.raises(QuestionFileError, match="ctx_ids"):
        compare(glimmer, [question("w1")], ParityOptions(given_passages=True, threads=1))
    with pytest.raises(OptionError, match="top_m"):
        compare(exported("lumen"), [question("w1")], ParityOptions(top_m=2, threads=1))


def test_the_report_has_the_promised_keys(glimmer):
    data = compare(glimmer, [question("w1", "w2")]).to_json()
    assert {
        "questions", "coverage", "compared", "answers_equal", "top_m_overlap",
        "em_reference", "em_candidate", "f1_reference", "f1_candidate",
        "kendall_tau", "gold_in_top_m", "answers_equal_of_correct", "em_delta", "em_delta_interval", "f1_delta",
        "f1_delta_interval", "first_difference", "differences", "attribution", "gate",
    } <= set(data)
    assert {name: list(entry) for name, entry in data["graphs"].items()} == {
        name: [field.name for field in fields(GraphError)] for name in glimmer.io
    }
