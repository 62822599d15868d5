"""A corpus without a store finds what a store finds; passages are kept once, in the runtime's tokens."""

from __future__ import annotations

from pathlib import Path

import pytest

from glimmer_export.exporter.memory import CorpusSource, build_store, full_text
from glimmer_export.exporter.training.frozen_memory import open_store
from glimmer_export.exporter.training.passages import PassageTable, open_corpus
from glimmer_export.runtime.bundle import Bundle
from glimmer_export.runtime.candidates import Candidate
from glimmer_export.runtime.contract import CorpusError, PassageError, QuestionError
from glimmer_export.runtime.store import MemoryStore, Passage
from tests.exported import CORPUS, QUESTIONS

ROWS = [Passage(row["id"], row["title"], row["text"]) for row in CORPUS]


@pytest.mark.parametrize("engine", ["fts5", "tantivy"])
def test_a_corpus_finds_what_its_store_finds(glimmer, corpus, tmp_path, monkeypatch, engine):
    store = glimmer.store
    if engine == "tantivy":
        pytest.importorskip("tantivy")
        monkeypatch.setattr(full_text, "MOST_FOR_FTS5", 1)
        store = tmp_path / "store"
        build_store(glimmer.bundle, corpus, store, threads=1)
    bundle = Bundle.open(glimmer.bundle)
    with MemoryStore.open(store, bundle) as built, open_corpus(CorpusSource.of(corpus), folder=tmp_path) as found:
        assert built.manifest.index.engine == engine
        for question in QUESTIONS:
            for top_k in (1, 7, 1000):
                assert found.search(question, top_k) == built.search(question, top_k)
        ids = [row["id"] for row in CORPUS]
        assert found.numbers(ids) == built.numbers(ids)
        assert found.passages(range(len(ids))) == ROWS
    assert [path.name for path in tmp_path.iterdir() if path != store] == []


def test_a_corpus_that_is_not_searched_has_no_index(corpus):
    with open_corpus(CorpusSource.of(corpus), searched=False) as found:
        assert found.passages(found.numbers([CORPUS[3]["id"]])) == [ROWS[3]]
        with pytest.raises(PassageError):
            found.numbers(["none"])


def test_documents_are_cut_as_a_store_cuts_them(corpus):
    with open_corpus(CorpusSource.of(corpus, chunk_words=5)) as found:
        assert found.num_passages > len(CORPUS)
        assert found.passages([0])[0].id == "p0#0"


def test_a_corpus_that_cannot_be_read_is_named(tmp_path):
    path: Path = tmp_path / "corpus.jsonl"
    path.write_text('{"id": 1, "title": "t"}\n')
    with pytest.raises(CorpusError), open_corpus(CorpusSource.of(path), folder=tmp_path):
        pass
    assert list(tmp_path.iterdir()) == [path]


def test_a_passage_is_kept_once(text):
    table = PassageTable(text)
    found, given = Candidate(ROWS[1], 1, 2.5), Candidate(ROWS[2], None, None)
    assert [table.add(found), table.add(given), table.add(Candidate(ROWS[1], 1, 0.5)), table.add(given)] == [0, 1, 0, 1]
    assert (len(table), table.num_texts) == (2, 1)
    assert [table.number(place) for place in (0, 1)] == [1, None]
    for place, row in ((0, ROWS[1]), (1, ROWS[2])):
        assert table.ids(place).tolist() == text.passage(row.title, row.text)[0]


def test_a_stores_tokens_are_those_of_the_texts(glimmer, checkpoint, text):
    store, fits = open_store(glimmer.store, checkpoint, own=True)
    with store:
        assert fits
        stored, encoded = PassageTable(text, store, stored=store), PassageTable(text, store)
        for number, row in enumerate(ROWS):
            candidate = Candidate(row, number, None)
            assert stored.add(candidate) == encoded.add(candidate) == number
            assert stored.ids(number).tolist() == encoded.ids(number).tolist()
        assert encoded.num_cut == sum(text.passage(row.title, row.text)[1] for row in ROWS) > 0
        assert stored.num_cut == 0


def test_a_joined_text_is_that_of_the_runtime(corpus, joined_text):
    with open_corpus(CorpusSource.of(corpus), searched=False) as source:
        table = PassageTable(joined_text, source)
        candidates = [Candidate(ROWS[4], 4, None), Candidate(ROWS[0], None, None), Candidate(ROWS[3], 3, None)]
        places = [table.add(candidate) for candidate in candidates]
        found = table.joined("w1 w2", reversed(places))
    wanted = [joined_text.joined("w1 w2", one.passage.title, one.passage.text)[0] for one in reversed(candidates)]
    assert [ids.tolist() for ids in found] == wanted


def test_a_text_that_cannot_be_encoded_is_not_kept(text):
    table = PassageTable(text)
    with pytest.raises(QuestionError):
        table.add(Candidate(Passage(None, "", "w" * (1 << 21)), None, None))
    assert len(table) == 0
