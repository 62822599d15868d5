"""What a change is about to add to a store, and what only older generations will name then: written before it begins.

    STORE/change.json         of a change under way: a Journal
    STORE/dropped/00003.json  of the change that made generation 3, until all that it dropped is gone

A change that was killed is undone by the next one, which finds its journal. What was dropped is removed once nobody
holds a generation that names it; which do is told by numbers, and no older manifest is read.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from glimmer_export.exporter.files.whole_file import move, replace_file
from glimmer_export.runtime.contract import StoreError, record_to_json
from glimmer_export.runtime.contract.files import is_there
from glimmer_export.runtime.contract.records import read_json, record_from_json
from glimmer_export.runtime.contract.store_layout import NAMED_PATHS, born_in
from glimmer_export.runtime.contract.store_replica import REPLICAS, copy_name
from glimmer_export.runtime.contract.vector_layout import is_vectors_path

__all__ = [
    "DROPPED", "JOURNAL", "Journal", "begin_change", "dropped_lists", "end_change", "free_dropped", "held_bytes",
    "recall",
]  # fmt: skip

JOURNAL, DROPPED = "change.json", "dropped"
LIST = re.compile(r"(\d{5,})\.json")
NAMES = re.compile(rf"{NAMED_PATHS}|{REPLICAS}/[\w-]+\.\w+")
"""Of files that a journal may name; nothing else is removed."""
FIX = "see `glimmer-export memory verify`"


@dataclass(frozen=True)
class Journal:
    """Paths below a store: those `added` by the generation, and those `dropped`, which it names no more."""

    generation: int
    added: tuple[str, ...]
    dropped: tuple[str, ...]


def begin_change(store: Path, journal: Journal) -> None:
    """Write the journal of a change; what it adds may be put in place then."""
    replace_file(store / JOURNAL, record_to_json(journal).encode())


def end_change(store: Path, generation: int) -> int:
    """Put the journal that lies there behind the store's generation, and undo its change if that never came to be.

    Returns the bytes that were freed.
    """
    journal = _read(store / JOURNAL)
    if journal is None:
        return 0
    if journal.generation > generation:
        freed = sum(_remove(store, path) for path in journal.added)
        (store / JOURNAL).unlink()
        return freed
    if journal.generation == generation and journal.dropped:
        (store / DROPPED).mkdir(exist_ok=True)
        move(store / JOURNAL, store / DROPPED / f"{generation:05d}.json")
    else:
        (store / JOURNAL).unlink()
    return 0


def dropped_lists(store: Path) -> Iterator[tuple[Path, Journal]]:
    """The journals of changes whose dropped files are not all gone, with their paths; damaged ones are left out."""
    with suppress(FileNotFoundError):
        for path in sorted((store / DROPPED).iterdir()):
            if LIST.fullmatch(path.name) and (journal := _read(path)) is not None:
                yield path, journal


def free_dropped(store: Path, older: Collection[int]) -> int:
    """Remove what was dropped and is named by none of the `older` generations that stay; returns the bytes freed."""
    freed = 0
    for path, journal in dropped_lists(store):
        kept = [name for name in journal.dropped if _is_named(name, journal.generation, older)]
        freed += sum(_remove(store, name) for name in journal.dropped if name not in kept)
        if not kept:
            path.unlink()
    with suppress(OSError):  # absent, or not empty
        (store / DROPPED).rmdir()
    return freed


def recall(store: Path, names: Collection[str]) -> None:
    """Take these paths out of what was dropped: an older generation that names them is to be the store's again."""
    for path, journal in dropped_lists(store):
        kept = tuple(name for name in journal.dropped if name not in names)
        if kept != journal.dropped:
            replace_file(path, record_to_json(replace(journal, dropped=kept)).encode())


def held_bytes(store: Path) -> int:
    """Bytes of the files that older generations alone name."""
    total = 0
    for _, journal in dropped_lists(store):
        for name in journal.dropped:
            with suppress(OSError):
                total += (store / name).lstat().st_size
    return total


def _is_named(name: str, dropped_by: int, older: Iterable[int]) -> bool:
    return any(born_in(name) <= generation < dropped_by for generation in older)


def _remove(store: Path, name: str) -> int:
    """Remove a file of ours, with its copy and the folder that it leaves empty; returns the bytes freed."""
    if not (NAMES.fullmatch(name) or is_vectors_path(name)):
        return 0
    freed = 0
    for path in (store / name, store / copy_name(name)):
        with suppress(FileNotFoundError, NotADirectoryError):
            freed += path.lstat().st_size
            path.unlink()
    if "/" in name:
        with suppress(OSError):  # not empty
            (store / name).parent.rmdir()
    return freed


def _read(path: Path) -> Journal | None:
    """A journal; None if there is none, or one that was damaged: what it names is `memory compact`'s to find."""
    if not is_there(path) or path.is_symlink():
        return None
    try:
        data = read_json(path, error=StoreError, fix=FIX)
        return record_from_json(Journal, data, error=StoreError, subject=str(path), fix=FIX)
    except StoreError:
        return None
