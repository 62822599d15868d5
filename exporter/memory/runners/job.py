"""What a runner is given and gives back, the encoder that every runner uses, and the runner in this process."""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from contextlib import AbstractContextManager, closing
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from glimmer_export.exporter.memory.corpus import Corpus
from glimmer_export.exporter.memory.encode import BuildPlan, Encoder, encode_shard, frozen_codec
from glimmer_export.exporter.memory.runners.in_turns import Turn, in_turns
from glimmer_export.exporter.memory.search_graph import searched_on
from glimmer_export.exporter.memory.work import ShardRecord, Work
from glimmer_export.runtime.backends import Backend, Graph
from glimmer_export.runtime.backends.registry import open_backend, require_weights
from glimmer_export.runtime.bundle import Bundle
from glimmer_export.runtime.contract import (
    MEMORY_ENCODER,
    TokenizerError,
)
from glimmer_export.runtime.contract.vector_layout import EncoderEntry
from glimmer_export.runtime.retrieval.encoder import SentenceEncoder
from glimmer_export.runtime.store import Passage
from glimmer_export.runtime.store_index import open_encoder

__all__ = [
    "Finished", "KeptRunner", "LocalRunner", "Runner", "ShardEncoder", "ShardJob", "memory_encoder", "open_planned",
]  # fmt: skip

Finished = Generator[tuple[int, ShardRecord], None, None]
"""Shards as they come to be in place, in any order: their index and record. Closed, it stops the work."""


@dataclass(frozen=True)
class ShardJob:
    """A build under way. The plan fixes which passages make a shard and how they are batched, whoever encodes it.

    `threads` is the number of CPU threads of one graph run; None leaves it to the runner. `store` is the one whose
    codec the passages are encoded in, None for the one under construction.
    """

    work: Work
    plan: BuildPlan
    bundle: Bundle
    corpus: Corpus
    threads: int | None
    store: Path | None = None


class Runner(Protocol):
    """Encodes shards."""

    def run(self, job: ShardJob, missing: Sequence[int], *, advance: Callable[[int], None]) -> Finished:
        """Put the shards of these indices in place; `advance` is told how many passages came to be done."""
        ...


class ShardEncoder:
    """A bundle's tokenizer and memory encoder, and the codec of `store`, loaded once. Safe from several threads.

    Raises BundleError where the graph cannot be loaded, BackendError where the plan's backend does not work here,
    StoreError where the codec's arrays cannot be read.
    """

    def __init__(
        self, store: Path, plan: BuildPlan, bundle: Bundle, *, threads: int | None, graph: Graph | None = None
    ) -> None:
        """`graph` is the memory encoder if it was loaded before; who loaded it closes its backend."""
        if bundle.text is None:
            raise TokenizerError(str(bundle), expected="a tokenizer", found="none", fix="export the bundle again")
        self._plan, self._text, self._encoder, self._sample = plan, bundle.text, None, plan.sample()
        self._backend: Backend | None = None
        if plan.codec is not None:
            codec = frozen_codec(store, plan.codec, plan.d_model)
            if graph is None:
                self._backend = open_planned(plan, bundle, threads)
                graph = memory_encoder(bundle, self._backend)
                codec = searched_on(codec, self._backend)
            self._encoder = Encoder(graph, codec)

    def encode(
        self, store: Path, index: int, passages: Sequence[Passage], *, advance: Callable[[int], None],
        at_encoder: AbstractContextManager[None] | None = None,
    ) -> ShardRecord:
        """Write a shard below `store`, as `encode_shard`."""
        return encode_shard(
            store, index, passages, self._plan, text=self._text, encoder=self._encoder, advance=advance,
            sample=self._sample, at_encoder=at_encoder,
        )

    def close(self) -> None:
        """Close the backend."""
        if self._backend is not None:
            self._backend.close()


def open_planned(plan: BuildPlan, bundle: Bundle, threads: int | None) -> Backend:
    """The plan's backend, to be closed by the caller; raises BackendError where it does not work here."""
    return open_backend(
        plan.backend, bundle.directory, threads=threads, compute_precision=plan.compute_precision
    )


def memory_encoder(bundle: Bundle, backend: Backend) -> Graph:
    """The graph; raises BundleError where it cannot be loaded, BackendError where the backend has nothing for it."""
    require_weights(backend.name, bundle.manifest, [MEMORY_ENCODER])
    return backend.load(bundle.graph_path(MEMORY_ENCODER), bundle.manifest.io()[MEMORY_ENCODER])


class LocalRunner:
    """Encodes in this process, with as many threads as the job says, or as suit model and machine."""

    def run(self, job: ShardJob, missing: Sequence[int], *, advance: Callable[[int], None]) -> Finished:
        """Encode in the corpus's order, some shards in turns; raises what `encode_shard` and `Corpus.parts` do."""
        encoder = self._encoder(job)
        wanted = set(missing)
        parts = ((index, part) for index, part in enumerate(job.corpus.parts()) if index in wanted)

        def make(index: int, part: Sequence[Passage], turn: Turn) -> ShardRecord:
            return encoder.encode(job.work.store, index, part, advance=turn.advance, at_encoder=turn.at_encoder)

        with closing(encoder), closing(in_turns(parts, make, advance)) as made:
            yield from made

    def _encoder(self, job: ShardJob) -> ShardEncoder:
        return ShardEncoder(job.store or job.work.store, job.plan, job.bundle, threads=job.threads)


class KeptRunner(LocalRunner):
    """As LocalRunner, and keeps the memory encoder loaded for the next append, and the sentence encoder of a store.

    For one bundle and one number of threads, in a process that appends often; not from two threads at once.
    """

    def __init__(self) -> None:
        self._backend: Backend | None = None
        self._graph: Graph | None = None
        self._key: tuple[object, ...] = ()
        self._sentences: SentenceEncoder | None = None
        self._sentences_key: tuple[object, ...] = ()

    def close(self) -> None:
        """Close the encoder's backend, and forget both; they are loaded again if they are asked for."""
        if self._backend is not None:
            self._backend.close()
        self._backend = self._graph = self._sentences = None

    def sentence_encoder(self, store: Path, encoder: EncoderEntry, threads: int | None) -> SentenceEncoder:
        """A store's sentence encoder, loaded once; raises as `open_encoder`."""
        key = (tuple(file.sha256 for file in encoder.files()), encoder.settings, threads)
        if self._sentences is None or key != self._sentences_key:
            self._sentences, self._sentences_key = open_encoder(store, encoder, threads), key
        return self._sentences

    def _encoder(self, job: ShardJob) -> ShardEncoder:
        plan = job.plan
        key = (job.bundle.directory, plan.graph_sha256, plan.backend, plan.compute_precision, job.threads)
        if plan.codec is not None and (self._graph is None or key != self._key):
            self.close()
            self._backend = open_planned(plan, job.bundle, job.threads)
            self._graph, self._key = memory_encoder(job.bundle, self._backend), key
        return ShardEncoder(job.store or job.work.store, plan, job.bundle, threads=job.threads, graph=self._graph)
