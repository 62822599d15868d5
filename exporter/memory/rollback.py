"""Back to an older generation of a store, where the current one is damaged and cannot be made again."""

from __future__ import annotations

import dataclasses
import os
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from glimmer_export.exporter.memory.commit import check_no_links, replace_manifest
from glimmer_export.exporter.memory.generations import next_generation, older_generations
from glimmer_export.exporter.memory.verify import damaged_files
from glimmer_export.exporter.memory.work import work_directory
from glimmer_export.exporter.swap import recover
from glimmer_export.exporter.whole_file import write_errors
from glimmer_export.runtime.contract import OptionError, StoreError, StoreManifest, read_store_manifest
from glimmer_export.runtime.contract.kinds import STORE, require_kind
from glimmer_export.runtime.contract.store_layout import older_manifest_name
from glimmer_export.runtime.contract.store_manifest import manifest_replica
from glimmer_export.runtime.contract.store_mending import made_again

__all__ = ["RollbackSummary", "roll_back"]


@dataclass(frozen=True)
class RollbackSummary:
    """What a rollback made: a `generation` that holds what generation `back_to` held.

    Lost is every change after `back_to`. `damaged_passages` were there before, None where that cannot be told;
    `passages` are now.
    """

    generation: int
    back_to: int
    damaged_passages: int | None
    passages: int
    seconds: float


def roll_back(store: str | Path) -> RollbackSummary:
    """Make the newest older generation that is whole the store again.

    Raises OptionError where the store is whole, StoreError where no older generation is, OutputError where another
    process changes it, or it cannot be written.
    """
    started, store = time.monotonic(), Path(os.path.realpath(store))
    with write_errors(store):
        recover(store)
        require_kind(store, STORE, error=StoreError)
        check_no_links(store, None)
        with work_directory(store) as work:
            work.check_ours()
            try:
                current = _current(store)
                older = _newest_whole(store, current)
                manifest = dataclasses.replace(older, generation=next_generation(store))
                replace_manifest(store, current, manifest)
            finally:
                work.remove()
    before = None if current is None else current.num_passages
    return RollbackSummary(
        manifest.generation, older.generation, before, manifest.num_passages, time.monotonic() - started
    )


def _current(store: Path) -> StoreManifest | None:
    """The damaged generation, None where its manifest is what is damaged."""
    try:
        manifest = read_store_manifest(store)
    except StoreError:
        return None
    if _is_whole(store, manifest):
        raise OptionError(
            "--rollback", expected="a damaged store", found=f"{store}, which is whole", fix="leave it as it is"
        )
    return manifest


def _newest_whole(store: Path, current: StoreManifest | None) -> StoreManifest:
    for manifest in _older(store, current):
        if _is_whole(store, manifest):
            return manifest
    raise StoreError(
        f"store {store}", expected="an older generation whose files are whole", found="none",
        fix=_instead(store, current) or "build the store again with `glimmer-export memory build`",
    )


def _instead(store: Path, current: StoreManifest | None) -> str | None:
    """What makes the current generation's damaged files again; None where nothing does."""
    if current is None:
        again = manifest_replica(store) is not None
        return f"restore it with `glimmer-export memory repair {store}`" if again else None
    fixes = [made_again(store, current, damage.path) for damage in damaged_files(store, current)]
    known = [fix for fix in fixes if fix is not None]
    return " and ".join(dict.fromkeys(known)) if len(known) == len(fixes) else None


def _older(store: Path, current: StoreManifest | None) -> Iterator[StoreManifest]:
    """Older generations, newest first."""
    for generation in reversed(older_generations(store, -1 if current is None else current.generation)):
        with suppress(StoreError):
            yield read_store_manifest(store, older_manifest_name(generation))


def _is_whole(store: Path, manifest: StoreManifest) -> bool:
    return next(damaged_files(store, manifest), None) is None
