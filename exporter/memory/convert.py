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
from glimmer_export.exporter.memory.shards import ShardWriter
from glimmer_export.exporter.memory.work import ShardRecord, Work, check_new, check_output, work_directory
from glimmer_export.exporter.report.progress import progress_bar
from glimmer_export.runtime.backends import Array
from glimmer_export.runtime.bundle import verify_file
from glimmer_export.runtime.codec_file import open_store_codec
from glimmer_export.runtime.codecs import Codec
from glimmer_export.runtime.contract import (
    MANIFEST,
    CodecSnr,
    FileEntry,
    OptionError,
    ShardEntry,
    StoreError,
    StoreManifest,
    codec_layout,
    read_store_manifest,
    record_to_json,
)
from glimmer_export.runtime.contract.dense_layout import DENSE, DenseManifest, read_dense_manifest
from glimmer_export.runtime.contract.shard_layout import shard_tensors
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
    with held_manifest(source) as manifest:
        own = _check(source, manifest, codec)
        counts = tuple(shard.num_passages for shard in manifest.shards)
        digest = hashlib.sha256(record_to_json(manifest).encode()).hexdigest()
        fitted = SAMPLE_PASSAGES if codec_layout(codec, manifest.d_model).arrays else 0
        plan = ConvertPlan(digest, codec, fitted, counts)
        reencoding = Reencoding(source, manifest, own)
        sample = choose_sample(reencoding.live_numbers(), fitted)
        with write_errors(output):
            _present(output, source, manifest, codec, overwrite=overwrite)  # an error here leaves nothing behind
            with work_directory(output) as work:
                # Again: another process may have finished it before the lock was free.
                present = _present(output, source, manifest, codec, overwrite=overwrite)
                if present is not None:
                    work.remove()
                    return _summary(manifest, present, present.codec_snr, started, resumed=0, already_complete=True)
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
        return _summary(manifest, written, snr, started, resumed=len(kept), already_complete=False)


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
                manifest, codec=codec, codec_arrays=found.codec_arrays, shards=found.shards, codec_snr=found.codec_snr
            )
            if found == converted and _counts(found) == _counts(manifest):
                for entry in found.files():
                    verify_file(output, entry, error=StoreError, subject=f"store {output}", fix="")
                if _vectors(output, found) == _vectors(source, manifest):
                    return found
    check_target(output, overwrite=overwrite)
    return None


def _counts(manifest: StoreManifest) -> list[tuple[str, int, int]]:
    return [(shard.file.path, shard.num_passages, shard.num_tokens) for shard in manifest.shards]


def _summary(
    manifest: StoreManifest, written: StoreManifest, snr: CodecSnr | None, started: float, *,
    resumed: int, already_complete: bool,
) -> ConvertSummary:
    return ConvertSummary(
        source_codec=str(manifest.codec), codec=str(written.codec), passages=manifest.num_passages,
        tokens=manifest.num_tokens, source_bytes=_shard_bytes(manifest), bytes=_shard_bytes(written),
        seconds=time.monotonic() - started, resumed_shards=resumed, already_complete=already_complete, codec_snr=snr,
        warnings=fit_warnings(snr),
    )


def _check(source: Path, manifest: StoreManifest, codec: str) -> Codec:
    subject = f"store {source}"
    for entry in manifest.files():
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
    return replace(manifest, codec=codec, codec_arrays=codec_entry(work.store), shards=shards, codec_snr=both)


def _write_rest(work: Work, source: Path, manifest: StoreManifest) -> None:
    """Everything but the shards, which are there, and last the manifest of what is written."""
    tombstones = (manifest.tombstones,) if manifest.tombstones else ()
    for entry in (manifest.texts, *manifest.index.files, *tombstones):
        _link(source, work.store, entry.path)
    _link_vectors(work, source, manifest)
    put_manifest(work.store, manifest)


def _link_vectors(work: Work, source: Path, manifest: StoreManifest) -> None:
    dense = _vectors(source, manifest)
    if dense is None:
        return
    for entry in dense.files():
        verify_file(source / DENSE, entry, error=StoreError, subject=f"store {source}, {DENSE}", fix=FIX)
    for name in (*(entry.path for entry in dense.files()), MANIFEST):
        _link(source / DENSE, work.store / DENSE, name)


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


def _vectors(store: Path, manifest: StoreManifest) -> DenseManifest | None:
    try:
        return read_dense_manifest(store, manifest)
    except StoreError:  # there are none, or none of these passages
        return None


def _shard_bytes(manifest: StoreManifest) -> int:
    return sum(shard.file.bytes for shard in manifest.shards)


@dataclass(frozen=True)
class Reencoding:
    """A store whose files were verified, and the codec that its memory is in."""

    source: Path
    manifest: StoreManifest
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
            first = 0
            for index, entry in enumerate(self.manifest.shards):
                rows = [row for row in range(entry.num_passages) if first + row in sample.fitted]
                yield from self._memories(self._open(index), rows)
                first += entry.num_passages

        return fit_codec(codec, self.manifest.d_model, memories())

    def write(
        self, store: Path, index: int, codec: Codec, sample: CodecSample, advance: Callable[[int], None]
    ) -> ShardRecord:
        """Write a shard below `store` in another codec; `advance` is told how many passages were written."""
        entry, meter, shard = self.manifest.shards[index], ErrorMeter(codec, sample), self._open(index)
        first = sum(earlier.num_passages for earlier in self.manifest.shards[:index])
        ids = [shard.tokens(row).tolist() for row in range(entry.num_passages)]
        with whole_file(store / entry.file.path) as temporary:
            with ShardWriter(temporary, ids, d_model=self.manifest.d_model, codec=codec.layout.name) as writer:
                for row, memory in enumerate(self._memories(shard, range(entry.num_passages))):
                    tensors = encode_memory(codec, memory, f"number {row} of {entry.file.path}")
                    writer.put(row, tensors)
                    meter.add(first + row, memory, tensors)
                    advance(1)
            file = FileEntry.named(entry.file.path, temporary)
        return ShardRecord(ShardEntry(file, entry.num_passages, entry.num_tokens), 0, meter.errors)

    def _open(self, index: int) -> Shard:
        entry = self.manifest.shards[index]
        tensors = shard_tensors(entry.num_passages, entry.num_tokens, self.manifest.d_model, self.manifest.codec)
        return open_shard(self.source / entry.file.path, tensors)

    def _memories(self, shard: Shard, rows: Iterable[int]) -> Iterator[Array]:
        for row in rows:
            yield self.codec.decode(shard.passage(row))
