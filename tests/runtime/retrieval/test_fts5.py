"""FTS5 asked in parts: what is found is what one query finds, for less where a word is in many passages."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from glimmer_export.exporter.memory.texts import write_texts
from glimmer_export.runtime.contract import StoreError
from glimmer_export.runtime.contract.text_schema import TEXT_INDEXES
from glimmer_export.runtime.passage_texts import Passage
from glimmer_export.runtime.retrieval import fts5
from glimmer_export.runtime.retrieval.fts5 import Fts5Index, any_of
from glimmer_export.runtime.sqlite_file import SqliteFile
from tests.memory.generated_corpus import passages, questions, templated

COUNT = 6000
WORDS = [f"w{number}" for number in range(12)]


def open_texts(folder, rows, folding=1):
    write_texts(folder / "texts", rows, advance=lambda _: None, folding=folding)
    return SqliteFile.reading(
        folder / "texts", lambda found: StoreError("texts", expected="a store's", found=found, fix="none")
    )


@pytest.fixture(scope="module")
def alike(tmp_path_factory):
    connection = open_texts(tmp_path_factory.mktemp("alike"), templated(COUNT))
    yield connection
    connection.close()


def steps(connection, search):
    """Instructions of SQLite's machine, in hundreds, and what was found."""
    count = 0

    def handler():
        nonlocal count
        count += 1

    connection.connection.set_progress_handler(handler, 100)
    found = search()
    connection.connection.set_progress_handler(None, 0)
    return count, found


def test_a_word_that_all_passages_have_costs_nothing(alike):
    index, (first, *_) = Fts5Index(1), templated(1)
    index.search(alike, f"trade of {first.title} who was born", 25)  # words are counted once
    asked = any_of(["trade", *first.title.lower().split(), "who", "born"])
    plain, rows = steps(alike, lambda: list(alike.execute(TEXT_INDEXES[1].search, (asked, 25))))
    few, hits = steps(alike, lambda: index.search(alike, f"trade of {first.title} who was born", 25))
    assert few * 20 < plain
    assert hits[0].number == rows[0][0] == 0
    fewer, hits = steps(alike, lambda: index.search(alike, "born trade", 25))
    assert fewer * 100 < plain
    assert [hit.number for hit in hits] == list(range(25))


def test_passages_without_a_rare_word_fill_up_by_number(alike):
    first = next(templated(1)).title
    few = [hit.number for hit in Fts5Index(1).search(alike, first, COUNT)]
    assert 0 < len(few) < 100
    hits = [hit.number for hit in Fts5Index(1).search(alike, f"{first} trade", len(few) + 30)]
    assert hits[: len(few)] == few
    assert hits[len(few) :] == [number for number in range(COUNT) if number not in few][:30]


@pytest.fixture(scope="module")
def varied(tmp_path_factory):
    rows = list(passages(3000))
    connection = open_texts(tmp_path_factory.mktemp("varied"), rows)
    yield connection, questions(rows[::30])
    connection.close()


@pytest.mark.parametrize("scored_at_once", [20, 300])
def test_what_is_found_is_what_one_query_finds(varied, monkeypatch, scored_at_once):
    connection, asked = varied
    monkeypatch.setattr(fts5, "SCORED_AT_ONCE", scored_at_once)
    index, parted = Fts5Index(1), 0
    for question in asked:
        hits = index.search(connection, question, 10)
        rows = list(connection.execute(TEXT_INDEXES[1].search, (any_of(index._words(question)), 10)))
        assert [hit.score for hit in hits] == pytest.approx([score for _, score in rows], abs=1e-4)
        parted += [hit.number for hit in hits] == [number for number, _ in rows]
    assert parted >= len(asked) - 2  # but for the order of equals to five digits


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_corpus_any_question(tmp_path, monkeypatch, data):
    monkeypatch.setattr(fts5, "SCORED_AT_ONCE", 3)
    texts = data.draw(st.lists(st.lists(st.sampled_from(WORDS), max_size=6).map(" ".join), min_size=1, max_size=40))
    asked = data.draw(st.lists(st.sampled_from(WORDS), min_size=1, max_size=4, unique=True))
    top_k = data.draw(st.integers(1, 12))
    connection = open_texts(tmp_path, [Passage(number, "", text) for number, text in enumerate(texts)])
    hits = Fts5Index(1).search(connection, " ".join(asked), top_k)
    rows = list(connection.execute(TEXT_INDEXES[1].search, (any_of(asked), -1)))
    connection.close()
    scores = dict(rows)
    assert len(hits) == min(top_k, len(rows))
    assert len({hit.number for hit in hits}) == len(hits)
    for hit, (_, score) in zip(hits, rows, strict=False):
        assert scores[hit.number] == pytest.approx(score, abs=1e-4)
