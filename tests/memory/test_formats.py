"""Stores of corpora in other formats than JSONL, and of documents in chunks."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from glimmer_export.exporter.memory import CorpusSource, build_store
from glimmer_export.runtime.bundle import Bundle
from glimmer_export.runtime.contract import MANIFEST, OutputError
from glimmer_export.runtime.passage_memory import encode_passages
from glimmer_export.runtime.store import MemoryStore, Passage
from tests.bundle_factory import WORDS, tree
from tests.corpus_files import WRITERS, write_jsonl

SMALL = {"passages_per_shard": 8, "batch_tokens": 60}
PASSAGES = [Passage(f"p{number}", f"title{number}", " ".join(WORDS[: number % 19 + 1])) for number in range(30)]


def content(store: Path) -> dict[str, str]:
    """A store's files, less the digest of the corpus, which each format has its own of, and what stands for it."""
    manifest = json.loads((store / MANIFEST).read_text())
    del manifest["corpus_sha256"]
    files = {name: digest for name, digest in tree(store).items() if not name.startswith("replicas/")}
    return {**files, MANIFEST: json.dumps(manifest)}


def test_every_format_gives_the_same_store(bundle, tmp_path):
    stores = []
    for name, write in WRITERS.items():
        build_store(bundle, write(tmp_path / f"corpus.{name}", PASSAGES), tmp_path / f"store {name}", **SMALL)
        stores.append(content(tmp_path / f"store {name}"))
    assert stores == stores[:1] * len(stores)


@pytest.mark.parametrize("name", ["jsonl.gz", "parquet", "tsv"])
def test_an_interrupted_build_goes_on(bundle, tmp_path, monkeypatch, name):
    corpus = CorpusSource(WRITERS[name](tmp_path / f"corpus.{name}", PASSAGES), chunk_words=3)
    build_store(bundle, corpus, tmp_path / "unbroken", **SMALL)
    calls = iter(range(3))

    def failing(*arguments):
        if next(calls, None) is None:
            raise KeyboardInterrupt
        return encode_passages(*arguments)

    with monkeypatch.context() as patched:
        patched.setattr("glimmer_export.exporter.memory.encode.encode_passages", failing)
        with pytest.raises(KeyboardInterrupt):
            build_store(bundle, corpus, tmp_path / "store", **SMALL)
    assert build_store(bundle, corpus, tmp_path / "store", **SMALL).resumed_shards > 0
    assert tree(tmp_path / "store") == tree(tmp_path / "unbroken")


def test_a_store_of_chunks_says_so_and_is_another(bundle, tmp_path):
    path = write_jsonl(tmp_path / "corpus.jsonl", [Passage(7, "t", " ".join(WORDS[:10])), Passage("b", "", "w1")])
    cut = CorpusSource(path, chunk_words=4)
    assert build_store(bundle, cut, tmp_path / "store", **SMALL).passages == 4
    with MemoryStore.open(tmp_path / "store", Bundle.open(bundle)) as store:
        assert store.manifest.chunk_words == 4
        assert [store.passage(number) for number in range(4)] == [
            Passage("7#0", "t", "w0 w1 w2 w3"), Passage("7#1", "t", "w4 w5 w6 w7"), Passage("7#2", "t", "w8 w9"),
            Passage("b#0", "", "w1"),
        ]
    assert build_store(bundle, cut, tmp_path / "store", **SMALL).already_complete
    for other in (path, CorpusSource(path, chunk_words=5)):
        with pytest.raises(OutputError, match="--overwrite"):
            build_store(bundle, other, tmp_path / "store", **SMALL)


def test_unfinished_work_with_other_chunks_is_not_continued(bundle, tmp_path, monkeypatch):
    """Two lengths that cut these documents into as many passages: all but the length itself is equal."""
    path = write_jsonl(tmp_path / "corpus.jsonl", [Passage(0, "", "w1 w2 w3")])

    def stop(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr("glimmer_export.exporter.memory.encode.encode_passages", stop)
        with pytest.raises(KeyboardInterrupt):
            build_store(bundle, CorpusSource(path, chunk_words=4), tmp_path / "store", **SMALL)
    with pytest.raises(OutputError, match="expected chunk_words 5, as asked for, found 4"):
        build_store(bundle, CorpusSource(path, chunk_words=5), tmp_path / "store", **SMALL)
