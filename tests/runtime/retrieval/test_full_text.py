"""BM25 by both engines: any text is a query, words are found whatever their form, ties keep the corpus's order."""

from __future__ import annotations

import json
import sqlite3

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from glimmer_export.exporter.memory import build_store
from glimmer_export.runtime.contract import StoreError
from glimmer_export.runtime.retrieval.words import search_words
from glimmer_export.runtime.store import MemoryStore, Passage
from tests.bundle_factory import write_rows
from tests.text_search import indexed

TEXTS = [
    ("Ada Lovelace", "She wrote the first program."),
    ("Charles Babbage", "He designed engines; Lovelace wrote of them."),
    ("Cafés", "Un caf\u00e9 noir, na\u00efve."),
    ("Twin", "identical words here"),
    ("Twin", "identical words here"),
    ("Question words", "what is the how and why"),
    ("Operators", "near and not or star"),
]
ALL = [title for title, _ in TEXTS]


@pytest.fixture(scope="module", params=["fts5", "tantivy"])
def store(request, bundle, tmp_path_factory):
    folder = tmp_path_factory.mktemp("retrieval")
    rows = [{"id": number, "title": title, "text": text} for number, (title, text) in enumerate(TEXTS)]
    build_store(bundle.directory, write_rows(folder / "c.jsonl", rows), folder / "store", index=request.param)
    with MemoryStore.open(folder / "store", bundle) as opened:
        yield opened


def found(store, question, top_k=10):
    return [hit.number for hit in store.search(question, top_k)]


def test_a_word_in_the_title_counts_more(store):
    assert found(store, "Who was Lovelace?") == [0, 1]


def test_scores_fall_and_are_higher_for_better(store):
    scores = [hit.score for hit in store.search("Lovelace program", 10)]
    assert scores == sorted(scores, reverse=True)
    assert min(scores) > 0


def test_words_are_found_in_other_forms(store):
    assert found(store, "DESIGNING an engine") == [1]
    for cafe in ("cafe", "CAF\u00c9", "cafe\u0301s"):
        assert found(store, cafe) == [2]


def test_a_tie_goes_to_the_lower_number(store):
    assert found(store, "identical words")[:2] == [3, 4]
    assert found(store, "twin", top_k=1) == [3]


def test_stop_words_count_only_where_there_is_nothing_else(store):
    assert search_words("What is the engine?") == ["engine"]
    assert search_words("What is it? Is it?") == ["what", "is", "it"]
    assert found(store, "what is the why") == [5, 0]


def test_operators_are_words(store):
    assert found(store, "NEAR NOT star*") == [6]
    assert found(store, "title:twin AND (identical)") == [3, 4]


@pytest.mark.parametrize("question", ["", "  ", "?!", '"', "\ud800", "\0", "_", "🙂"])
def test_no_words_find_nothing(store, question):
    assert found(store, question) == []


def test_no_passage_shares_a_word(store):
    assert found(store, "zebra") == []


def test_nothing_asked_for_nothing_found(store):
    assert found(store, "Lovelace", 0) == []


def test_a_question_of_ten_thousand_words(store):
    assert found(store, " ".join(f"x{number}" for number in range(10_000)) + " Lovelace") == [0, 1]


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(question=st.text(st.characters(exclude_categories=())))
def test_any_text_is_a_query(store, question):
    hits = store.search(question, 3)
    assert len(hits) <= 3


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(pieces=st.lists(st.sampled_from([*'"*()-^:{}+,', "NEAR", "AND", "OR", "ada"])))
def test_the_syntax_of_fts5_is_text(store, pieces):
    text = "".join(pieces)
    assert (0 in found(store, text)) == ("ada" in search_words(text))


def test_a_python_without_fts5_is_named(bundle, store_path, monkeypatch):
    class Plain(sqlite3.Connection):
        def execute(self, statement, *arguments):
            if "MATCH" in statement:
                raise sqlite3.OperationalError("no such module: fts5")
            return super().execute(statement, *arguments)

    real = sqlite3.connect
    monkeypatch.setattr(sqlite3, "connect", lambda *args, **options: real(*args, factory=Plain, **options))
    with (
        MemoryStore.open(store_path, bundle) as opened,
        pytest.raises(StoreError, match="expected an SQLite with the FTS5 extension"),
    ):
        opened.search("Lovelace", 3)


@pytest.fixture(scope="module", params=["fts5", "tantivy"])
def real_passages(request, shared_data, tmp_path_factory):
    rows = [json.loads(line) for line in (shared_data / "qa" / "corpus.jsonl").read_text("utf-8").splitlines()]
    passages = [Passage(row["id"], row["title"], row["text"]) for row in rows]
    with indexed(tmp_path_factory.mktemp("real"), passages, request.param) as opened:
        yield opened


@pytest.mark.parametrize(("questions", "bar"), [("nq.dev", 412), ("squad.dev", 1632)])
def test_gold_passages_of_real_questions_are_found(real_passages, shared_data, questions, bar):
    texts, index = real_passages
    lines = (shared_data / "qa" / f"{questions}.k20.jsonl").read_text("utf-8").splitlines()
    found = 0
    for row in map(json.loads, lines):
        gold = set(texts.numbers(row["gold_ids"]))
        found += any(hit.number in gold for hit in index.search(row["question"], 20))
    assert found >= bar
