"""Corpus -> memory store. Killed at any moment and started again, a build goes on and ends with the same bytes."""

from __future__ import annotations

import logging
import time
import unicodedata
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path

from glimmer_export.exporter.files.links import resolved
from glimmer_export.exporter.files.publish import check_target, recover
from glimmer_export.exporter.files.whole_file import write_errors
from glimmer_export.exporter.memory.codec_fit import SampleErrors, fit_codec, fit_warnings
from glimmer_export.exporter.memory.corpus import Corpus, CorpusSource, Paths
from glimmer_export.exporter.memory.encode import BuildPlan, codec_entry, corpus_sample, freeze_codec, plan_build
from glimmer_export.exporter.memory.full_text import AUTO, choose_engine, require_engine, write_texts_and_index
from glimmer_export.exporter.memory.generations import put_manifest
from glimmer_export.exporter.memory.runners import LocalRunner, Runner, ShardJob, memory_encoder, open_planned
from glimmer_export.exporter.memory.shard_lists import built_lists
from glimmer_export.exporter.memory.work import ShardRecord, Work, check_new, check_output, work_directory
from glimmer_export.exporter.report.progress import progress_bar
from glimmer_export.runtime.backends import Array
from glimmer_export.runtime.backends.registry import backend_kind
from glimmer_export.runtime.bundle import Bundle, verify_file
from glimmer_export.runtime.contract import (
    CPU_BACKEND,
    FP32,
    MEMORY_ENCODER,
    STORE_SCHEMA_VERSION,
    CodecSnr,
    IndexEntry,
    OptionError,
    StoreError,
    StoreManifest,
    read_store_manifest,
    store_files,
)
from glimmer_export.runtime.contract.store_layout import FOLDING

__all__ = ["BuildSummary", "build_shards", "build_store", "memory_encoder"]

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class BuildSummary:
    """What a build made. `truncated` passages were cut to the passage length.

    `bytes` is the size of the files that the manifest names: not its own, nor the replicas'. `resumed_shards` were kept
    from an earlier run; `already_complete`: the store was there, and nothing was done. `codec_snr` is how well the
    `codec` keeps the memory, both None where the store has none; `warnings` say where it does much worse on passages
    that it was not fitted to.
    """

    passages: int
    tokens: int
    truncated: int
    shards: int
    bytes: int
    seconds: float
    resumed_shards: int
    already_complete: bool
    codec: str | None
    codec_snr: CodecSnr | None
    warnings: tuple[str, ...]


def build_store(  # noqa: PLR0913 - one for each option of the command
    bundle_directory: str | Path, corpus: Paths | CorpusSource, output: str | Path, *,
    codec: str | None = None, overwrite: bool = False, restart: bool = False, int8_memory: bool = False,
    batch_tokens: int = 4096, passages_per_shard: int = 4096, threads: int | None = None, index: str = AUTO,
    progress: bool = False, runner: Runner | None = None, backend: str = CPU_BACKEND,
    compute_precision: str = FP32,
) -> BuildSummary:
    """Encode every passage of a corpus with a bundle's memory encoder and write the store `output`.

    Work goes on in `output`.partial and survives whatever stops it; `restart` throws earlier work away, `overwrite`
    lets the result replace what is at `output`. `codec` is what memory is kept in, None: what the bundle decodes, or
    fp16 of several. `batch_tokens` bounds the padded tokens of one graph run and `passages_per_shard` is what an
    interruption loses at most. `threads` None: as many as suit model and machine. `int8_memory` lets an INT8 memory
    encoder write the store, whose memory every answer then rests on. `index` is the engine of the full-text index,
    `fts5` or `tantivy`: `auto` takes tantivy where there are more passages than FTS5 is quick with. `runner` encodes
    the shards, None: in this process; the store's bytes are the same. `backend` is the name of what runs the encoder,
    and `compute_precision` what it computes float operators in, which a build that goes on keeps to. A corpus that is a
    path alone is read by the ending of its name, its texts uncut.

    Raises BundleError, BackendError (the backend does not work here), OptionError (an INT8 memory encoder, a codec that
    no graph decodes, another index, an unknown backend),
    TokenizerError (a bundle without one), CorpusError (with the line or the row), StoreError (memory that is not
    finite, or no FTS5 here), OutputError (something else is there, an input is, a build under way, a full disk),
    MissingExtraError (what a codec, a corpus or the index needs), and what the runner raises besides.
    """
    if batch_tokens < 1 or passages_per_shard < 1:
        raise ValueError("batch_tokens and passages_per_shard must be positive")
    started, output = time.monotonic(), resolved(output)
    source = corpus if isinstance(corpus, CorpusSource) else CorpusSource.of(corpus)
    with write_errors(output):
        check_output(output, [bundle_directory, *source.paths])
        recover(output)
        check_new(output, overwrite=overwrite)
    bundle = Bundle.open(bundle_directory)
    _check_precision(bundle, int8_memory=int8_memory)
    scanned = Corpus.scan(source, part_size=passages_per_shard)
    engine = choose_engine(index, scanned.num_passages)
    require_engine(engine)
    plan = plan_build(
        bundle, scanned, codec=codec, passages_per_shard=passages_per_shard, batch_tokens=batch_tokens,
        index_engine=engine, backend=backend_kind(backend).name, compute_precision=compute_precision,
    )
    runner = runner or LocalRunner()
    if plan.codec is not None and isinstance(runner, LocalRunner):
        open_planned(plan, bundle, threads).close()  # an error here leaves nothing behind
    with write_errors(output):
        _present(output, plan, overwrite=overwrite)  # nor does one here
        with work_directory(output) as work:
            # Again: another process may have finished it before the lock was free.
            if (present := _present(output, plan, overwrite=overwrite)) is not None:
                work.remove()
                return _summary(output, present, started, resumed=0, already_complete=True)
            work.begin(plan, restart=restart)
            _freeze_codec(work, plan, bundle, scanned, threads)
            kept = work.done(plan)
            job = ShardJob(work, plan, bundle, scanned, threads)
            built = build_shards(job, runner, kept=set(kept), progress=progress)
            manifest = _write_rest(work, plan, scanned, kept | built, progress=progress)
            work.publish(output)
    return _summary(output, manifest, started, resumed=len(kept), already_complete=False)


def _check_precision(bundle: Bundle, *, int8_memory: bool) -> None:
    encoder = bundle.manifest.graphs.get(MEMORY_ENCODER)
    if encoder is not None and encoder.precision not in ("fp32", "fp16") and not int8_memory:
        raise OptionError(
            str(bundle), expected="a memory encoder in fp32 or fp16 to build a store", found=encoder.precision,
            fix="build with the FP32 bundle of the same checkpoint, whose store fits every precision, or give "
            "--int8-memory",
        )


def _present(output: Path, plan: BuildPlan, *, overwrite: bool) -> StoreManifest | None:
    """The manifest of the store that is there, if it is whole and the one that the plan would make; None to build it.

    Raises OutputError where something else is there that may not be replaced.
    """
    if not overwrite:
        with suppress(StoreError):
            manifest = read_store_manifest(output)
            for entry in store_files(output, manifest):
                verify_file(output, entry, error=StoreError, subject=f"store {output}", fix="")
            if not plan.differences(manifest):
                return manifest
    check_target(output, overwrite=overwrite)
    return None


def _freeze_codec(work: Work, plan: BuildPlan, bundle: Bundle, corpus: Corpus, threads: int | None) -> None:
    """Nothing to do where the store holds no memory."""
    name, text = plan.codec, bundle.text
    if name is None or text is None:
        return

    def fit() -> dict[str, Array]:
        with closing(open_planned(plan, bundle, threads)) as backend:
            graph = memory_encoder(bundle, backend)
            return fit_codec(name, plan.d_model, corpus_sample(plan, corpus, text, graph))

    freeze_codec(work, name, plan.d_model, fit)


def build_shards(job: ShardJob, runner: Runner, *, kept: set[int], progress: bool) -> dict[int, ShardRecord]:
    """Build what is missing. A shard is recorded when it comes, so that no later one's delay can lose it."""
    missing = [index for index in range(job.plan.num_shards) if index not in kept]
    records: dict[int, ShardRecord] = {}
    if not missing:
        return records
    total = sum(job.plan.shard_passages(index) for index in missing)
    with (
        progress_bar("Encoding passages", total, shown=progress) as advance,
        closing(runner.run(job, missing, advance=advance)) as finished,
    ):
        for index, record in finished:
            job.work.record(index, record)
            logger.info("wrote shard %d of %d", index + 1, job.plan.num_shards)
            records[index] = record
    return records


def _write_rest(
    work: Work, plan: BuildPlan, corpus: Corpus, records: dict[int, ShardRecord], *, progress: bool
) -> StoreManifest:
    """The texts and their index, and last the manifest."""
    with progress_bar("Indexing texts", plan.num_passages, shown=progress) as advance:
        texts, segments = write_texts_and_index(
            work.store, 0, enumerate(corpus.passages()), plan.num_passages, plan.index_engine, advance=advance
        )
    ordered = [records[index] for index in range(plan.num_shards)]
    lists, shards = built_lists(work.store, 0, [record.shard for record in ordered])
    manifest = StoreManifest(
        schema_version=STORE_SCHEMA_VERSION,
        generation=0,
        memory_digest=plan.memory_digest,
        tokenizer_digest=plan.tokenizer_digest,
        codec=plan.codec,
        codec_arrays=codec_entry(work.store),
        precision=plan.precision,
        d_model=plan.d_model,
        passage_length=plan.passage_length,
        passages_per_shard=plan.passages_per_shard,
        num_passages=plan.num_passages,
        num_truncated=sum(record.num_truncated for record in ordered),
        corpus_sha256=plan.corpus_sha256,
        earlier_sha256=None,
        chunk_words=plan.chunk_words,
        index=IndexEntry(plan.index_engine, FOLDING, unicodedata.unidata_version),
        shard_lists=lists,
        shards=shards,
        texts=texts,
        segments=segments,
        tombstone_files=(),
        tombstones=(),
        codec_snr=SampleErrors.total(record.errors for record in ordered).snr(),
    )
    return put_manifest(work.store, manifest)


def _summary(
    store: Path, manifest: StoreManifest, started: float, *, resumed: int, already_complete: bool
) -> BuildSummary:
    return BuildSummary(
        passages=manifest.num_passages,
        tokens=manifest.num_tokens,
        truncated=manifest.num_truncated,
        shards=manifest.num_shards,
        bytes=sum(file.bytes for file in store_files(store, manifest)),
        seconds=time.monotonic() - started,
        resumed_shards=resumed,
        already_complete=already_complete,
        codec=manifest.codec,
        codec_snr=manifest.codec_snr,
        warnings=fit_warnings(manifest.codec_snr),
    )
