"""A session answers what torch answers, for every architecture, whichever way the passages come to it."""

from __future__ import annotations

import json
import warnings
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from glimmer_export.exporter.memory import build_store
from glimmer_export.runtime import Passage, PassageId, PassageTruncatedWarning, Session
from glimmer_export.runtime.backends import OnnxRuntimeBackend
from glimmer_export.runtime.contract import (
    MANIFEST,
    OptionError,
    PassageError,
    QuestionError,
    StoreError,
    TokenizerError,
)
from tests.bundle_factory import rewrite, write_rows
from tests.exported import CORPUS, FAST, QUESTIONS, VARIANTS, copy_bundle
from tests.reference_answers import ROWS, assert_same_answer, assert_same_scores, reference_answer

IDS = [row["id"] for row in CORPUS]
TOO_LONG = "w1 w2 w3 w4 w5 w6 w7 w8 w9 w10 w11 w12"


class CountingBackend(OnnxRuntimeBackend):
    """Counts the runs of each graph."""

    def __init__(self) -> None:
        super().__init__(threads=1)
        self.runs: Counter[str] = Counter()

    def load(self, path, io):
        run, runs = super().load(path, io).run, self.runs

        class Counting:
            def run(self, inputs):
                runs[path.stem] += 1
                return run(inputs)

        return Counting()


@pytest.mark.parametrize("variant", VARIANTS)
def test_answers_are_torchs(exported, variant):
    source = exported(variant)
    for question in QUESTIONS:
        answer = source.session.answer(question)
        ids = [item.passage.id for item in answer.passages]
        assert 0 < len(ids) <= source.shape.num_retrieved
        assert_same_answer(answer, reference_answer(source, question, ids))


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_batch_answers_as_one_by_one(exported, variant):
    """Questions of all lengths, each with its own number of passages, retrieved or given."""
    source = exported(variant)
    given = [None if number % 4 == 3 else IDS[4 * number : 4 * number + 1 + number] for number in range(len(QUESTIONS))]
    answers = source.session.answer_many(QUESTIONS, passages=given)
    assert len({len(answer.passages) for answer in answers}) > 3
    for question, passages, answer in zip(QUESTIONS, given, answers, strict=True):
        alone = source.session.answer(question, passages=passages)
        assert answer.token_ids == alone.token_ids
        assert answer.selected == alone.selected
        assert_same_scores(answer, alone)
        assert [item.passage for item in answer.passages] == [item.passage for item in alone.passages]
        ids = [item.passage.id for item in answer.passages]
        assert_same_answer(answer, reference_answer(source, question, ids))


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("count", [1, 2, 9])
def test_any_number_of_passages(exported, variant, count):
    source = exported(variant)
    answer = source.session.answer("w5 w6", passages=IDS[:count])
    assert [item.passage.id for item in answer.passages] == IDS[:count]
    assert_same_answer(answer, reference_answer(source, "w5 w6", IDS[:count]))


@pytest.mark.parametrize(("top_k", "top_m"), [(1, None), (1, 1), (1, 4), (3, 3), (5, 1), (5, 4), (5, 9), (None, 1)])
def test_any_k_and_m(glimmer, top_k, top_m):
    question = "w3 w14 w15 w20 w26"
    answer = glimmer.session.answer(question, top_k, top_m)
    ids = [item.passage.id for item in answer.passages]
    assert len(ids) == (top_k or 5)
    assert len(answer.selected) == min(len(ids), top_m or glimmer.shape.num_selected)
    assert_same_answer(answer, reference_answer(glimmer, question, ids, top_m))


@pytest.mark.parametrize("variant", [name for name in FAST if name.startswith("glimmer")])
def test_with_a_mass_each_reads_as_if_its_m_were_that_many(exported, variant):
    """Whatever the others of its batch read: random scores have masses of all kinds."""
    source = exported(variant)
    scores = [np.array(source.session.answer(question, top_m=4).scores) for question in QUESTIONS]
    spread = float(max(np.ptp(row) for row in scores))
    shares = [np.sort(np.exp(row - row.max()))[::-1] / np.exp(row - row.max()).sum() for row in scores]
    mass = float(np.median([row[:2].sum() for row in shares]))
    answers = source.session.answer_many(QUESTIONS, top_m=4, mass=mass)
    assert spread > 0
    assert len({len(answer.selected) for answer in answers}) > 1
    for question, share, answer in zip(QUESTIONS, shares, answers, strict=True):
        expected = 1 + int((np.cumsum(share)[:-1][:3] < mass).sum())
        plain = source.session.answer(question, top_m=expected)
        assert answer.selected == plain.selected
        assert answer.token_ids == plain.token_ids
        assert answer.log_probability == pytest.approx(plain.log_probability, abs=1e-4)
        assert_same_scores(answer, plain)


def test_a_mass_of_all_reads_m(glimmer):
    assert glimmer.session.answer(QUESTIONS[0], mass=1).selected == glimmer.session.answer(QUESTIONS[0]).selected


@pytest.mark.parametrize("mass", [0, -0.1, 1.01, True, "0.5", float("nan"), float("inf"), [0.5]])
def test_a_mass_is_a_share(glimmer, mass):
    with pytest.raises(OptionError, match="mass"):
        glimmer.session.answer(QUESTIONS[0], mass=mass)


def test_what_reads_all_passages_has_no_mass(exported):
    with pytest.raises(OptionError, match="lumen reads all passages"):
        exported("lumen").session.answer(QUESTIONS[0], mass=0.5)


def test_m_may_exceed_the_passages_of_some_rows(glimmer):
    given = [IDS[:1], IDS[3:9], IDS[:2]]
    answers = glimmer.session.answer_many(QUESTIONS[:3], top_m=4, passages=given)
    assert [len(answer.selected) for answer in answers] == [1, 4, 2]
    for question, ids, answer in zip(QUESTIONS, given, answers, strict=False):
        assert_same_answer(answer, reference_answer(glimmer, question, ids, 4))


def test_the_same_passage_many_times_ties_and_the_first_are_read(glimmer):
    answer = glimmer.session.answer("w9", passages=[IDS[3]] * 4)
    assert len(set(answer.scores)) == 1
    assert answer.selected == (0, 1)


def test_passages_come_best_first_with_their_scores(glimmer):
    answer = glimmer.session.answer("w3 w14 w15")
    found = [item.retrieval_score for item in answer.passages]
    assert found == sorted(found, reverse=True)
    assert found[0] > 0
    for item in answer.passages:
        assert item.passage == Passage(**ROWS[item.passage.id])
        assert {"w3", "w14", "w15"} & {item.passage.title, *item.passage.text.split()}
    given = glimmer.session.answer("w3 w14 w15", passages=[item.passage.id for item in answer.passages])
    assert {item.retrieval_score for item in given.passages} == {None}
    assert given.token_ids == answer.token_ids


@pytest.mark.parametrize("variant", VARIANTS)
def test_texts_answer_as_stored_passages_do(exported, variant):
    source = exported(variant)
    rows = CORPUS[7:11]
    stored = source.session.answer("w2 w50", passages=[row["id"] for row in rows])
    texts = [f"{row['title']} {row['text']}" for row in rows]
    passages = [Passage(None, row["title"], row["text"]) for row in rows]
    mixed = [rows[0]["id"], passages[1], texts[2], rows[3]["id"]]
    with Session.open(source.bundle, threads=1) as without_store:
        answers = [without_store.answer("w2 w50", passages=given) for given in (texts, passages)]
    for answer in (*answers, source.session.answer("w2 w50", passages=mixed)):
        assert answer.token_ids == stored.token_ids
        assert answer.selected == stored.selected
        assert_same_scores(answer, stored)


@pytest.mark.parametrize("variant", ["glimmer", "fid"])
def test_a_text_that_is_cut_is_marked_and_warned_of_once(exported, variant):
    source = exported(variant)
    long, short = Passage(None, "w3", " ".join(["w5"] * 40)), Passage(None, "w3", "w5 w6")
    with Session.open(source.bundle, threads=1) as session:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            assert not any(item.truncated for item in session.answer("w1", passages=[short]).passages)
        with pytest.warns(PassageTruncatedWarning, match=r"passage 'w3' is longer than the 24 tokens"):
            answer = session.answer("w1", passages=[short, long])
        assert [item.truncated for item in answer.passages] == [False, True]
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            assert session.answer("w1", passages=[long]).passages[0].truncated
    limit = source.shape.passage_length
    whole = Passage(None, "", " ".join(["w5"] * (limit - 1)))
    assert not source.session.answer("w1", passages=[whole]).passages[0].truncated


@pytest.mark.parametrize("variant", VARIANTS)
def test_nothing_retrieved_is_no_answer_and_runs_no_graph(exported, variant):
    source = exported(variant)
    backend = CountingBackend()
    with Session.open(source.bundle, source.store, backend=backend) as session:
        for answer in (session.answer("nowhere"), session.answer("w1", passages=[]), *session.answer_many(["?", "of"])):
            assert (answer.answer, answer.token_ids, answer.passages, answer.error) == (None, (), (), None)
        assert not backend.runs
        assert session.answer("w1").answer is not None
    assert backend.runs["decoder_step"] + backend.runs["decoder_prefill"] > 0


def test_a_row_without_passages_does_not_disturb_the_others(glimmer):
    answers = glimmer.session.answer_many(["nowhere", "w0 w7", "of the", "w33"])
    assert [answer.answer is None for answer in answers] == [True, False, True, False]
    assert answers[1].token_ids == glimmer.session.answer("w0 w7").token_ids
    assert answers[3].token_ids == glimmer.session.answer("w33").token_ids


def test_no_questions_no_answers(glimmer):
    assert glimmer.session.answer_many([]) == []


@pytest.mark.parametrize("question", ["", "  \n", TOO_LONG, "w1 \udcff"])
def test_a_question_that_cannot_be_taken_is_named(glimmer, question):
    with pytest.raises(QuestionError):
        glimmer.session.answer(question)
    answers = glimmer.session.answer_many(["w0 w7", question, "w33"])
    assert isinstance(answers[1].error, QuestionError)
    assert (answers[1].answer, answers[1].passages) == (None, ())
    assert [answer.error for answer in answers[::2]] == [None, None]
    assert answers[0].token_ids == glimmer.session.answer("w0 w7").token_ids
    assert answers[2].token_ids == glimmer.session.answer("w33").token_ids


def test_the_longest_question_is_taken(glimmer):
    assert glimmer.session.answer(TOO_LONG.removesuffix(" w12")).answer is not None
    with pytest.raises(QuestionError, match=r"at most 12 tokens.*found 13"):
        glimmer.session.answer(TOO_LONG)


@pytest.mark.parametrize(
    "passages",
    [["p1"], ["0"], [0], [True], [np.True_], [np.int64(0)], [1.0], [None], [2**70], [""], ["w"], ["a \udcff"],
     [Passage(None, "t", " ")], [Passage(None, "\udcff", "text")]],
)  # fmt: skip
def test_a_passage_that_cannot_be_taken_is_named(glimmer, passages):
    with pytest.raises(PassageError):
        glimmer.session.answer("w1", passages=[IDS[0], *passages])
    answers = glimmer.session.answer_many(["w1", "w33"], passages=[passages, None])
    assert isinstance(answers[0].error, PassageError)
    assert answers[1].token_ids == glimmer.session.answer("w33").token_ids


def test_a_session_without_a_store_names_what_it_lacks(glimmer):
    with Session.open(glimmer.bundle, threads=1) as session:
        with pytest.raises(OptionError, match="store"):
            session.answer("w1")
        with pytest.raises(PassageError, match="store"):
            session.answer("w1", passages=[1])
        given = [None, ["w1 w2 w3"]]
        with pytest.raises(OptionError, match="store"):
            session.answer_many(["w1", "w2"], passages=given)
        answers = session.answer_many(["w1", "w2"], passages=[[7], ["w1 w2 w3"]])
        assert isinstance(answers[0].error, PassageError)
        assert answers[1].answer is not None


@pytest.mark.parametrize("option", [{"top_k": 0}, {"top_k": -1}, {"top_m": 0}, {"passages": [None]}])
def test_options_out_of_range_are_named(glimmer, option):
    with pytest.raises(OptionError):
        glimmer.session.answer_many(["w1", "w2"], **option)


@pytest.mark.parametrize("variant", ["lumen", "memory_fid", "fid"])
def test_top_m_is_refused_where_nothing_is_selected(exported, variant):
    with pytest.raises(OptionError, match=f"top_m.*{variant}"):
        exported(variant).session.answer("w1", top_m=1)


@pytest.mark.parametrize("variant", VARIANTS)
def test_several_threads_give_the_answers_of_one(exported, variant):
    session = exported(variant).session
    questions = QUESTIONS * 4
    expected = [session.answer(question) for question in QUESTIONS] * 4
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(session.answer, questions))
    assert [answer.token_ids for answer in answers] == [answer.token_ids for answer in expected]
    assert [answer.scores for answer in answers] == [answer.scores for answer in expected]


@pytest.mark.parametrize("variant", VARIANTS)
def test_time_is_told_by_stage(exported, variant):
    source = exported(variant)
    milliseconds = source.session.answer("w1").milliseconds
    live = {"live_stage_a", "select"} & set(milliseconds)
    assert bool(live) == source.shape.traits.selects
    assert {"tokenize", "retrieve", "fetch", "decode", "total"} <= set(milliseconds)
    assert ("question_encoder" in milliseconds) == source.shape.traits.encodes_question
    assert all(value >= 0 for value in milliseconds.values())
    assert sum(milliseconds.values()) <= 2 * milliseconds["total"]


def test_a_bundle_without_a_tokenizer_is_named(glimmer, tmp_path):
    bundle = copy_bundle(glimmer, tmp_path / "bundle")
    rewrite(bundle / MANIFEST, tokenizer=None, tokenizer_digest=None)
    with pytest.raises(TokenizerError, match="--tokenizer"):
        Session.open(bundle)


def test_a_store_of_another_checkpoint_is_refused(glimmer, exported):
    with pytest.raises(StoreError):
        Session.open(glimmer.bundle, exported("lumen").store)
    with pytest.raises(StoreError):
        Session.open(exported("fid").bundle, glimmer.store)


def test_templates_shape_what_the_model_reads(glimmer, tmp_path):
    """A template that leaves the title out gives the same memory for any title."""
    bundle = copy_bundle(glimmer, tmp_path / "bundle")
    model = json.loads((bundle / MANIFEST).read_text(encoding="utf-8"))["model"]
    rewrite(bundle / MANIFEST, model={**model, "passage_template": "{text}", "question_template": "w1 {question}"})
    passage = CORPUS[2]
    with Session.open(bundle, threads=1) as session:
        answers = [session.answer("w7", passages=[Passage(None, title, passage["text"])]) for title in ("w3", "w4")]
        assert answers[0].scores == answers[1].scores
        plain = glimmer.session.answer("w1 w7", passages=[Passage(None, "", passage["text"])])
        assert answers[0].token_ids == plain.token_ids
        assert answers[0].scores == plain.scores


def test_an_id_with_white_space_is_an_id_before_it_is_a_text(glimmer, tmp_path):
    rows = [{"id": "w1 w2", "title": "w3", "text": "w4 w5 w6"}]
    build_store(glimmer.bundle, write_rows(tmp_path / "corpus.jsonl", rows), tmp_path / "store")
    with Session.open(glimmer.bundle, tmp_path / "store", threads=1) as session:
        by_id, by_text = (session.answer("w7", passages=[given]) for given in ("w1 w2", "w1  w2"))
    assert by_id.passages[0].passage == Passage("w1 w2", "w3", "w4 w5 w6")
    assert by_text.passages[0].passage == Passage(None, "", "w1  w2")
    assert by_id.scores != by_text.scores


def test_an_id_said_to_be_one_is_never_a_text(glimmer):
    with pytest.raises(PassageError, match="w1 w2 w3"):
        glimmer.session.answer("w1", passages=[PassageId("w1 w2 w3")])
    assert glimmer.session.answer("w1", passages=[PassageId(1)]).passages[0].passage.id == 1


def test_ids_may_be_numpys(glimmer):
    """A retriever's: `passages=index[0]` of an array."""
    expected = glimmer.session.answer("w1", passages=[1, 3, IDS[0]])
    given = [*np.array([1, 3]), np.str_(IDS[0])]
    for passages in (given, [PassageId(item) for item in given]):
        answer = glimmer.session.answer("w1", passages=passages)
        assert [item.passage for item in answer.passages] == [item.passage for item in expected.passages]
        assert answer.token_ids == expected.token_ids
    texts = np.array(["w1 w2", "w3 w4"])
    assert glimmer.session.answer("w1", passages=texts).passages[0].passage.text == "w1 w2"
    assert len(glimmer.session.answer("w1", passages=np.array([1, 3])).passages) == 2
