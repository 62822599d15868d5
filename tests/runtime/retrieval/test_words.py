"""Words of scripts other than English's, as both engines find them."""

from __future__ import annotations

import pytest

from exporter.memory import build_store
from exporter.memory.text_index import FTS5, TANTIVY
from runtime.retrieval.words import search_words
from runtime.store import MemoryStore
from tests.bundle_factory import write_rows

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


@pytest.mark.parametrize("text", TEXTS)
def test_a_passage_is_found_by_its_own_word(store, text):
    assert [hit.number for hit in store.search(text, 3)] == [TEXTS.index(text)]


def test_a_mark_belongs_to_its_letter():
    assert search_words("हिन्दी, e\N{COMBINING ACUTE ACCENT}te\N{COMBINING ACUTE ACCENT}") == ["हिन्दी", "été"]
    assert search_words("snake_case 3²") == ["snake", "case", "3²"]


@pytest.mark.parametrize("top_k", [len(TEXTS) + 1, 10**12, 2**64])
def test_more_than_there_are_can_be_asked_for(store, top_k):
    assert [hit.number for hit in store.search("stanbul", top_k)] == [2]
