"""The generation of a store that is served now, as a store of its own: no link in it, no earlier generation."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from glimmer_export.runtime.contract import MANIFEST, StoreError, read_store_manifest, store_files
from glimmer_export.runtime.contract.dense_layout import DENSE, read_dense_manifest
from glimmer_export.runtime.contract.store_replica import copied_files, copy_name, replica_name
from glimmer_export.runtime.store import MemoryStore

__all__ = ["copy_store"]


def copy_store(store: MemoryStore, target: Path) -> None:
    """Copy an open store's files to the new directory `target`, its vectors too if it has any.

    Raises StoreError if another generation has come in its place meanwhile, OSError as for a full disk. What was
    copied is to be verified by opening it.
    """
    source = store.directory
    for name in (*_names(store), MANIFEST):
        (target / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source / name, target / name)
    if read_store_manifest(target) != store.manifest:
        raise StoreError(
            f"store {source}", expected="the generation that was opened", found="a change that came in its place",
            fix="run the command again",
        )


def _names(store: MemoryStore) -> Iterator[str]:
    """Paths below the store, of everything but its manifest."""
    manifest = store.manifest
    yield from dict.fromkeys(entry.path for entry in store_files(store.directory, manifest))
    replicas = [replica_name(manifest.generation), *(copy_name(file.path) for file in copied_files(manifest))]
    yield from (name for name in replicas if (store.directory / name).is_file())
    with suppress(StoreError):  # there are none of an earlier version
        if manifest.vectors is not None:
            return
        dense = read_dense_manifest(store.directory, manifest)
        yield from (f"{DENSE}/{name}" for name in (*(entry.path for entry in dense.files()), MANIFEST))
