"""One change of a store: its files are made beside it, and a new manifest makes them the store, or nothing happens.

Whoever has the store open keeps the generation before, whose manifest and files stay.
"""

from __future__ import annotations

import errno
import hashlib
import os
import unicodedata
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import save

from glimmer_export.exporter.files.links import require_no_link, require_no_link_below
from glimmer_export.exporter.files.publish import recover
from glimmer_export.exporter.files.whole_file import replace_file, sync_directory, sync_tree, write_errors
from glimmer_export.exporter.memory.generations import older_generations, put_manifest, sweep
from glimmer_export.exporter.memory.texts import FTS5, read_texts, require_engine, write_index
from glimmer_export.exporter.memory.work import Work, work_directory
from glimmer_export.runtime.bundle import verify_file
from glimmer_export.runtime.codec_file import open_store_codec
from glimmer_export.runtime.contract import (
    MANIFEST,
    FileEntry,
    IndexEntry,
    OutputError,
    StoreError,
    StoreManifest,
    read_store_manifest,
)
from glimmer_export.runtime.contract.shard_layout import shard_tensors
from glimmer_export.runtime.contract.store_layout import older_manifest_name, tombstones_name
from glimmer_export.runtime.contract.store_mending import saying_what_mends
from glimmer_export.runtime.generation import TOMBSTONES, read_tombstones
from glimmer_export.runtime.shards import open_shard

__all__ = ["Change", "changed_corpus", "changing", "check_no_links", "replace_manifest"]


@dataclass(frozen=True)
class Change:
    """A change under way, for which the store is locked. `staged` is a directory on the store's file system.

    `swept_bytes` were freed of what killed changes had left.
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

    def bury(self, numbers: list[int]) -> FileEntry | None:
        """Stage the tombstones with `numbers` among them; the entry for the manifest."""
        if not numbers:
            return self.manifest.tombstones
        earlier = read_tombstones(self.store, self.manifest)
        return self.stage_tombstones(np.union1d(earlier, np.array(numbers, np.int64)))

    def stage_tombstones(self, numbers: NDArray[np.int64]) -> FileEntry:
        """Stage a file of tombstones (n,) int64, rising; the entry for the manifest."""
        name = tombstones_name(self.generation)
        (self.staged / name).parent.mkdir(exist_ok=True)
        replace_file(self.staged / name, save({TOMBSTONES: numbers}))
        return self.entry(name)

    def entry(self, name: str) -> FileEntry:
        """How the manifest names a staged file."""
        path = self.staged / name
        return FileEntry.named(name, path)

    def full_text(self) -> bool:
        """Whether the index lies in the file of texts."""
        return self.manifest.index.engine == FTS5

    def folding(self) -> int | None:
        """The folding of the index that lies in the file of texts; None where it has files of its own."""
        return self.manifest.index.folding if self.full_text() else None

    def folded_otherwise(self) -> bool:
        """Whether that index was folded by another version of Unicode than this Python's, and cannot be added to."""
        return self.folding() not in (None, 0) and self.manifest.index.unicode != unicodedata.unidata_version

    def index(self, texts: str, *, advance: Callable[[int], None]) -> IndexEntry:
        """Stage the index of the staged texts; `advance` as in `write_index`, for an engine with files of its own."""
        passages, index = read_texts(self.staged / texts), self.manifest.index
        return write_index(
            self.staged, self.generation, passages, index.engine, advance=advance, folding=index.folding
        )

    def was_made(self, corpus_sha256: str) -> bool:
        """Whether this change is the one that was made last: a killed command may have got so far."""
        for generation in older_generations(self.store, self.manifest.generation):
            with suppress(StoreError):
                earlier = read_store_manifest(self.store, older_manifest_name(generation))
                if changed_corpus(earlier, corpus_sha256) == self.manifest.corpus_sha256:
                    return True
        return False

    def publish(self, manifest: StoreManifest, others: Mapping[str, Path] | None = None) -> None:
        """Make `manifest` the store's, with what is staged and `others`, paths by their names in the store.

        Until the last step the store is what it was.
        """
        sync_tree(self.staged)
        staged = {path.relative_to(self.staged).as_posix(): path for path in self.staged.rglob("*") if path.is_file()}
        linked = {**staged, **(others or {})}
        for name, path in linked.items():
            (self.store / name).parent.mkdir(parents=True, exist_ok=True)
            (self.store / name).unlink(missing_ok=True)  # a killed change's, of a generation that never was
            _link(path, self.store / name)
        for folder in {(self.store / name).parent for name in linked} | {self.store}:
            sync_directory(folder)
        replace_manifest(self.store, self.manifest, manifest)


@contextmanager
def changing(store: Path, *, damaged: bool = False) -> Iterator[Change]:
    """Lock a store for one change, and clear up behind it; what killed changes have left is removed first.

    Raises StoreError for what is no store, or for one that a session would refuse by its files' sizes, headers and
    counts, unless it may be `damaged`; OutputError where another process changes or builds it, or where it cannot be
    written. An append's unfinished shards stay.
    """
    store = Path(os.path.realpath(store))
    with write_errors(store):
        recover(store)
        check_no_links(store, read_store_manifest(store))  # before anything is made beside it
        if store.is_mount():
            raise OutputError(
                f"store {store}", expected="a directory on the file system of the one that holds it",
                found="a mount point", fix="keep the store in a directory below it",
            )
        with work_directory(store) as work:
            work.check_ours()
            try:
                manifest = read_store_manifest(store)
                check_no_links(store, manifest)
                require_engine(manifest.index.engine)
                if not damaged:
                    _check_opens(store, manifest)
                swept = sweep(store, manifest)
                with work.staging() as staged:
                    yield Change(store, manifest, work, staged, swept)
            finally:
                work.remove()


def _check_opens(store: Path, manifest: StoreManifest) -> None:
    """Raise StoreError where a session would not open the store, the files' digests apart."""
    for entry in manifest.files():
        with saying_what_mends(store, manifest, entry.path):
            verify_file(store, entry, error=StoreError, subject=f"store {store}", fix="", digest=False)
    for shard in manifest.shards:
        tensors = shard_tensors(shard.num_passages, shard.num_tokens, manifest.d_model, manifest.codec)
        with saying_what_mends(store, manifest, shard.file.path):
            open_shard(store / shard.file.path, tensors)
    open_store_codec(store, manifest)
    read_tombstones(store, manifest)


def check_no_links(store: Path, manifest: StoreManifest | None) -> None:
    """Raise StoreError where a change of the store might write through a link, or give a link another name."""
    require_no_link_below(store, subject=f"store {store}", error=StoreError)
    if manifest is not None:
        names = (file.path for file in manifest.files())
        require_no_link(store, names, subject=f"store {store}", error=StoreError)


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
    return hashlib.sha256(f"{manifest.corpus_sha256} {change_sha256}".encode()).hexdigest()


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
