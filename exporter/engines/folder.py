"""The folder engines/ of a bundle: its engines, which of them can be used as they are, and a build's work in it.

    engines/<fingerprint>/                the engines that are used, with their record and, of TensorRT, a timing cache
    engines/.partial/<fingerprint>/       those of a build under way, with a record of the ones that are finished
"""

from __future__ import annotations

import fcntl
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path

from glimmer_export.exporter.files.links import link_or_copy, require_no_link_below
from glimmer_export.exporter.files.publish import recover, swap_directory
from glimmer_export.exporter.files.whole_file import remove_unfinished, replace_file
from glimmer_export.runtime.bundle import verify_file
from glimmer_export.runtime.contract import (
    ENGINE_RECORD,
    ENGINES,
    BundleError,
    BundleManifest,
    EngineEntry,
    EngineKey,
    EngineRecord,
    OutputError,
    ShapeRange,
    graph_digest,
    read_engine_record,
    record_to_json,
)

__all__ = ["Wanted", "Work", "bundle_engines", "other_versions", "stale", "usable_engines", "work_on_engines"]

Wanted = Mapping[str, tuple[str, tuple[dict[str, ShapeRange], ...]]]
"""By graph: its digest and its optimization profiles."""
TIMINGS = "timing.cache"


def bundle_engines(bundle: Path) -> dict[str, EngineRecord | BundleError]:
    """By directory below engines/, the record of the engines there, or what is wrong with it."""
    found: dict[str, EngineRecord | BundleError] = {}
    folder = bundle / ENGINES
    for directory in sorted(folder.iterdir()) if folder.is_dir() else ():
        if directory.is_dir() and not directory.name.startswith("."):
            try:
                found[directory.name] = read_engine_record(directory)
            except BundleError as error:
                found[directory.name] = error
    return found


def stale(record: EngineRecord, manifest: BundleManifest) -> list[str]:
    """The graphs of a bundle that a record has no engine for, or one of another graph."""
    return [
        name for name, graph in manifest.graphs.items()
        if name not in record.engines or record.engines[name].graph_sha256 != graph_digest(graph)
    ]


def other_versions(bundle: Path, key: EngineKey) -> list[str]:
    """Directories of engines for the same device by another version of the library, which serve that version alone."""
    return [
        name for name, record in bundle_engines(bundle).items()
        if isinstance(record, EngineRecord) and record.key != key and replace(record.key, version=key.version) == key
    ]


def usable_engines(directory: Path, wanted: Wanted) -> tuple[dict[str, EngineEntry], dict[str, str]]:
    """The undamaged engines of a directory that are of the wanted graphs and profiles, and why the others are not."""
    if not directory.exists():
        return {}, {}
    try:
        record = read_engine_record(directory)
    except BundleError as error:
        return {}, dict.fromkeys(wanted, str(error))
    usable: dict[str, EngineEntry] = {}
    others: dict[str, str] = {}
    for name, (digest, profiles) in wanted.items():
        entry = record.engines.get(name)
        if entry is None:
            continue
        if entry.graph_sha256 != digest:
            others[name] = "its graph has changed"
        elif entry.profiles != profiles:
            others[name] = f"its optimization profiles were others (built for {record.target})"
        else:
            try:
                verify_file(directory, entry.file, error=BundleError, subject="engine", fix="")
                usable[name] = entry
            except BundleError as error:
                others[name] = f"it is damaged: expected {error.expected}, found {error.found}"
    return usable, others


@dataclass(frozen=True)
class Work:
    """A build's two directories: the one that it will replace, and the one that it works in until then."""

    published: Path
    unfinished: Path

    @property
    def timings(self) -> Path:
        """The timing cache to read and to write."""
        return self.unfinished / TIMINGS

    def begin(self, finished: Mapping[str, EngineEntry]) -> None:
        """Keep of an earlier build what it finished: with no such engine, nothing."""
        if not finished:
            shutil.rmtree(self.unfinished, ignore_errors=True)
        self.unfinished.mkdir(parents=True, exist_ok=True)
        if not self.timings.exists() and (self.published / TIMINGS).is_file():
            shutil.copyfile(self.published / TIMINGS, self.timings)

    def record(self, record: EngineRecord) -> None:
        """Note which engines are finished."""
        _write(self.unfinished, record)

    def publish(self, record: EngineRecord, taken_over: Mapping[str, EngineEntry]) -> None:
        """Put the record's engines in place; those that stay as they were are taken over."""
        for entry in taken_over.values():
            (self.unfinished / entry.file.path).unlink(missing_ok=True)
            link_or_copy(self.published / entry.file.path, self.unfinished / entry.file.path)
        self.record(record)
        swap_directory(self.unfinished, self.published)
        with suppress(OSError):  # another build's work
            self.unfinished.parent.rmdir()

    def restate(self, record: EngineRecord) -> None:
        """Write the record of engines that all stay."""
        _write(self.published, record)


@contextmanager
def work_on_engines(bundle: Path, fingerprint: str) -> Iterator[Work]:
    """Hold the folder's lock; raises OutputError if another process builds engines for this bundle, or for a link.

    What killed builds were writing is removed.
    """
    folder = bundle / ENGINES
    for name in (fingerprint, f".partial/{fingerprint}"):
        require_no_link_below(bundle, f"{ENGINES}/{name}", subject=f"bundle {bundle}")
    folder.mkdir(exist_ok=True)
    lock = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise OutputError(
                f"bundle {bundle}", expected="no other build of its engines under way", found="one",
                fix="wait until it ends",
            ) from None
        recover(folder / fingerprint)
        work = Work(folder / fingerprint, folder / ".partial" / fingerprint)
        for directory in (work.published, work.unfinished):
            if directory.is_dir():
                remove_unfinished(directory)
        yield work
    finally:
        os.close(lock)


def _write(directory: Path, record: EngineRecord) -> None:
    replace_file(directory / ENGINE_RECORD, record_to_json(record).encode())
