"""Changes of a store by a process that goes on: a server that takes passages while it answers."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path

from glimmer_export.exporter.files.links import Inputs
from glimmer_export.exporter.files.publish import check_place, write_errors
from glimmer_export.exporter.memory.append import append_passages, check_same_writer
from glimmer_export.exporter.memory.commit import check_no_links
from glimmer_export.exporter.memory.delete import delete_passages
from glimmer_export.exporter.memory.runners import KeptRunner
from glimmer_export.exporter.memory.work import check_output, unfinished_passages
from glimmer_export.runtime.bundle import Bundle
from glimmer_export.runtime.contract import StoreError, read_store_manifest
from glimmer_export.runtime.contract.kinds import STORE, require_kind
from glimmer_export.runtime.passage_texts import Passage
from glimmer_export.runtime.writes import MAX_WRITTEN, Written

__all__ = ["StoreWriter"]

JSONL = "jsonl"


class StoreWriter:
    """A `runtime.writes.Writer` of one store, whose memory encoder is loaded by the first passages and then kept.

    Not for two threads at once.
    """

    def __init__(self, store: Path, bundle: Bundle, threads: int | None) -> None:
        self._store, self._bundle, self._threads = store, bundle, threads
        self._runner = KeptRunner()

    @classmethod
    def open(
        cls, store: str | Path, bundle: str | Path, *, inputs: Inputs = (), threads: int | None = None
    ) -> StoreWriter:
        """A writer of `store`, which must lie apart from the bundle and from `inputs`, what else is read.

        Raises what the first write would: BundleError, StoreError (no store, of another checkpoint or precision, with a
        link in it), OutputError (nothing can be made beside it).
        """
        place = Path(store)
        require_kind(place, STORE, error=StoreError)
        check_output(place, [bundle, *inputs])
        with write_errors(place):
            check_place(Path(os.path.realpath(place)))
        check_no_links(Path(os.path.realpath(place)))
        opened = Bundle.open(bundle)
        check_same_writer(place, read_store_manifest(place), opened)
        return cls(place, opened, threads)

    def put(self, passages: Sequence[Passage], *, replace: bool) -> Written:
        """As `Writer.put`.

        What a killed write has left is thrown away; what a killed append of more passages than a write takes has left
        is not, and OutputError says so.
        """
        unfinished = unfinished_passages(self._store)
        with tempfile.TemporaryDirectory(prefix="glimmer-write-") as folder:
            corpus = Path(folder) / "passages.jsonl"
            corpus.write_text("".join(f"{_line(passage)}\n" for passage in passages), encoding="utf-8")
            found = append_passages(
                self._store, self._bundle, corpus, corpus_format=JSONL, replace=replace,
                restart=unfinished is not None and unfinished <= MAX_WRITTEN, threads=self._threads,
                runner=self._runner,
            )
        return Written(
            generation=found.generation, passages=found.passages, added=found.appended, replaced=found.replaced,
            truncated=found.truncated, already_complete=found.already_complete, warnings=found.warnings,
        )

    def delete(self, ids: Sequence[int | str]) -> Written:
        """As `Writer.delete`."""
        found = delete_passages(self._store, ids)
        return Written(
            generation=found.generation, passages=found.passages, deleted=found.deleted,
            already_complete=found.already_complete,
        )

    def close(self) -> None:
        """Close the memory encoder's backend; a further write would load it again."""
        self._runner.close()


def _line(passage: Passage) -> str:
    page = {} if passage.wikipedia_id is None else {"wikipedia_id": passage.wikipedia_id}
    return json.dumps({"id": passage.id, "title": passage.title, "text": passage.text, **page})
