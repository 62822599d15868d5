"""Passages added to a store, or put in the place of others, without building the rest again."""

from __future__ import annotations

import dataclasses
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from glimmer_export.exporter.files.publish import check_place, write_errors
from glimmer_export.exporter.memory.append_vectors import appended_vectors
from glimmer_export.exporter.memory.build import build_shards
from glimmer_export.exporter.memory.codec_fit import SampleErrors, append_warnings
from glimmer_export.exporter.memory.commit import Change, changed_corpus, changing
from glimmer_export.exporter.memory.corpus import Corpus, CorpusSource, Paths
from glimmer_export.exporter.memory.encode import BuildPlan, Encoder, plan_build
from glimmer_export.exporter.memory.find_ids import find_chunks, find_numbers
from glimmer_export.exporter.memory.full_text import engine_warnings
from glimmer_export.exporter.memory.merge_policy import merged_from
from glimmer_export.exporter.memory.merge_shards import ShardSource, write_merged
from glimmer_export.exporter.memory.quantise import search_warnings
from glimmer_export.exporter.memory.runners import KeptRunner, LocalRunner, Runner, ShardJob, memory_encoder
from glimmer_export.exporter.memory.segments import changed_index, changed_texts
from glimmer_export.exporter.memory.work import ShardRecord, check_output
from glimmer_export.exporter.report.progress import progress_bar
from glimmer_export.runtime.backends.registry import open_backend
from glimmer_export.runtime.bundle import Bundle
from glimmer_export.runtime.codec_file import open_store_codec
from glimmer_export.runtime.contract import (
    CPU_BACKEND,
    MEMORY_ENCODER,
    STORE_SCHEMA_VERSION,
    BundleError,
    CodecSnr,
    ShardEntry,
    StoreError,
    StoreManifest,
    TakenIdError,
    read_store_manifest,
)
from glimmer_export.runtime.contract.kinds import BUNDLE, STORE, require_kind
from glimmer_export.runtime.contract.store_layout import changed_shard_name
from glimmer_export.runtime.contract.store_mending import saying_what_mends
from glimmer_export.runtime.contract.vector_layout import VectorsEntry
from glimmer_export.runtime.generation import check_store_fits
from glimmer_export.runtime.store_index import open_encoder

__all__ = ["AppendSummary", "append_passages", "check_same_writer", "encoder_of"]

NO_CODEC = "none"
"""Where a bundle has no memory encoder, the name of a codec is not looked at."""
FIRST_CHUNK = "#0"
PLANNED = ("codec", "codec_arrays", "chunk_words", "passages_per_shard", "index_engine")
"""What no change of a store alters, and an append is planned by."""


@dataclass(frozen=True)
class AppendSummary:
    """What an append made: `appended` passages, some in the places of `replaced` ones; `passages` are there now.

    `tokens` and `truncated` are those of the appended passages, `shards` theirs; `resumed_shards` were kept from an
    earlier run. `already_complete`: the store's last change was this one, and nothing was done. `snr_db` is how well
    the store's codec keeps the appended passages, None without memory, or where nothing was done; `store_snr` how well
    it kept the store's own, None where that was not measured. `warnings` say where the first is much less, where the
    new passages have no vector, unlike the store's, and where the store has outgrown its full-text index.
    """

    generation: int
    appended: int
    replaced: int
    passages: int
    tokens: int
    truncated: int
    shards: int
    seconds: float
    resumed_shards: int
    already_complete: bool
    snr_db: float | None
    store_snr: CodecSnr | None
    warnings: tuple[str, ...]


def append_passages(
    store: str | Path, bundle: str | Path | Bundle, corpus_path: Paths, *,
    corpus_format: str | None = None, replace: bool = False, restart: bool = False, batch_tokens: int = 4096,
    threads: int | None = None, progress: bool = False, runner: Runner | None = None,
) -> AppendSummary:
    """Encode the passages of a corpus into new shards of a store; `replace` lets them take the places of their ids.

    Where the store has vectors by a sentence encoder, the passages get theirs, by the store's copy of it.
    Where the store's documents were cut into passages, so are these, and a document takes the place of all of its own.
    Killed, the same call goes on where it stopped; `restart` throws earlier work away. A `bundle` that is open is not
    opened again. The options are as in `build_store`.

    Raises BundleError, TokenizerError, CorpusError (a line; TakenIdError, an id that is there without `replace`),
    StoreError (no store, of another checkpoint or precision, damaged, memory that is not finite), OutputError
    (BusyError, another process changes the store; a full disk): the store is then as it was.
    """
    started, store = time.monotonic(), Path(store)
    given = CorpusSource.of(corpus_path, corpus_format)
    require_kind(store, STORE, error=StoreError)
    if not isinstance(bundle, Bundle):
        require_kind(Path(bundle), BUNDLE, error=BundleError)
    check_output(store, [bundle.directory if isinstance(bundle, Bundle) else bundle, *given.paths])
    with write_errors(store):
        check_place(Path(os.path.realpath(store)))  # the change is made beside it
    manifest = read_store_manifest(store)
    if not isinstance(bundle, Bundle):
        bundle = Bundle.open(bundle)
    check_same_writer(store, manifest, bundle)
    source = dataclasses.replace(given, chunk_words=manifest.chunk_words)
    corpus = Corpus.scan(source, part_size=manifest.passages_per_shard)
    plan = plan_build(
        bundle, corpus, codec=manifest.codec or NO_CODEC, passages_per_shard=manifest.passages_per_shard,
        batch_tokens=batch_tokens, index_engine=manifest.index.engine, arrays=manifest.codec_arrays,
    )
    with changing(store) as change:
        _check_same_store(store, manifest, change.manifest)
        check_same_writer(store, change.manifest, bundle)
        if change.was_made(corpus.sha256):
            if change.work.store.exists():
                change.work.begin(plan, restart=restart)
                change.work.clear()
            return _already_complete(change.manifest, started)
        change.check(change.manifest.codec_arrays)
        replaced = _replaced(change, corpus, replace=replace)
        change.work.begin(plan, restart=restart)
        kept = change.work.done(plan)
        job = ShardJob(change.work, plan, bundle, corpus, threads, store=change.store)
        built = build_shards(job, runner or LocalRunner(), kept=set(kept), progress=progress)
        records = {**kept, **built}
        ordered = [records[index] for index in range(plan.num_shards)]
        with progress_bar("Encoding vectors", plan.num_passages, shown=progress and _has_encoder(change)) as advance:
            vectors, lacking = appended_vectors(
                change, corpus.passages(), plan.num_passages, deleted=replaced, threads=threads, advance=advance,
                opened=runner.sentence_encoder if isinstance(runner, KeptRunner) else open_encoder,
            )
        changed = _publish(change, plan, corpus, ordered, replaced, vectors, progress=progress)
        change.work.clear()
    snr_db = SampleErrors.total(record.errors for record in ordered).outside.snr_db
    return AppendSummary(
        generation=changed.generation,
        appended=corpus.num_passages,
        replaced=len(replaced),
        passages=changed.num_passages,
        tokens=sum(record.shard.num_tokens for record in records.values()),
        truncated=sum(record.num_truncated for record in records.values()),
        shards=plan.num_shards,
        seconds=time.monotonic() - started,
        resumed_shards=len(kept),
        already_complete=False,
        snr_db=snr_db,
        store_snr=changed.codec_snr,
        warnings=(
            *append_warnings(snr_db, changed.codec_snr),
            *lacking,
            *search_warnings(vectors),
            *engine_warnings(changed.index.engine, changed.num_passages),
        ),
    )


def _has_encoder(change: Change) -> bool:
    return change.manifest.vectors is not None and change.manifest.vectors.encoder is not None


def encoder_of(store: Path, manifest: StoreManifest, bundle: Bundle, threads: int | None) -> Encoder | None:
    """What encodes passages as those of the store are, its codec as it was fitted then; None where it has no memory."""
    codec = open_store_codec(store, manifest)
    if codec is None:
        return None
    return Encoder(memory_encoder(bundle, open_backend(CPU_BACKEND, bundle.directory, threads=threads)), codec)


def check_same_writer(store: Path, manifest: StoreManifest, bundle: Bundle) -> None:
    """Raise StoreError where this bundle would not write what the store's own bundle wrote."""
    check_store_fits(store, manifest, bundle)
    encoder = bundle.manifest.graphs.get(MEMORY_ENCODER)
    precision = encoder.precision if encoder else None
    if precision != manifest.precision:
        raise StoreError(
            f"store {store}", expected=f"memory of precision {precision}, as {bundle} writes it",
            found=f"{manifest.precision}",
            fix="build the store anew: an append computes in FP32" if "bf16" in str(manifest.precision)
            else f"take the bundle in {manifest.precision} that built the store",
        )


def _check_same_store(store: Path, planned: StoreManifest, locked: StoreManifest) -> None:
    """Raise StoreError where another store has come in the place of the one that the append was planned for."""
    for name in PLANNED:
        if getattr(planned, name) != getattr(locked, name):
            raise StoreError(
                f"store {store}", expected="the same store as when the command began", found=f"one of another {name}",
                fix="run the command again",
            )


def _replaced(change: Change, corpus: Corpus, *, replace: bool) -> list[int]:
    """Numbers of the passages whose ids the corpus has too; raises TakenIdError for one that may not be replaced."""
    cut = change.manifest.chunk_words is not None
    replaced: list[int] = []
    with change.texts() as texts:
        found = find_chunks(texts, _documents(corpus)) if cut else find_numbers(texts, _ids(corpus))
        for identifier, numbers in zip(_documents(corpus) if cut else _ids(corpus), found, strict=True):
            if numbers and not replace:
                raise TakenIdError(
                    f"corpus {corpus.source}, {'document' if cut else 'passage'} {identifier!r}",
                    expected=f"an id that store {change.store} has not", found="one that is there",
                    fix="pass --replace to put the new one in the place of the old",
                )
            replaced += numbers
    return replaced


def _ids(corpus: Corpus) -> Iterator[int | str | None]:
    return (passage.id for passage in corpus.passages())


def _documents(corpus: Corpus) -> Iterator[str]:
    """Ids of the documents of a corpus that is cut into passages, each told by its first."""
    ids = (str(identifier) for identifier in _ids(corpus))
    return (identifier[: -len(FIRST_CHUNK)] for identifier in ids if identifier.endswith(FIRST_CHUNK))


def _publish(
    change: Change, plan: BuildPlan, corpus: Corpus, records: list[ShardRecord], replaced: list[int],
    vectors: VectorsEntry | None, *, progress: bool,
) -> StoreManifest:
    before = change.manifest
    start = before.num_numbers
    with progress_bar("Indexing texts", plan.num_passages + len(replaced), shown=progress) as advance:
        texts = changed_texts(
            change, deleted=replaced, added=enumerate(corpus.passages(), start), num_added=plan.num_passages,
            advance=advance,
        )
        segments = changed_index(change, texts, deleted=replaced, num_added=plan.num_passages, advance=advance)
    shards, files, dropped = _shards(change, records, replaced)
    lists, shards = change.listed(before.shard_lists, shards)
    tombstone_files, tombstones = change.bury(replaced)
    manifest = dataclasses.replace(
        before,
        schema_version=STORE_SCHEMA_VERSION,
        generation=change.generation,
        num_passages=before.num_passages + plan.num_passages - len(replaced),
        num_truncated=before.num_truncated + sum(record.num_truncated for record in records),
        corpus_sha256=changed_corpus(before, corpus.sha256),
        earlier_sha256=before.corpus_sha256,
        index=change.index(),
        shard_lists=lists,
        shards=shards,
        texts=texts,
        segments=segments,
        tombstone_files=tombstone_files,
        tombstones=tombstones,
        vectors=vectors,
    )
    change.publish(manifest, files, dropped=dropped)
    return manifest


def _shards(
    change: Change, records: list[ShardRecord], replaced: list[int]
) -> tuple[tuple[ShardEntry, ...], dict[str, Path], list[str]]:
    """The shards of the manifest itself, with the new ones, small neighbours merged.

    With the places of the files that are not staged, by their names in the store, and the names of those that go.
    """
    before, end = change.manifest, change.manifest.num_numbers
    new = [dataclasses.replace(record.shard, first=end + record.shard.first) for record in records]
    shards = [*before.shards, *new]
    places = [change.store / shard.file.path for shard in before.shards]
    places += [change.work.store / shard.file.path for shard in new]
    dead = change.dead_with(replaced)
    result: list[ShardEntry] = []
    files: dict[str, Path] = {}
    dropped: list[str] = []
    start = merged_from([shard.num_passages for shard in shards], before.passages_per_shard)
    place = 0
    while place < len(shards):
        run = range(place, len(shards) if place == start else place + 1)
        name = changed_shard_name(change.generation, len(result))
        if len(run) > 1:
            sources = [ShardSource.of(places[index], shards[index], dead) for index in run]
            (change.staged / name).parent.mkdir(exist_ok=True)
            with saying_what_mends(change.store, before, shards[place].file.path):
                result.append(write_merged(
                    change.staged / name, name, sources, d_model=before.d_model, codec=before.codec
                ))
            dropped += [shards[index].file.path for index in run if index < len(before.shards)]
        elif place >= len(before.shards):
            files[name] = places[place]
            file = dataclasses.replace(shards[place].file, path=name)
            result.append(dataclasses.replace(shards[place], file=file))
        else:
            result.append(shards[place])
        place = run.stop
    return tuple(result), files, dropped


def _already_complete(manifest: StoreManifest, started: float) -> AppendSummary:
    return AppendSummary(
        generation=manifest.generation, appended=0, replaced=0, passages=manifest.num_passages, tokens=0, truncated=0,
        shards=0, seconds=time.monotonic() - started, resumed_shards=0, already_complete=True, snr_db=None,
        store_snr=manifest.codec_snr, warnings=(),
    )
