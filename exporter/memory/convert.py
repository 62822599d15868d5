"""A memory store in one codec -> the same passages in another, without the checkpoint and without encoding anew."""

from __future__ import annotations

import hashlib
import os
import shutil
import stat
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from glimmer_export.exporter.files.links import link_or_copy, resolved
from glimmer_export.exporter.files.publish import check_target, recover
from glimmer_export.exporter.files.whole_file import plain_mode, whole_file, write_errors
from glimmer_export.exporter.memory.codec_fit import (
    SAMPLE_PASSAGES,
    CodecSample,
    ErrorMeter,
    SampleErrors,
    after_another,
    choose_sample,
    fit_codec,
    fit_warnings,
)
from glimmer_export.exporter.memory.encode import codec_entry, encode_memory, freeze_codec, frozen_codec
from glimmer_export.exporter.memory.generations import put_manifest
from glimmer_export.exporter.memory.shard_lists import write_shard_list
from glimmer_export.exporter.memory.shards import ShardWriter
from glimmer_export.exporter.memory.work import ShardRecord, Work, check_new, check_output, work_directory
from glimmer_export.exporter.report.progress import progress_bar
from glimmer_export.runtime.backends import Array
from glimmer_export.runtime.bundle import verify_file
from glimmer_export.runtime.codec_file import open_store_codec
from glimmer_export.runtime.codecs import Codec
from glimmer_export.runtime.contract import (
    STORE_SCHEMA_VERSION,
    CodecSnr,
    FileEntry,
    OptionError,
    ShardEntry,
    StoreError,
    StoreManifest,
    codec_layout,
    read_shards,
    read_store_manifest,
    record_to_json,
    store_files,
)
from glimmer_export.runtime.contract.dense_layout import adopted_vectors
from glimmer_export.runtime.contract.shard_layout import entry_tensors
from glimmer_export.runtime.contract.store_layout import shard_list_name
from glimmer_export.runtime.contract.store_mending import saying_what_mends
from glimmer_export.runtime.generation import held_manifest, read_tombstones
from glimmer_export.runtime.shards import Shard, open_shard

__all__ = ["ConvertSummary", "Reencoding", "convert_store"]

FIX = "run `glimmer-export memory verify` on it"


@dataclass(frozen=True)
class ConvertPlan:
    """`plan.json` of a conversion under way; `source_sha256` is the digest of the source's manifest.

    `sample_passages` as in a build's plan.
    """

    source_sha256: str
    codec: str
    sample_passages: int
    passages: tuple[int, ...]

    @property
    def num_shards(self) -> int:
        """As many as the source has."""
        return len(self.passages)

    def shard_passages(self, index: int) -> int:
        """As many as the source's shard has."""
        return self.passages[index]


@dataclass(frozen=True)
class ConvertSummary:
    """What a conversion made: sizes of the shards of both, in bytes.

    `codec_snr` is how well the codec keeps the memory that the source gives; `warnings` as of a build.
    `already_complete`: the store was there, and nothing was done; `codec_snr` is then what it says of itself.
    """

    source_codec: str
    codec: str
    passages: int
    tokens: int
    source_bytes: int
    bytes: int
    seconds: float
    resumed_shards: int
    already_complete: bool
    codec_snr: CodecSnr | None
    warnings: tuple[str, ...]


def convert_store(
    source: str | Path, output: str | Path, codec: str, *,
    overwrite: bool = False, restart: bool = False, progress: bool = False,
) -> ConvertSummary:
    """Re-encode the memory of the store `source` in `codec` and write the store `output`.

    A codec's arrays are fitted to passages of the source in even steps, deleted ones left out; what the source's own
    codec lost stays lost. Texts, index and vectors are the source's, linked where the file system can. Interrupted, the
    same call goes on.

    Raises StoreError (a damaged source), OptionError (a source without memory, a codec that does not fit), OutputError
    and MissingExtraError.
    """
    started, source, output = time.monotonic(), Path(source), resolved(output)
    with write_errors(output):
        check_output(output, [source])
        recover(output)
        check_new(output, overwrite=overwrite)
    with held_manifest(source) as held:
        manifest = adopted_vectors(source, held)
        own = _check(source, manifest, codec)
        earlier = read_shards(source, manifest)
        counts = tuple(shard.num_passages for shard in earlier)
        digest = hashlib.sha256(record_to_json(manifest).encode()).hexdigest()
        fitted = SAMPLE_PASSAGES if codec_layout(codec, manifest.d_model).arrays else 0
        plan = ConvertPlan(digest, codec, fitted, counts)
        reencoding = Reencoding(source, manifest, earlier, own)
        sample = choose_sample(reencoding.live_numbers(), fitted)
        with write_errors(output):
            _present(output, source, manifest, codec, overwrite=overwrite)  # an error here leaves nothing behind
            with work_directory(output) as work:
                # Again: another process may have finished it before the lock was free.
                present = _present(output, source, manifest, codec, overwrite=overwrite)
                if present is not None:
                    work.remove()
                    present_shards = read_shards(output, present)
                    return _summary(
                        manifest, present, (earlier, present_shards), present.codec_snr, started, resumed=0,
                        already_complete=True,
                    )
                work.begin(plan, restart=restart)
                freeze_codec(work, codec, manifest.d_model, lambda: reencoding.fit(codec, sample))
                other = frozen_codec(work.store, codec, manifest.d_model)
                kept = work.done(plan)
                missing = [index for index in range(plan.num_shards) if index not in kept]
                records = dict(kept)
                total = sum(plan.passages[index] for index in missing)
                with progress_bar("Converting passages", total, shown=progress) as advance:
                    for index in missing:
                        records[index] = reencoding.write(work.store, index, other, sample, advance)
                        work.record(index, records[index])
                ordered = [records[index] for index in range(plan.num_shards)]
                snr = SampleErrors.total(record.errors for record in ordered).snr()
                shards = tuple(record.shard for record in ordered)
                _write_rest(work, source, _converted(work, manifest, codec, shards, snr))
                work.publish(output)
        written = read_store_manifest(output)
        return _summary(
            manifest, written, (earlier, read_shards(output, written)), snr, started, resumed=len(kept),
            already_complete=False,
        )


def _present(
    output: Path, source: Path, manifest: StoreManifest, codec: str, *, overwrite: bool
) -> StoreManifest | None:
    """The manifest of the store that is there, if it is whole and the source's passages in `codec`; None to make it.

    Raises OutputError where something else is there that may not be replaced.
    """
    if not overwrite:
        with suppress(StoreError):
            found = read_store_manifest(output)
            converted = replace(
                manifest, schema_version=STORE_SCHEMA_VERSION, codec=codec, codec_arrays=found.codec_arrays,
                shard_lists=found.shard_lists, shards=found.shards, codec_snr=found.codec_snr,
            )
            if found == converted and _counts(output, found) == _counts(source, manifest):
                for entry in store_files(output, found):
                    verify_file(output, entry, error=StoreError, subject=f"store {output}", fix="")
                return found
    check_target(output, overwrite=overwrite)
    return None


def _counts(store: Path, manifest: StoreManifest) -> list[tuple[str, int, int]]:
    return [(shard.file.path, shard.num_passages, shard.num_tokens) for shard in read_shards(store, manifest)]


def _summary(
    manifest: StoreManifest, written: StoreManifest, shards: tuple[Sequence[ShardEntry], Sequence[ShardEntry]],
    snr: CodecSnr | None, started: float, *, resumed: int, already_complete: bool,
) -> ConvertSummary:
    source_bytes, written_bytes = (sum(shard.file.bytes for shard in part) for part in shards)
    return ConvertSummary(
        source_codec=str(manifest.codec), codec=str(written.codec), passages=manifest.num_passages,
        tokens=manifest.num_tokens, source_bytes=source_bytes, bytes=written_bytes,
        seconds=time.monotonic() - started, resumed_shards=resumed, already_complete=already_complete, codec_snr=snr,
        warnings=fit_warnings(snr),
    )


def _check(source: Path, manifest: StoreManifest, codec: str) -> Codec:
    subject = f"store {source}"
    for entry in store_files(source, manifest):
        with saying_what_mends(source, manifest, entry.path):
            verify_file(source, entry, error=StoreError, subject=subject, fix="")
    own = open_store_codec(source, manifest)
    if own is None:
        raise OptionError(subject, expected="a store with memory", found="token ids alone", fix="name another")
    try:
        codec_layout(codec, manifest.d_model)
    except ValueError as reason:
        raise OptionError(
            "--codec", expected="one that fits the store's width", found=str(reason), fix="choose another"
        ) from None
    return own


def _converted(
    work: Work, manifest: StoreManifest, codec: str, shards: tuple[ShardEntry, ...], snr: CodecSnr | None
) -> StoreManifest:
    """The source's manifest, with what the codec changes.

    Its figure is of both codecs, since what is appended later loses by one alone; in fp16 a source is as good as exact.
    """
    earlier_db = None if manifest.codec_snr is None else manifest.codec_snr.usual_db
    both = snr if earlier_db is None and manifest.codec == "fp16" else after_another(snr, earlier_db)
    lists, start = [], 0
    for place, part in enumerate(manifest.shard_lists):
        name = shard_list_name(manifest.generation, place)
        lists.append(write_shard_list(work.store, name, shards[start : start + part.num_shards]))
        start += part.num_shards
    return replace(
        manifest, schema_version=STORE_SCHEMA_VERSION, codec=codec, codec_arrays=codec_entry(work.store),
        shard_lists=tuple(lists), shards=shards[start:], codec_snr=both,
    )


def _write_rest(work: Work, source: Path, manifest: StoreManifest) -> None:
    """Everything but the shards and their lists, which are there, and last the manifest of what is written."""
    for part in manifest.tombstone_files:
        _link(source, work.store, part.file.path)
    for entry in (
        *(part.file for part in manifest.texts), *(file for segment in manifest.segments for file in segment.files),
        *manifest.vector_files(),
    ):
        _link(source, work.store, entry.path)
    put_manifest(work.store, manifest)


def _link(source: Path, target: Path, name: str) -> None:
    """Give the file `name` of the directory `source` the same name below `target`, whose folders are made.

    It is a copy if the source is reached by a link, as its content is then somebody else's to keep, and if it has
    another mode than a new file would get. Raises OSError, as for a full disk.
    """
    earlier, place = source / name, target / name
    place.parent.mkdir(parents=True, exist_ok=True)
    place.unlink(missing_ok=True)
    own = Path(os.path.realpath(earlier)) == Path(os.path.realpath(source)) / name
    if own and stat.S_IMODE(earlier.stat().st_mode) == plain_mode(place.parent):
        link_or_copy(earlier, place)
    else:
        shutil.copyfile(earlier, place)


@dataclass(frozen=True)
class Reencoding:
    """A store whose files were verified, and the codec that its memory is in."""

    source: Path
    manifest: StoreManifest
    shards: Sequence[ShardEntry]
    codec: Codec

    def live_numbers(self) -> Sequence[int] | NDArray[np.int64]:
        """Numbers of the passages that are there, rising."""
        deleted = read_tombstones(self.source, self.manifest)
        if not len(deleted):
            return range(self.manifest.num_numbers)
        return np.setdiff1d(np.arange(self.manifest.num_numbers), deleted, assume_unique=True)

    def fit(self, codec: str, sample: CodecSample) -> dict[str, Array]:
        """Arrays of another codec, fitted to the sample's passages, in their order."""

        def memories() -> Iterator[Array]:
            for index, entry in enumerate(self.shards):
                rows = [row for row in range(entry.num_passages) if entry.first + row in sample.fitted]
                yield from self._memories(self._open(index), rows)

        return fit_codec(codec, self.manifest.d_model, memories())

    def write(
        self, store: Path, index: int, codec: Codec, sample: CodecSample, advance: Callable[[int], None]
    ) -> ShardRecord:
        """Write a shard below `store` in another codec; `advance` is told how many passages were written."""
        entry, meter, shard = self.shards[index], ErrorMeter(codec, sample), self._open(index)
        ids = [shard.tokens(row).tolist() for row in range(entry.num_passages)]
        rows = [row for row, tokens in enumerate(ids) if tokens]
        with whole_file(store / entry.file.path) as temporary:
            with ShardWriter(temporary, ids, d_model=self.manifest.d_model, codec=codec.layout.name) as writer:
                for row, memory in zip(rows, self._memories(shard, rows), strict=True):
                    tensors = encode_memory(codec, memory, f"number {row} of {entry.file.path}")
                    writer.put(row, tensors)
                    meter.add(entry.first + row, memory, tensors)
                    advance(1)
            file = FileEntry.named(entry.file.path, temporary)
        return ShardRecord(replace(entry, file=file, checksums=True), 0, meter.errors)

    def _open(self, index: int) -> Shard:
        entry = self.shards[index]
        tensors = entry_tensors(entry, self.manifest.d_model, self.manifest.codec)
        return open_shard(self.source / entry.file.path, tensors, num_empty=entry.num_empty)

    def _memories(self, shard: Shard, rows: Iterable[int]) -> Iterator[Array]:
        for row in rows:
            yield self.codec.decode(shard.passage(row))
