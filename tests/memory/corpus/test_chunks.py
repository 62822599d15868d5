"""Documents cut into passages of so many words."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from glimmer_export.exporter.memory.corpus import Corpus, CorpusSource
from glimmer_export.exporter.memory.corpus.scan import chunked
from glimmer_export.runtime.contract import CorpusError
from glimmer_export.runtime.store import Passage
from tests.corpus_files import write_jsonl

TEXTS = st.text(st.sampled_from("ab \t\n\x1f\u00a0\u2028"), max_size=60).filter(str.strip)


@settings(max_examples=50, deadline=None)
@given(text=TEXTS, chunk_words=st.integers(1, 9))
def test_chunks_have_every_word_once_and_lead_back(text, chunk_words):
    chunks = list(chunked(Passage("d#1", "title", text), chunk_words))
    lengths = [len(chunk.text.split()) for chunk in chunks]
    assert [word for chunk in chunks for word in chunk.text.split()] == text.split()
    assert set(lengths[:-1]) <= {chunk_words}
    assert 0 < lengths[-1] <= chunk_words
    assert [chunk.id for chunk in chunks] == [f"d#1#{number}" for number in range(len(chunks))]
    assert {chunk.id.rpartition("#")[0] for chunk in chunks} == {"d#1"}
    assert all(chunk.text == chunk.text.strip() and chunk.text in text for chunk in chunks)
    assert {chunk.title for chunk in chunks} == {"title"}


def test_the_text_of_a_chunk_is_as_it_was_written():
    chunks = chunked(Passage(7, "", " one  two\nthree\tfour  \n\n five "), 2)
    assert [(chunk.id, chunk.text) for chunk in chunks] == [
        ("7#0", "one  two"), ("7#1", "three\tfour"), ("7#2", "five"),
    ]


def test_without_a_length_a_document_is_left_as_it_is():
    assert list(chunked(Passage(7, "", " one  two "), None)) == [Passage(7, "", " one  two ")]


def test_parts_begin_inside_documents(tmp_path):
    documents = [Passage(number, "t", " ".join("abcdefgh"[: number + 1])) for number in range(8)]
    source = CorpusSource(write_jsonl(tmp_path / "c.jsonl", documents), chunk_words=2)
    corpus = Corpus.scan(source, part_size=3)
    expected = [chunk for document in documents for chunk in chunked(document, 2)]
    assert corpus.num_passages == len(expected) == 20
    assert list(corpus.passages()) == expected
    assert [corpus.part(index) for index in range(7)] == [expected[start : start + 3] for start in range(0, 20, 3)]


def test_documents_whose_chunks_would_have_the_same_ids_are_named(tmp_path):
    path = write_jsonl(tmp_path / "c.jsonl", [Passage(1, "", "x"), Passage("2", "", "x"), Passage("1", "", "y")])
    assert Corpus.scan(path, part_size=2).num_passages == 3
    with pytest.raises(CorpusError, match="line 3: expected an id of its own, found '1#0', the id of line 1"):
        Corpus.scan(CorpusSource(path, chunk_words=2), part_size=2)
