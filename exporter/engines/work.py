"""The folder engines/ of a bundle while one command builds in it.

    engines/<fingerprint>/                the engines that are used, with their record and, of TensorRT, a timing cache
    engines/.partial/<fingerprint>/       those of a build under way, with a record of the ones that are finished
"""

from __future__ import annotations

import fcntl
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from glimmer_export.exporter.links import require_no_link_below
from glimmer_export.exporter.swap import recover, swap_directory
from glimmer_export.exporter.whole_file import remove_unfinished, replace_file
from glimmer_export.runtime.contract import (
    ENGINE_RECORD,
    ENGINES,
    EngineEntry,
    EngineRecord,
    OutputError,
    record_to_json,
)

__all__ = ["Work", "work_on_engines"]

TIMINGS = "timing.cache"


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
            _link(self.published / entry.file.path, self.unfinished / entry.file.path)
        self.record(record)
        swap_directory(self.unfinished, self.published)
        with suppress(OSError):  # another build's work
            self.unfinished.parent.rmdir()

    def restate(self, record: EngineRecord) -> None:
        """Write the record of engines that all stay."""
        _write(self.published, record)


@contextmanager
def work_on_engines(bundle: Path, fingerprint: str) -> Iterator[Work]:
    """Hold the folder's lock; raises OutputError where another process builds engines for this bundle, or for a link.

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


def _link(source: Path, target: Path) -> None:
    target.unlink(missing_ok=True)
    try:
        os.link(source, target)
    except OSError:  # a file system without links
        shutil.copyfile(source, target)
