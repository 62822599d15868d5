"""Writes golden stores: `python -m tests.golden.write_store DIRECTORY`, at the commit whose schema they keep.

As `tests/golden/write.py`, for a store's schema that changed without the bundle's: `store5` is of store schema 5, the
first whose texts, index and vectors lie in segments, and `store6` of schema 6, whose texts and index lie apart. They
are read with `tests/golden/bundle`, never written again.
"""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from numpy.typing import NDArray

from glimmer_export.exporter.memory import append_passages, build_store, convert_store, delete_passages, index_store
from glimmer_export.runtime import Session
from glimmer_export.runtime.bundle import Bundle
from glimmer_export.runtime.store import MemoryStore
from tests.bundle_factory import write_rows
from tests.encoder_factory import make_encoder
from tests.exported import CORPUS, QUESTIONS

BUNDLE = Path(__file__).with_name("bundle")
APPENDED, DELETED, QUANTISED = 9, ["row-1", 3, "row-8"], 256
RETRIEVALS = ("bm25", "dense", "hybrid")
CODEC = "rq16x"
"""One that the golden bundle does not decode: its store is read passage by passage."""


def write_stores(directory: Path) -> None:
    """Stores with tantivy and FTS5, grown by appends of one passage until their parts merged, some of them deleted.

    That with tantivy has vectors that codes find. A third is in CODEC, beside what its memory decodes to.
    """
    directory.mkdir(parents=True)
    with TemporaryDirectory() as work:
        numbers = range(QUANTISED)
        more = [{"id": f"more-{place}", "title": f"w{place % 50}", "text": f"w{place % 7}"} for place in numbers]
        corpus = write_rows(Path(work) / "corpus.jsonl", [*CORPUS[:20], *more])
        encoder = make_encoder(Path(work) / "encoder")
        grown(corpus, directory / "store-segments", "tantivy", Path(work), encoder)
        corpus = write_rows(Path(work) / "corpus.jsonl", CORPUS[:20])
        grown(corpus, directory / "store-fts5", "fts5", Path(work), None)
        build_store(BUNDLE, corpus, Path(work) / "store", threads=1)
        convert_store(Path(work) / "store", directory / f"store-{CODEC}", CODEC)
    found = {name: answers(directory / name, retrievals) for name, retrievals in (
        ("store-segments", RETRIEVALS), ("store-fts5", RETRIEVALS[:1]),
    )}
    (directory / "answers.json").write_text(json.dumps(found, separators=(",", ":")) + "\n", encoding="utf-8")
    np.save(directory / "decoded.npy", decoded(directory / f"store-{CODEC}"), allow_pickle=False)


def grown(corpus: Path, store: Path, engine: str, work: Path, encoder: Path | None) -> None:
    """A store of the corpus, appended to and deleted from."""
    build_store(BUNDLE, corpus, store, codec="int8", passages_per_shard=128, threads=1, index=engine)
    if encoder is not None:
        index_store(store, encoder=encoder, threads=1, search="ivfpq")
    for place in range(APPENDED):
        row = {"id": f"row-{place}", "title": f"w{place}", "text": f"w0 w7 w{place + 20}"}
        append_passages(store, BUNDLE, write_rows(work / "new.jsonl", [row]), threads=1)
    delete_passages(store, DELETED)


def decoded(store: Path) -> NDArray[np.float32]:
    """The memory of the first passage, (tokens, d_model) float32."""
    bundle = Bundle.open(BUNDLE)
    decoding = replace(bundle, manifest=replace(bundle.manifest, codecs=(CODEC,)))
    with MemoryStore.open(store, decoding) as opened:
        assert opened.codec is not None
        return opened.codec.decode(opened.memory(0).tensors)


def answers(store: Path, retrievals: tuple[str, ...]) -> dict[str, list[dict[str, object]]]:
    """By retrieval, for each question: the tokens, and the ids and scores of the passages."""
    found = {}
    for retrieval in retrievals:
        with Session.open(BUNDLE, store, threads=1, retrieval=retrieval) as session:
            found[retrieval] = [
                {
                    "tokens": list(answer.token_ids), "ids": [item.passage.id for item in answer.passages],
                    "scores": [round(item.score, 4) for item in answer.passages if item.score is not None],
                }
                for answer in session.answer_many(QUESTIONS)
            ]
    return found


if __name__ == "__main__":
    write_stores(Path(sys.argv[1]))
