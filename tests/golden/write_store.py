"""Writes a golden store: `python -m tests.golden.write_store DIRECTORY`, at the commit whose schema they keep.

As `tests/golden/write.py`, for a store's schema that changed without the bundle's: `store5` is of store schema 5, the
first whose texts, index and vectors lie in segments. It is read with `tests/golden/bundle`, never written again.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

from glimmer_export.exporter.memory import append_passages, build_store, delete_passages, index_store
from glimmer_export.runtime import Session
from tests.bundle_factory import write_rows
from tests.encoder_factory import make_encoder
from tests.exported import CORPUS, QUESTIONS

BUNDLE = Path(__file__).with_name("bundle")
APPENDED, DELETED = 9, ["row-1", 3, "row-8"]
RETRIEVALS = ("bm25", "dense", "hybrid")


def write_stores(directory: Path) -> None:
    """A store with tantivy, grown by appends of one passage until shards and segments merged; some are deleted."""
    directory.mkdir(parents=True)
    store = directory / "store-segments"
    with TemporaryDirectory() as work:
        corpus = write_rows(Path(work) / "corpus.jsonl", CORPUS[:20])
        encoder = make_encoder(Path(work) / "encoder")
        build_store(BUNDLE, corpus, store, codec="int8", passages_per_shard=16, threads=1, index="tantivy")
        index_store(store, encoder=encoder, threads=1)
        for place in range(APPENDED):
            row = {"id": f"row-{place}", "title": f"w{place}", "text": f"w0 w7 w{place + 20}"}
            append_passages(store, BUNDLE, write_rows(Path(work) / "new.jsonl", [row]), threads=1)
        delete_passages(store, DELETED)
    (directory / "answers.json").write_text(
        json.dumps(answers(store), separators=(",", ":")) + "\n", encoding="utf-8"
    )


def answers(store: Path) -> dict[str, list[dict[str, object]]]:
    """By retrieval, for each question: the tokens, and the ids and scores of the passages."""
    found = {}
    for retrieval in RETRIEVALS:
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
