"""The Wikipedia pages of passages: read from every format, and kept by whatever is done to a store."""

from __future__ import annotations

import json
import sqlite3

import pytest

from glimmer_export.exporter.memory import (
    CorpusSource,
    append_passages,
    build_store,
    compact_store,
    convert_store,
    delete_passages,
    repair_store,
)
from glimmer_export.exporter.memory.corpus import Corpus
from glimmer_export.runtime.bundle import Bundle
from glimmer_export.runtime.contract import CorpusError
from glimmer_export.runtime.store import MemoryStore, Passage
from tests.bundle_factory import make_bundle
from tests.corpus_files import WRITERS, write_jsonl

SMALL = {"passages_per_shard": 4, "batch_tokens": 1}
PASSAGES = [
    Passage(f"p{number}", f"w{number}", f"w{number + 1} w2", None if number in (0, 5) else str(40 + number // 2))
    for number in range(10)
]
PAGES = {passage.id: passage.wikipedia_id for passage in PASSAGES}


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    return make_bundle(tmp_path_factory.mktemp("bundle") / "bundle", codecs=("fp16", "int8"))


def pages_of(store, bundle) -> dict[int | str | None, str | None]:
    """What a store says of each passage that is there."""
    with MemoryStore.open(store, Bundle.open(bundle)) as opened:
        passages = opened.passages(opened._texts.all_numbers())
        assert opened.names_pages or not any(passage.wikipedia_id for passage in passages)
        return {passage.id: passage.wikipedia_id for passage in passages}


@pytest.mark.parametrize("name", WRITERS)
def test_every_format_carries_pages(tmp_path, name):
    path = WRITERS[name](tmp_path / f"corpus.{name}", PASSAGES)
    corpus = Corpus.scan(path, part_size=3)
    assert [passage for index in (3, 1, 0, 2) for passage in corpus.part(index)] == [
        *PASSAGES[9:], *PASSAGES[3:6], *PASSAGES[:3], *PASSAGES[6:9],
    ]
    chunks = Corpus.scan(CorpusSource(path, chunk_words=1), part_size=3)
    assert [(chunk.id, chunk.wikipedia_id) for chunk in chunks.passages()] == [
        (f"{passage.id}#{number}", passage.wikipedia_id) for passage in PASSAGES for number in range(2)
    ]


def test_pages_are_compared_as_kilt_compares_them(tmp_path):
    values = {7: "7", " 7\n": "7", "": None, " ": None, None: None}
    rows = [{"id": number, "text": "x", "wikipedia_id": value} for number, value in enumerate(values)]
    path = tmp_path / "corpus.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    found = [passage.wikipedia_id for passage in Corpus.scan(path, part_size=8).passages()]
    assert found == list(values.values())


@pytest.mark.parametrize("value", ["1.5", "true", "[7]", '{"id": 7}', '"\\ud800"'])
def test_a_page_of_another_type_is_named(tmp_path, value):
    path = tmp_path / "corpus.jsonl"
    path.write_text(f'{{"id": 1, "text": "x", "wikipedia_id": {value}}}\n')
    with pytest.raises(CorpusError, match='line 1: expected a "wikipedia_id"'):
        Corpus.scan(path, part_size=8)


def test_another_page_is_another_corpus(tmp_path):
    path = write_jsonl(tmp_path / "corpus.jsonl", PASSAGES)
    corpus = Corpus.scan(path, part_size=20)
    write_jsonl(path, [*PASSAGES[:-1], Passage("p9", "w9", "w10 w2", "45")])
    with pytest.raises(CorpusError, match="other content"):
        corpus.part(0)


def test_whatever_is_done_to_a_store_keeps_its_pages(bundle, tmp_path):
    first, more = PASSAGES[:6], PASSAGES[6:]
    corpus, store = write_jsonl(tmp_path / "corpus.jsonl", first), tmp_path / "store"
    build_store(bundle, corpus, store, **SMALL)
    assert pages_of(store, bundle) == {passage.id: passage.wikipedia_id for passage in first}
    (store / "passages.sqlite").write_bytes(b"damaged")
    repair_store(store, corpus_path=corpus)
    append_passages(store, bundle, write_jsonl(tmp_path / "more.jsonl", more), batch_tokens=1)
    assert pages_of(store, bundle) == PAGES
    convert_store(store, tmp_path / "int8", "int8")
    delete_passages(store, ["p1", "p7"])
    compact_store(store)
    left = {name: page for name, page in PAGES.items() if name not in ("p1", "p7")}
    assert pages_of(store, bundle) == left
    assert pages_of(tmp_path / "int8", bundle) == PAGES


def test_a_store_without_pages_gets_them_with_what_is_appended(bundle, tmp_path):
    plain = [Passage(passage.id, passage.title, passage.text) for passage in PASSAGES[:3]]
    store = tmp_path / "store"
    build_store(bundle, write_jsonl(tmp_path / "corpus.jsonl", plain), store, **SMALL)
    connection = sqlite3.connect(store / "passages.sqlite")
    names = [column[1] for column in connection.execute("PRAGMA table_info(passages)")]
    assert names == ["number", "id", "title", "text", "checksum"]
    connection.close()
    with MemoryStore.open(store, Bundle.open(bundle)) as opened:
        assert not opened.names_pages
        assert opened.passages([0, 1, 2]) == plain
    append_passages(store, bundle, write_jsonl(tmp_path / "more.jsonl", PASSAGES[3:]), batch_tokens=1)
    assert pages_of(store, bundle) == {**dict.fromkeys(("p0", "p1", "p2")), **dict(list(PAGES.items())[3:])}
