"""A bundle that answers through a session, from a store, or from one that is built of the passages found."""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from glimmer_export.exporter.evaluation.grid import Cell
from glimmer_export.exporter.evaluation.models import Model, ModelOptions
from glimmer_export.exporter.evaluation.passages import Asked, Found
from glimmer_export.exporter.memory import build_store
from glimmer_export.runtime import Answer, Passage, PassageTruncatedWarning, Session
from glimmer_export.runtime.bundle import Bundle
from glimmer_export.runtime.candidates import Candidate, Given, PassageId
from glimmer_export.runtime.contract import MANIFEST, MEMORY_ENCODER, BundleError, Forms, ModelShape, file_digest
from glimmer_export.runtime.opening import text_of
from glimmer_export.runtime.store import MemoryStore

__all__ = ["BundleModel"]


class BundleModel:
    """A bundle, whose files were looked at and are loaded when it answers."""

    kind = "bundle"

    def __init__(self, path: Path) -> None:
        """Raises BundleError, and TokenizerError without a tokenizer."""
        self.path = path
        self.bundle = Bundle.open(path)
        self._builder: Path | None = None
        text_of(self.bundle)

    @property
    def digest(self) -> str:
        """The manifest's, which has those of all files."""
        return file_digest(self.bundle.directory / MANIFEST)

    @property
    def shape(self) -> ModelShape:
        """The manifest's."""
        return self.bundle.manifest.model

    @property
    def forms(self) -> Forms:
        """The manifest's."""
        return self.bundle.manifest.forms

    def find_builder(self, others: Sequence[Model]) -> None:
        """Choose the bundle that is to build its store: itself, or another that has the same memory encoder in float.

        Every answer rests on what a memory encoder writes: one in INT8 builds no store. Raises BundleError if there is
        no other.
        """
        bundles = [self.bundle, *(model.bundle for model in others if isinstance(model, BundleModel))]
        self._builder = next((bundle.directory for bundle in bundles if self._is_built_by(bundle)), None)
        if self._builder is None:
            raise BundleError(
                str(self.bundle), expected="a store to read, for its own memory encoder is in INT8", found="none",
                fix="evaluate the FP32 bundle of its checkpoint too, which then computes the memory of both, or build "
                "a store with it, and name that: --store",
            )

    def _is_built_by(self, bundle: Bundle) -> bool:
        own, other = self.bundle.manifest, bundle.manifest
        encoder = other.graphs.get(MEMORY_ENCODER)
        return (
            (encoder is None or encoder.precision in ("fp32", "fp16"))
            and (own.memory_digest, own.tokenizer_digest) == (other.memory_digest, other.tokenizer_digest)
            and self._codec in (*other.codecs, None)
        )

    @property
    def _codec(self) -> str | None:
        """What the memory of its store is kept in, as `memory build` chooses it; None if there is none."""
        codecs = self.bundle.manifest.codecs
        return "fp16" if "fp16" in codecs else next(iter(codecs), None)

    def open_store(self, store: Path, *, verify: bool, retrieval: str = "bm25") -> MemoryStore:
        """Raises StoreError if the store is not one that this bundle's checkpoint writes."""
        return MemoryStore.open(store, self.bundle, verify=verify, retrieval=retrieval)

    @contextmanager
    def opened(self, found: Found, options: ModelOptions) -> Iterator[SessionAnswering]:
        """A session; without a store, on one that is built of the passages found."""
        store = options.store or self._built(found, options.threads)
        with Session.open(
            self.path, store, threads=options.threads, verify=options.verify, backend=options.backend,
            compute_precision=options.compute_precision,
        ) as session:
            yield SessionAnswering(session, own=options.store is None)

    def _built(self, found: Found, threads: int | None) -> Path:
        """A store of the passages found, each under its place as its id; one for all bundles that can read it."""
        manifest = self.bundle.manifest
        assert found.folder is not None
        store = found.folder / f"{manifest.memory_digest[:16]}-{manifest.tokenizer_digest}-{self._codec}"
        if not store.exists():
            corpus = found.folder / "passages.jsonl"
            corpus.write_text("".join(map(_row, range(len(found.texts)), found.texts)), encoding="utf-8")
            build_store(self._builder or self.path, corpus, store, codec=self._codec, threads=threads)
        return store


def _row(place: int, passage: Passage) -> str:
    row = {"id": place, "title": passage.title, "text": passage.text, "wikipedia_id": passage.wikipedia_id}
    return json.dumps(row) + "\n"


class SessionAnswering:
    """A session that is given the passages of each question, so that all models read the same.

    `own`: its store was built of these passages, whose ids are their numbers.
    """

    def __init__(self, session: Session, *, own: bool) -> None:
        self._session, self._own = session, own

    def answer(self, batch: Sequence[Asked], cells: Sequence[Cell]) -> list[list[Answer]]:
        """By cell; raises what the session raises."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", PassageTruncatedWarning)
            return [self._answer(batch, cell) for cell in cells]

    def forget(self) -> None:
        """Nothing: a session's answers depend on their own batch alone."""

    def _answer(self, batch: Sequence[Asked], cell: Cell) -> list[Answer]:
        taken = [asked for asked in batch if asked.error is None]
        found = iter(
            self._session.answer_many(
                [asked.question.question for asked in taken], cell.k, cell.m,
                passages=[[self._given(candidate) for candidate in asked.candidates] for asked in taken],
            )
            if taken else ()
        )
        return [
            next(found) if asked.error is None else Answer(asked.question.question, None, error=asked.error)
            for asked in batch
        ]

    def _given(self, candidate: Candidate) -> Given:
        if candidate.number is None:
            return candidate.passage
        identifier = candidate.number if self._own else candidate.passage.id
        assert identifier is not None  # a store's passages have ids
        return PassageId(identifier)
