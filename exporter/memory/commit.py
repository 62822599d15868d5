"""One change of a store: its files are made beside it, and a new manifest makes them the store, or nothing happens.

Whoever has the store open keeps the generation before, whose manifest and files stay. What a change reads and writes is
in proportion to what it changes: the manifest, the lists of shards that it touches, and no shard but those.
"""

from __future__ import annotations

import dataclasses
import errno
import hashlib
import os
import unicodedata
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import save

from glimmer_export.exporter.files.links import require_no_link_below
from glimmer_export.exporter.files.publish import recover
from glimmer_export.exporter.files.whole_file import (
    remove_unfinished,
    replace_file,
    sync_directory,
    sync_tree,
    write_errors,
)
from glimmer_export.exporter.memory.full_text import FTS5, require_engine
from glimmer_export.exporter.memory.generations import free_older, older_generations, put_manifest, sweep
from glimmer_export.exporter.memory.journal import DROPPED, Journal, begin_change, end_change
from glimmer_export.exporter.memory.merge_policy import is_full, merged_from
from glimmer_export.exporter.memory.shard_lists import write_shard_list
from glimmer_export.exporter.memory.work import Work, work_directory
from glimmer_export.runtime.bundle import verify_file
from glimmer_export.runtime.codec_file import open_store_codec
from glimmer_export.runtime.contract import (
    MANIFEST,
    FileEntry,
    IndexEntry,
    OutputError,
    ShardEntry,
    ShardListEntry,
    StoreError,
    StoreManifest,
    TextsEntry,
    TombstonesEntry,
    read_store_manifest,
)
from glimmer_export.runtime.contract.dense_layout import adopted_vectors
from glimmer_export.runtime.contract.store_layout import (
    INLINE_SHARDS,
    INLINE_TOMBSTONES,
    JOURNALLED,
    LISTED_SHARDS,
    older_manifest_name,
    shard_list_name,
    tombstones_name,
)
from glimmer_export.runtime.contract.store_manifest import read_shard_list
from glimmer_export.runtime.contract.store_mending import saying_what_mends
from glimmer_export.runtime.contract.store_replica import REPLICAS, copied_files, copy_name
from glimmer_export.runtime.generation import TOMBSTONES, read_tombstones, read_tombstones_file
from glimmer_export.runtime.passage_texts import PassageTexts

__all__ = ["Change", "changed_corpus", "changing", "check_no_links", "replace_manifest"]

KEPT = 1
"""Older generations that stay though nobody holds them: what `memory repair --rollback` goes back to."""
MOST_NUMBERS = 1 << 62


@dataclass(frozen=True)
class Change:
    """A change under way, for which the store is locked. `staged` is a directory on the store's file system.

    The manifest has the vectors of an earlier version too, so that what is made of it names them. `swept_bytes` were
    freed of what killed changes had left.
    """

    store: Path
    manifest: StoreManifest
    work: Work
    staged: Path
    swept_bytes: int

    @property
    def generation(self) -> int:
        """The generation that the change makes."""
        return self.manifest.generation + 1

    def check(self, *files: FileEntry | None) -> None:
        """Raise StoreError where a file that the change copies is damaged: its digest would be made anew."""
        for entry in files:
            if entry is not None:
                with saying_what_mends(self.store, self.manifest, entry.path):
                    verify_file(self.store, entry, error=StoreError, subject=f"store {self.store}", fix="")

    def check_texts(self, parts: Iterable[TextsEntry]) -> None:
        """Raise StoreError where texts are damaged that are not checked as they are read: those without checksums.

        A file of FTS5's has its index too, which no checksum is of.
        """
        self.check(*(part.file for part in parts if self.full_text() or not part.checksums))

    def place(self, file: FileEntry) -> Path:
        """Where a file is that the store has, or that is staged."""
        staged = self.staged / file.path
        return staged if staged.exists() else self.store / file.path

    @cached_property
    def tombstones(self) -> NDArray[np.int64]:
        """Numbers of the passages that are deleted before the change, (n,), rising."""
        return read_tombstones(self.store, self.manifest)

    def dead_with(self, deleted: Collection[int]) -> NDArray[np.int64]:
        """`tombstones` and the numbers that the change deletes, (n,), rising; nothing is sorted but these."""
        added = np.unique(np.array([*deleted], np.int64))
        return np.insert(self.tombstones, self.tombstones.searchsorted(added), added)

    @contextmanager
    def texts(self) -> Iterator[PassageTexts]:
        """The store's texts, until the end of the block; nothing is searched there."""
        texts = PassageTexts(self.store, self.manifest.texts, self.tombstones)
        try:
            yield texts
        finally:
            texts.close()

    def bury(self, numbers: Collection[int]) -> tuple[tuple[TombstonesEntry, ...], tuple[int, ...]]:
        """Stage what stands for `numbers` as deleted too: the manifest's `tombstone_files`, and `tombstones`."""
        before = self.manifest
        inline = sorted({*before.tombstones, *numbers})
        if len(inline) <= INLINE_TOMBSTONES:
            return before.tombstone_files, tuple(inline)
        parts, added = list(before.tombstone_files), [np.array(inline, np.int64)]
        start = merged_from([*(part.count for part in parts), len(inline)], MOST_NUMBERS)
        added += [read_tombstones_file(self.store, before, part) for part in parts[start:]]
        del parts[start:]
        merged = np.sort(np.concatenate(added))
        name = tombstones_name(self.generation)
        (self.staged / name).parent.mkdir(exist_ok=True)
        replace_file(self.staged / name, save({TOMBSTONES: merged}))
        return (*parts, TombstonesEntry(self.entry(name), len(merged))), ()

    def entry(self, name: str) -> FileEntry:
        """How the manifest names a staged file."""
        path = self.staged / name
        return FileEntry.named(name, path)

    def listed(
        self, lists: Sequence[ShardListEntry], shards: Sequence[ShardEntry]
    ) -> tuple[tuple[ShardListEntry, ...], tuple[ShardEntry, ...]]:
        """The manifest's `shard_lists` and `shards`: if these are many, those that are settled go into the last list.

        Lists are staged. What may still be merged, behind the last full shard, stays in the manifest.
        """
        most = self.manifest.passages_per_shard
        settled = max((place + 1 for place, shard in enumerate(shards) if is_full(shard.num_passages, most)), default=0)
        if len(shards) <= INLINE_SHARDS or not settled:
            return tuple(lists), tuple(shards)
        kept, moved = list(lists), list(shards[:settled])
        if kept and kept[-1].num_shards < LISTED_SHARDS:
            moved = [*read_shard_list(self.store, self.manifest, kept.pop()), *moved]
        return (*kept, *self.stage_lists(moved)), tuple(shards[settled:])

    def stage_lists(self, shards: Sequence[ShardEntry]) -> Iterator[ShardListEntry]:
        """Stage lists of these shards, and yield how the manifest names them."""
        for start in range(0, len(shards), LISTED_SHARDS):
            place = len(list((self.staged / shard_list_name(0, 0)).parent.glob("*")))
            yield write_shard_list(
                self.staged, shard_list_name(self.generation, place), shards[start : start + LISTED_SHARDS]
            )

    def index(self) -> IndexEntry:
        """How the manifest names the index after the change: if it was `folded_otherwise`, it is written anew."""
        index = self.manifest.index
        return dataclasses.replace(index, unicode=unicodedata.unidata_version) if self.folded_otherwise() else index

    def full_text(self) -> bool:
        """Whether the index lies in the file of texts."""
        return self.manifest.index.engine == FTS5

    def folding(self) -> int | None:
        """The folding of the index that lies in the file of texts; None where it has files of its own."""
        return self.manifest.index.folding if self.full_text() else None

    def folded_otherwise(self) -> bool:
        """Whether an index in the file of texts was folded by another version of Unicode than this Python's.

        It cannot be added to, as it is told what to forget. Of segments each may have been folded by another.
        """
        return self.folding() not in (None, 0) and self.manifest.index.unicode != unicodedata.unidata_version

    def was_made(self, corpus_sha256: str) -> bool:
        """Whether this change is the one that was made last: a killed command may have got so far."""
        now, earlier = self.manifest.corpus_sha256, self.manifest.earlier_sha256
        if earlier is None and self.manifest.schema_version < JOURNALLED and self.manifest.generation:
            with suppress(StoreError):
                name = older_manifest_name(self.manifest.generation - 1)
                earlier = read_store_manifest(self.store, name).corpus_sha256
        return earlier is not None and _after(earlier, corpus_sha256) == now

    def publish(
        self, manifest: StoreManifest, others: Mapping[str, Path] | None = None, *, dropped: Collection[str] = (),
        kept: int = KEPT,
    ) -> tuple[list[int], list[int], int]:
        """Make `manifest` the store's, with what is staged and `others`, paths by their names in the store.

        Until the last step the store is what it was. `dropped` are paths of shards that it names no more; what else it
        does not name is found here. Returns as `free_older`, which leaves `kept` generations.
        """
        sync_tree(self.staged)
        staged = {path.relative_to(self.staged).as_posix(): path for path in self.staged.rglob("*") if path.is_file()}
        linked = {**staged, **(others or {})}
        begin_change(self.store, self._journal(manifest, linked, dropped))
        try:
            self._put(manifest, linked)
        except BaseException:
            with suppress(OSError, StoreError):  # the next change looks again
                self._undo()
            raise
        try:
            end_change(self.store, manifest.generation)
            freed = free_older(self.store, manifest.generation, kept=kept)
            if self.manifest.schema_version < JOURNALLED:  # of earlier changes nothing was noted
                return *freed[:2], freed[2] + sweep(self.store, manifest)
        except (OSError, OutputError):  # the change is made; the next one clears up
            return [], older_generations(self.store, manifest.generation), 0
        return freed

    def _undo(self) -> None:
        """Clear up behind a change that was stopped; if that came too late, it stands."""
        generation = read_store_manifest(self.store).generation
        end_change(self.store, generation)
        if generation == self.manifest.generation:
            older = self.store / older_manifest_name(generation)
            older.unlink(missing_ok=True)
            with suppress(OSError):  # absent, or not empty
                older.parent.rmdir()

    def _put(self, manifest: StoreManifest, linked: Mapping[str, Path]) -> None:
        for name, path in linked.items():
            (self.store / name).parent.mkdir(parents=True, exist_ok=True)
            (self.store / name).unlink(missing_ok=True)  # of a generation that never was
            _link(path, self.store / name)
        for folder in {(self.store / name).parent for name in linked} | {self.store}:
            sync_directory(folder)
        replace_manifest(self.store, self.manifest, manifest)

    def _journal(self, manifest: StoreManifest, linked: Collection[str], dropped: Collection[str]) -> Journal:
        shards = {shard.file.path for shard in self.manifest.shards}
        before = {file.path for file in self.manifest.files()} - shards
        gone = {*(before - {file.path for file in manifest.files()}), *dropped}
        copies = {copy_name(file.path) for file in copied_files(manifest) if file.path in linked}
        return Journal(manifest.generation, tuple(sorted({*linked, *copies})), tuple(sorted(gone)))


@contextmanager
def changing(store: Path, *, damaged: bool = False, engine: str | None = None) -> Iterator[Change]:
    """Lock a store for one change, and clear up behind it; what killed changes have left is removed first.

    `engine` is that of the full-text index which the change writes, by default the store's own.

    Raises StoreError for what is no store, or for one that a session would refuse by the sizes of the files that its
    manifest names, its codec and tombstones, unless it may be `damaged`; OutputError where another process changes or
    builds it, or where it cannot be written. An append's unfinished shards stay.
    """
    store = Path(os.path.realpath(store))
    with write_errors(store):
        recover(store)
        read_store_manifest(store)
        check_no_links(store)  # before anything is made beside it
        if store.is_mount():
            raise OutputError(
                f"store {store}", expected="a directory on the file system of the one that holds it",
                found="a mount point", fix="keep the store in a directory below it",
            )
        with work_directory(store) as work:
            work.check_ours()
            try:
                manifest = adopted_vectors(store, read_store_manifest(store))
                check_no_links(store)
                require_engine(engine or manifest.index.engine)
                swept = end_change(store, manifest.generation)
                for folder in (store, store / REPLICAS, store / DROPPED):
                    if folder.is_dir():
                        remove_unfinished(folder)
                with work.staging() as staged:
                    change = Change(store, manifest, work, staged, swept)
                    if not damaged:
                        _check_opens(change)
                    yield change
            finally:
                work.remove()


def _check_opens(change: Change) -> None:
    """Raise StoreError where a session would not open the store; digests, vectors and what lists name apart."""
    store, manifest = change.store, change.manifest
    for entry in set(manifest.files()) - set(manifest.vector_files()):
        with saying_what_mends(store, manifest, entry.path):
            verify_file(store, entry, error=StoreError, subject=f"store {store}", fix="", digest=False)
    open_store_codec(store, manifest)
    _ = change.tombstones  # read, and kept for the change


def check_no_links(store: Path) -> None:
    """Raise StoreError where a change of the store might write through a link, or give a link another name."""
    require_no_link_below(store, subject=f"store {store}", error=StoreError)


def replace_manifest(store: Path, before: StoreManifest | None, manifest: StoreManifest) -> None:
    """Make `manifest` the store's; the file of the one `before` stays as that of an older generation."""
    if before is not None:
        older = store / older_manifest_name(before.generation)
        older.parent.mkdir(exist_ok=True)
        older.unlink(missing_ok=True)
        _link(store / MANIFEST, older)
        for folder in (older.parent, store):
            sync_directory(folder)
    put_manifest(store, manifest)


def changed_corpus(manifest: StoreManifest, change_sha256: str) -> str:
    """What stands for the corpus after a change: equal only where the same changes were made to the same corpus."""
    return _after(manifest.corpus_sha256, change_sha256)


def _after(corpus_sha256: str, change_sha256: str) -> str:
    return hashlib.sha256(f"{corpus_sha256} {change_sha256}".encode()).hexdigest()


def _link(path: Path, target: Path) -> None:
    """Give a file its second name: a killed change still finds it under the first."""
    try:
        os.link(path, target)
    except OSError as error:
        if error.errno not in (errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EXDEV):
            raise
        raise OutputError(
            f"store {target.parent}", expected="a file system with hard links", found=str(error),
            fix="copy the store to one, to change it there",
        ) from error
