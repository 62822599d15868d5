"""Bundle against bundle, and attribution: the part that differs is the part that is blamed."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path

import numpy as np
import pytest

from glimmer_export.calibration.questions import Question
from glimmer_export.exporter.checkpoint import read_checkpoint
from glimmer_export.exporter.checkpoint.digest import checkpoint_digest
from glimmer_export.exporter.memory import build_store
from glimmer_export.exporter.parity import ParityOptions, compare_with_bundle, compare_with_checkpoint
from glimmer_export.exporter.parity.attribution import ForcedSide
from glimmer_export.exporter.parity.inputs import EncodedMemory, StoredMemory, TokensAlone, rows_from_questions
from glimmer_export.exporter.parity.reference import TorchReference
from glimmer_export.exporter.parity.show import html_from_report
from glimmer_export.exporter.parity.sides import GraphSide
from glimmer_export.exporter.tolerances import TOLERANCES
from glimmer_export.runtime import Session
from glimmer_export.runtime.backends import OnnxRuntimeBackend
from glimmer_export.runtime.contract import MANIFEST, BundleError, OptionError, StoreError
from tests.bundle_factory import rewrite, write_rows
from tests.exported import CORPUS, QUESTIONS, Exported, copy_bundle, make_checkpoint, update_manifest
from tests.parity.noise import noisy_bundle

QUICK = ("glimmer, every option", "memory_fid", "fid")
"""Between them every part there is."""
PARTS = {
    "glimmer": ["memory_encoder_store", "memory_encoder_question", "live_stage_a", "live_stage_b", "decoder"],
    "glimmer, every option": ["memory_encoder_store", "question_encoder", "live_stage_a", "live_stage_b", "decoder"],
    "glimmer, exact algebra, two layers": [
        "memory_encoder_store", "memory_encoder_question", "live_stage_a", "live_stage_b", "decoder",
    ],
    "lumen": ["memory_encoder_store", "question_encoder", "live_stage_b", "decoder"],
    "memory_fid": ["memory_encoder_store", "live_stage_b", "decoder"],
    "fid": ["encoder", "decoder"],
}  # fmt: skip
EVERY = [pytest.param(name, marks=[] if name in QUICK else pytest.mark.slow) for name in PARTS]
ATTRIBUTION = ParityOptions(attribution=True, batch_size=3, threads=1)


def rows(source: Exported) -> list[Question]:
    """Questions with the answers that the good bundle gives, and the best passage as gold."""
    answers = source.session.answer_many(QUESTIONS)
    return [
        Question(f"q{place}", answer.question, (answer.answer,), None, (answer.passages[0].passage.id,))
        for place, answer in enumerate(answers)
    ]


def compare(source: Exported, candidate: Path, reference: Path, options: ParityOptions = ATTRIBUTION, **rest):
    return compare_with_bundle(candidate, reference, rest.pop("store", source.store), rows(source), options, **rest)


@pytest.mark.parametrize("variant", EVERY)
def test_a_bundle_is_equal_to_itself_in_every_part(exported, variant):
    source = exported(variant)
    report = compare(source, source.bundle, source.bundle)
    assert (report.questions, report.answers_equal, report.answers_equal_of_correct) == (len(QUESTIONS), 1.0, 1.0)
    assert (report.em.reference, report.em.delta, report.em.interval) == (1.0, 0.0, (0.0, 0.0))
    assert list(report.graphs) == list(source.io)
    for error in report.graphs.values():
        assert (error.max_abs_err, error.mean_abs_err, error.snr_db, error.cosine) == (0.0, 0.0, math.inf, 1.0)
    assert (report.attribution, report.costliest_part) == ({}, None)
    gold = report.gold_in_top_m
    assert gold.reference == gold.candidate
    assert (gold.reference is None) == (not source.shape.traits.selects)


class Elsewhere(OnnxRuntimeBackend):
    """A backend of another name, so that nothing is shared with it."""

    name = "elsewhere"


@pytest.mark.parametrize("variant", EVERY)
def test_on_another_backend_every_part_is_swapped(exported, variant):
    source = exported(variant)
    report = compare(source, source.bundle, source.bundle, backend=Elsewhere(1))
    assert list(report.attribution) == PARTS[variant]
    for part in report.attribution.values():
        assert (part.em_delta, part.em_delta_interval, part.answers_equal) == (0.0, (0.0, 0.0), 1.0)
        assert part.top_m_overlap == (1.0 if source.shape.traits.selects else None)
        assert (part.log_prob_delta, part.log_prob_error) == (0.0, 0.0)
        assert part.score_snr_db == (math.inf if source.shape.traits.selects else None)
    assert report.costliest_part is None


def test_a_part_is_named_before_it_costs_an_answer(glimmer, tmp_path):
    """Noise in two parts that tips no answer: the larger is named, by how likely the reference's answers become."""
    bundle = noisy_bundle(glimmer, tmp_path / "noisy", "live_stage_b", 3e-4)
    both = shutil.copytree(noisy_bundle(glimmer, tmp_path / "less", "decoder_step", 3e-6), tmp_path / "both")
    shutil.copy(bundle / "graphs" / "live_stage_b.onnx", both / "graphs")
    update_manifest(both, "live_stage_b")
    report = compare(glimmer, both, glimmer.bundle)
    assert list(report.attribution) == ["live_stage_b", "decoder"]
    stage_b, decoder = report.attribution["live_stage_b"], report.attribution["decoder"]
    assert (stage_b.answers_equal, stage_b.em_delta, decoder.answers_equal) == (1.0, 0.0, 1.0)
    assert stage_b.log_prob_error > 10 * decoder.log_prob_error > 0
    assert stage_b.log_prob_error >= abs(stage_b.log_prob_delta) > 0
    assert (stage_b.score_snr_db, decoder.score_snr_db) == (math.inf, math.inf)
    assert report.costliest_part == report.to_json()["costliest_part"] == "live_stage_b"


def test_scores_have_an_snr(glimmer, tmp_path):
    bundle = noisy_bundle(glimmer, tmp_path / "noisy", "live_stage_a", 0.01)
    report = compare(glimmer, bundle, glimmer.bundle)
    assert list(report.attribution) == ["live_stage_a"]
    assert 20 < report.attribution["live_stage_a"].score_snr_db < 80


@pytest.mark.parametrize("variant", ["glimmer", "memory_fid", "fid"])
def test_a_forced_answer_is_as_likely_as_torch_says(exported, variant):
    """Of the reference's own answers, token by token through the graphs, beside torch over all tokens at once."""
    source = exported(variant)
    with Session.open(source.bundle, source.store, threads=1) as session:
        found = rows_from_questions(session, rows(source), ParityOptions(threads=1), lambda _: None)
        memory = StoredMemory(
            found.table, session.store, EncodedMemory(found.table, lambda _: [], session.codec), own=True
        ) if session.codec is not None else TokensAlone(found.table)  # fmt: skip
        asked = [row for row in found.rows if row.question.answers[0]]
        free = GraphSide(session.graphs, source.shape, session.text, memory, source.shape.num_selected, margins=True)
        replies = free.answer(asked)
        taught = ForcedSide(session.graphs, source.shape, session.text, memory, source.shape.num_selected)
        forced = taught.force(asked, [reply.tokens for reply in replies])
        wrong = taught.force(asked, [(9 if reply.tokens[0] != 9 else 8, *reply.tokens[1:]) for reply in replies])
        likely = [_log_prob_in_torch(source, row, reply, memory) for row, reply in zip(asked, replies, strict=True)]
    assert all(one.agrees for one in forced)
    assert not any(one.agrees for one in wrong)
    for one, other, expected in zip(forced, wrong, likely, strict=True):
        assert abs(one.log_prob - expected) <= TOLERANCES["fp32"].limit(np.array([expected]))
        assert other.log_prob < one.log_prob < 0


def _log_prob_in_torch(source, row, reply, memory) -> float:
    """log p of the reply's tokens by the padded model: EOS too, where it said it."""
    said: list[float] = []
    decode = source.model.decode_over

    def spy(ids, key_values, mask):
        logits = decode(ids, key_values, mask)
        said.append(logits[0, -1].double().log_softmax(-1).max().item())
        return logits

    states = None
    if memory.codec is not None:
        states = [memory.codec.decode(memory.memory(number).tensors) for number in row.numbers]
    passages = [
        list(candidate.ids or memory.input_ids(number))
        for number, candidate in zip(row.numbers, row.candidates, strict=True)
    ]
    source.model.decode_over = spy
    try:
        found = TorchReference(source.model).answer(row.ids, passages, states, source.shape.num_selected)
    finally:
        del source.model.decode_over
    assert tuple(found.tokens) == reply.tokens
    return sum(said)


@pytest.mark.parametrize(
    ("variant", "graph", "part"),
    [
        ("glimmer", "live_stage_a", "live_stage_a"),
        ("glimmer", "live_stage_b", "live_stage_b"),
        ("glimmer", "cross_kv", "decoder"),
        ("glimmer, every option", "question_encoder", "question_encoder"),
        ("glimmer, every option", "memory_encoder", "memory_encoder_store"),
        ("lumen", "decoder_step", "decoder"),
        ("memory_fid", "decoder_prefill", "decoder"),
        ("fid", "encoder", "encoder"),
    ],
)
def test_the_part_with_noise_is_blamed_and_no_other(exported, tmp_path, variant, graph, part):
    source = exported(variant)
    bundle = noisy_bundle(source, tmp_path / "noisy", graph, 1.0)
    report = compare(source, bundle, source.bundle)
    blamed = {
        name
        for name, effect in report.attribution.items()
        if effect.answers_equal < 1 or (effect.top_m_overlap or 1.0) < 1
    }
    assert blamed == {part}
    own = [part, "memory_encoder_question"] if (variant, graph) == ("glimmer", "memory_encoder") else [part]
    assert list(report.attribution) == own
    assert report.costliest_part == part
    assert {name for name, error in report.graphs.items() if error.snr_db < 40} == {graph}
    if part != "memory_encoder_store":  # the candidate reads a store that the good encoder built
        assert report.answers_equal == report.attribution[part].answers_equal
    if part == "live_stage_b":
        assert report.em.delta == report.attribution[part].em_delta < 0


def test_with_a_shared_encoder_store_and_question_are_told_apart(glimmer, tmp_path):
    bundle = noisy_bundle(glimmer, tmp_path / "noisy", "memory_encoder", 1.0)
    report = compare(glimmer, bundle, glimmer.bundle)
    assert report.attribution["memory_encoder_store"].answers_equal < 1
    assert report.answers_equal == report.attribution["memory_encoder_question"].answers_equal
    assert list(report.attribution) == ["memory_encoder_store", "memory_encoder_question"]


def test_a_store_by_another_encoder_is_the_stores_fault(glimmer, tmp_path):
    """The noisy encoder built the candidate's store; the graphs that answer are the same."""
    noisy = noisy_bundle(glimmer, tmp_path / "noisy", "memory_encoder", 1.0)
    write_rows(tmp_path / "corpus.jsonl", CORPUS)
    build_store(noisy, tmp_path / "corpus.jsonl", tmp_path / "store", threads=1)
    options = ParityOptions(attribution=True, reference_store=glimmer.store, threads=1)
    report = compare(glimmer, glimmer.bundle, glimmer.bundle, options, store=tmp_path / "store")
    assert report.reference_memory == "reference_store"
    assert list(report.attribution) == ["store_codec"]
    assert report.attribution["store_codec"].answers_equal == report.answers_equal < 1
    copy = shutil.copytree(tmp_path / "store", tmp_path / "copy")
    own = ParityOptions(attribution=True, reference_store=copy, threads=1)
    assert compare(glimmer, glimmer.bundle, glimmer.bundle, own, store=tmp_path / "store").attribution == {}
    assert report.memory_max_abs_err > 0.1


def test_a_reference_store_of_another_corpus_is_refused(glimmer, tmp_path):
    write_rows(tmp_path / "corpus.jsonl", [{**row, "text": f"{row['text']} w1"} for row in CORPUS])
    build_store(glimmer.bundle, tmp_path / "corpus.jsonl", tmp_path / "store", threads=1)
    with pytest.raises(StoreError, match="one corpus"):
        compare(glimmer, glimmer.bundle, glimmer.bundle, ParityOptions(reference_store=tmp_path / "store", threads=1))


@pytest.mark.parametrize("exact", [False, True])
def test_torch_stages_are_mixed_with_graphs(glimmer, tmp_path, exact):
    bundle = noisy_bundle(glimmer, tmp_path / "noisy", "live_stage_b", 1.0)
    options = ParityOptions(attribution=True, exact_memory=exact, threads=1)
    report = compare_with_checkpoint(bundle, glimmer.checkpoint, glimmer.store, rows(glimmer), options)
    assert list(report.attribution) == [*(["store_codec"] if exact else []), *PARTS["glimmer"]]
    assert {name for name, effect in report.attribution.items() if effect.answers_equal < 1} == {"live_stage_b"}
    assert report.first_difference.count == len(report.differences) > 0
    for item in report.differences:
        assert item.margin > 0
        assert item.reference != item.candidate


def test_torch_and_graphs_tell_the_same_margins(glimmer, tmp_path):
    bundle = noisy_bundle(glimmer, tmp_path / "noisy", "decoder_step", 1.0)
    options = ParityOptions(threads=1)
    torch = compare_with_checkpoint(bundle, glimmer.checkpoint, glimmer.store, rows(glimmer), options)
    graphs = compare(glimmer, bundle, glimmer.bundle, options)
    assert [(item.qid, item.step) for item in torch.differences] == [(it.qid, it.step) for it in graphs.differences]
    found, expected = ([item.margin for item in report.differences] for report in (graphs, torch))
    assert found == pytest.approx(expected, abs=1e-3)
    summary = torch.first_difference
    assert sum(summary.steps.values()) == summary.count == len(expected)
    assert summary.margin_mean == pytest.approx(sum(expected) / len(expected))


def test_backends_are_the_callers(glimmer):
    loaded = []

    class Spy(OnnxRuntimeBackend):
        def load(self, path, io):
            loaded.append((self.name, path.stem))
            return super().load(path, io)

    class Rounding(Spy):
        name = "rounding"

    report = compare(glimmer, glimmer.bundle, glimmer.bundle, backend=Rounding(1), reference_backend=Spy(1))
    assert loaded == [(name, graph) for name in ("rounding", "onnxruntime-cpu") for graph in glimmer.io]
    assert (report.candidate.backend, report.reference.backend) == ("rounding", "onnxruntime-cpu")


def test_other_forms_are_compared_but_not_mixed(glimmer, exported):
    other = exported("glimmer, exact algebra")
    report = compare(glimmer, other.bundle, glimmer.bundle, ParityOptions(threads=1))
    assert report.answers_equal == 1.0
    assert list(report.graphs) == ["memory_encoder"]
    with pytest.raises(BundleError, match="forms"):
        compare(glimmer, other.bundle, glimmer.bundle)


def test_another_checkpoints_bundle_is_refused(glimmer, exported):
    with pytest.raises(BundleError, match="made from"):
        compare(glimmer, glimmer.bundle, exported("fid").bundle)


def test_exact_memory_is_torchs_alone(glimmer):
    with pytest.raises(OptionError, match="checkpoint"):
        compare(glimmer, glimmer.bundle, glimmer.bundle, ParityOptions(exact_memory=True))
    options = ParityOptions(exact_memory=True, reference_store=glimmer.store)
    with pytest.raises(OptionError, match="one of the two"):
        compare_with_checkpoint(glimmer.bundle, glimmer.checkpoint, glimmer.store, rows(glimmer), options)


def test_gold_passages_are_counted_among_the_candidates(glimmer):
    answers = glimmer.session.answer_many(QUESTIONS)
    read, left = zip(*[(answer.selected[0], next(
        (place for place in range(len(answer.passages)) if place not in answer.selected), None
    )) for answer in answers], strict=True)  # fmt: skip
    ids = [[item.passage.id for item in answer.passages] for answer in answers]
    gold = [(ids[0][read[0]],), (ids[1][left[1]],), ("no such passage",), *[()] * (len(QUESTIONS) - 3)]
    asked = [Question("q", text, (), None, names) for text, names in zip(QUESTIONS, gold, strict=True)]
    report = compare_with_bundle(glimmer.bundle, glimmer.bundle, glimmer.store, asked, ParityOptions(threads=1))
    assert (report.gold_in_top_m.reference, report.gold_in_top_m.candidate) == (0.5, 0.5)


def test_a_session_reads_the_bundle_that_was_compared(glimmer, tmp_path):
    """What parity answers for the candidate is what its session answers."""
    bundle = noisy_bundle(glimmer, tmp_path / "noisy", "decoder_step", 1.0)
    report = compare(glimmer, bundle, glimmer.bundle, ParityOptions(threads=1))
    with Session.open(bundle, glimmer.store, threads=1) as session:
        said = {f"q{place}": answer.answer for place, answer in enumerate(session.answer_many(QUESTIONS))}
    assert report.differences
    for item in report.differences:
        assert said[item.qid] == item.candidate
    assert json.dumps(report.to_json())
    assert html_from_report(report)


def test_a_copy_of_the_bundle_elsewhere_is_no_other_checkpoint(glimmer, tmp_path):
    assert compare(glimmer, copy_bundle(glimmer, tmp_path / "copy"), glimmer.bundle).answers_equal == 1.0
    # The graphs of a checkpoint that differs in a number alone are the same: its bundle differs by the digest.
    other = checkpoint_digest(read_checkpoint(make_checkpoint(tmp_path / "other", "glimmer", num_retrieved=4)))
    rewrite(copy_bundle(glimmer, tmp_path / "other-bundle") / MANIFEST, checkpoint_digest=other)
    with pytest.raises(BundleError, match="made from"):
        compare(glimmer, glimmer.bundle, tmp_path / "other-bundle")
