"""Words of scripts other than English's, as both engines find them."""

from __future__ import annotations

import pytest

from glimmer_export.exporter.memory import build_store
from glimmer_export.exporter.memory.full_text import FTS5, TANTIVY
from glimmer_export.runtime.contract import OptionError
from glimmer_export.runtime.retrieval.words import search_words
from glimmer_export.runtime.store import MemoryStore, Passage
from tests.bundle_factory import write_rows
from tests.text_search import indexed

TEXTS = ["İstanbul", "हिन्दी", "stanbul"]


@pytest.fixture(scope="module", params=[FTS5, TANTIVY])
def store(request, bundle, tmp_path_factory):
    folder = tmp_path_factory.mktemp("words")
    corpus = write_rows(folder / "corpus.jsonl", [
        {"id": number, "title": "", "text": text} for number, text in enumerate(TEXTS)
    ])
    build_store(bundle.directory, corpus, folder / "store", index=request.param)
    with MemoryStore.open(folder / "store", bundle) as opened:
        yield opened


@pytest.fixture(scope="module", params=[FTS5, TANTIVY])
def store_of_names(request, tmp_path_factory):
    rows = [
        ("Will Smith", "Will Smith is an actor of films."), ("Smith", "Smith makes horse shoes, Smith of old."),
        ("Last", "It is the last of us, the very last."), ("Government", "The U.S. has fifty states."),
        ("The Who", "The Who are an English rock band."), ("Players", "Those who lost are many, and who won was one."),
        *((f"Other {number}", f"Nothing of that kind {number}.") for number in range(9)),
    ]
    passages = [Passage(number, *row) for number, row in enumerate(rows)]
    with indexed(tmp_path_factory.mktemp("names"), passages, request.param) as (_, index):
        yield index


@pytest.mark.parametrize("text", TEXTS)
def test_a_passage_is_found_by_its_own_word(store, text):
    assert [hit.number for hit in store.search(text, 3)] == [TEXTS.index(text)]


def test_a_mark_belongs_to_its_letter():
    assert search_words("हिन्दी, e\N{COMBINING ACUTE ACCENT}te\N{COMBINING ACUTE ACCENT}") == ["हिन्दी", "ete"]
    assert search_words("snake_case 3² m²") == ["snake", "case", "3", "2", "m2"]


@pytest.mark.parametrize(("question", "words"), [
    ("Who was Will Smith?", "will smith"),
    ("how old is will smith", "old will smith"),
    ("The Who", "the who"),
    ("who sang for the who", "who sang"),
    ("Who are The Who?", "who are the"),
    ("albums of The Who", "albums who"),
    ("the Who's drummer", "who drummer"),
    ("What is the population of the U.S.?", "population u·s"),
    ("who owns the US open", "owns us u·s open"),
    ("the last of us", "last us"),
    ("When did World War I end?", "world war i end"),
    ("what should I do", "should"),
    ("Which NFL team is it", "nfl team"),
    ("Who sang Who Are You?", "who sang are you"),
    ("WHO WAS CAESAR", "caesar"),
    ("what does the s stand for in Harry S. Truman", "s stand harry truman"),
    ("What is it? Is it?", "what is it"),
    ("Who is who?", "who is"),
    ("Luther's theses", "luther theses"),
])
def test_stop_words_are_dropped_but_not_from_names(question, words):
    assert search_words(question) == words.split()


def test_names_of_stop_words_are_found_first(store_of_names):
    asked = {"Will Smith": 0, "who is will smith": 0, "U.S.": 3, "The Who": 4, "which band is the who": 4}
    for question, number in asked.items():
        assert store_of_names.search(question, 9)[0].number == number


@pytest.mark.parametrize("top_k", [len(TEXTS) + 1, 10**12, 2**63 - 1])
def test_more_than_there_are_can_be_asked_for(store, top_k):
    assert [hit.number for hit in store.search("stanbul", top_k)] == [2]
    with pytest.raises(OptionError, match="top_k"):
        store.search("stanbul", 2**64)
