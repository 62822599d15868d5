"""The directory of a build under way: who may write in it, which build it belongs to, and what of it is done.

    OUTPUT.partial/lock            locked by the process that builds; a killed one's lock is gone with it
    OUTPUT.partial/plan.json       the Plan
    OUTPUT.partial/records/        one ShardRecord a shard, written once the shard is in place
    OUTPUT.partial/workers/        what processes of a runner are writing; a directory for each
    OUTPUT.partial/store/          the store so far; becomes OUTPUT when whole. Of an append: the new shards
    OUTPUT.partial/staged/         other files of a change of OUTPUT; thrown away if the change did not get through

Without `store` there is no work in it, only what a build that ended has left.
"""

from __future__ import annotations

import fcntl
import os
import re
import shutil
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, ClassVar, Protocol

from glimmer_export.exporter.files.links import Inputs, check_apart, require_no_link_below
from glimmer_export.exporter.files.publish import check_target, swap_directory
from glimmer_export.exporter.files.whole_file import UNFINISHED, replace_file
from glimmer_export.exporter.memory.codec_fit import SampleErrors
from glimmer_export.runtime.bundle import verify_file
from glimmer_export.runtime.contract import BusyError, OutputError, ShardEntry, StoreError, record_to_json, shard_name
from glimmer_export.runtime.contract.kinds import STORE, kind_of
from glimmer_export.runtime.contract.records import read_json, record_from_json

__all__ = ["Plan", "ShardRecord", "Work", "check_new", "check_output", "unfinished_passages", "work_directory"]

PLAN, LOCK, RECORDS, WORKERS, STAGED = "plan.json", "lock", "records", "workers", "staged"
OURS = (PLAN, LOCK, RECORDS, WORKERS, STAGED)
"""What may lie in the directory beside a store."""
EARLIER = re.compile(r"\..+\.tmp")
"""How earlier versions called a file that was not finished."""
RESTART = "pass --restart to throw it away and begin anew"


@dataclass(frozen=True)
class ShardRecord:
    """A finished shard, how many of its passages were cut to the passage length, and its part of the codec's error."""

    shard: ShardEntry
    num_truncated: int
    errors: SampleErrors = field(default_factory=SampleErrors)


class Plan(Protocol):
    """What a build will make: a frozen dataclass of all that decides the bytes, written as JSON."""

    __dataclass_fields__: ClassVar[dict[str, Any]]

    @property
    def num_shards(self) -> int:
        """How many shards there will be."""
        ...

    def shard_passages(self, index: int) -> int:
        """How many passages a shard will hold."""
        ...


@dataclass(frozen=True)
class Work:
    """A locked work directory."""

    directory: Path

    @property
    def store(self) -> Path:
        """The store under construction."""
        return self.directory / "store"

    @property
    def workers(self) -> Path:
        """Where processes of a runner write, each in a directory of its own, before a shard is moved to the store."""
        return self.directory / WORKERS

    def begin(self, plan: Plan, *, restart: bool) -> None:
        """Bind the directory to a plan; raises OutputError if it holds the work of another."""
        if restart:
            self.clear(kept=(LOCK, STAGED))  # if a change is under way, its own files are to go there
        self.check_ours()
        if self._is_begun:
            self._check_plan(plan)
        else:
            replace_file(self.directory / PLAN, record_to_json(plan).encode())
        (self.store / shard_name(0)).parent.mkdir(parents=True, exist_ok=True)
        self._records.mkdir(exist_ok=True)

    def check_ours(self) -> None:
        """Raise OutputError if something else lies in the directory, or a link: nothing is written through one.

        What killed commands were writing is removed.
        """
        strange = sorted(path.name for path in self.directory.iterdir() if not _is_ours(path.name))
        if strange and not self._is_begun:
            raise OutputError(
                f"directory {self.directory}", expected="the work of an earlier build, or nothing",
                found=f"{strange[0]}", fix=f"see what it is; {RESTART}",
            )
        self._remove_unfinished()
        require_no_link_below(self.directory, subject=f"directory {self.directory}")

    def done(self, plan: Plan) -> dict[int, ShardRecord]:
        """The shards that are in place and, by their digest, undamaged; every other is to be built."""
        records = {}
        for index in range(plan.num_shards):
            with suppress(StoreError):
                data = read_json(self._record(index), error=StoreError, fix="")
                record = record_from_json(ShardRecord, data, error=StoreError, subject="record", fix="")
                verify_file(self.store, record.shard.file, error=StoreError, subject="shard", fix="")
                if record.shard.num_passages == plan.shard_passages(index):
                    records[index] = record
        return records

    def forget_shards(self) -> None:
        """Every shard is to be built anew."""
        shutil.rmtree(self._records)
        self._records.mkdir()

    def record(self, index: int, record: ShardRecord) -> None:
        """Note that a shard is in place."""
        replace_file(self._record(index), record_to_json(record).encode())

    def publish(self, output: Path) -> None:
        """Make the finished store `output`, in place of what is there, and remove the rest."""
        swap_directory(self.store, output)
        self.remove()

    def remove(self) -> None:
        """Remove the directory, its lock last: whoever takes that may begin at once. Unfinished work is left there."""
        if self.store.exists():
            return
        self.clear()
        with suppress(OSError):  # not empty: another process has begun here since
            (self.directory / LOCK).unlink()
            self.directory.rmdir()

    @contextmanager
    def staging(self) -> Iterator[Path]:
        """Yield an empty directory on the store's file system; it is removed at the end."""
        staged = self.directory / STAGED
        shutil.rmtree(staged, ignore_errors=True)
        staged.mkdir()
        try:
            yield staged
        finally:
            shutil.rmtree(staged, ignore_errors=True)

    def _remove_unfinished(self) -> None:
        """The lock is held, so that nobody is at them, whether the file system knows of locks or not."""
        for folder, folders, files in os.walk(self.directory):
            if Path(folder) == self.directory:
                # A worker may be on another machine, cut off; of other folders nothing is known.
                folders[:] = {"store", RECORDS, STAGED} & {*folders}
            for name in files:
                if UNFINISHED.fullmatch(name) or EARLIER.fullmatch(name):
                    Path(folder, name).unlink(missing_ok=True)

    @property
    def _is_begun(self) -> bool:
        return self.store.exists() and (self.directory / PLAN).exists()

    @property
    def _records(self) -> Path:
        return self.directory / RECORDS

    def _record(self, index: int) -> Path:
        return self._records / f"{index:05d}.json"

    def _check_plan(self, plan: Plan) -> None:
        path = self.directory / PLAN
        data = read_json(path, error=OutputError, fix=RESTART)
        earlier = record_from_json(type(plan), data, error=OutputError, subject=str(path), fix=RESTART)
        if name := next((f.name for f in fields(plan) if getattr(plan, f.name) != getattr(earlier, f.name)), None):
            raise OutputError(
                f"unfinished build {self.directory}", expected=f"{name} {getattr(plan, name)}, as asked for",
                found=str(getattr(earlier, name)), fix=f"give it the settings that it began with, or {RESTART}",
            )

    def clear(self, kept: Collection[str] = (LOCK,)) -> None:
        """Remove all but what is `kept`; the plan goes last, so that what is left at any moment can be told apart."""
        for path in sorted(self.directory.iterdir(), key=lambda path: path.name == PLAN):
            if path.name in kept:
                continue
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            else:
                path.unlink()


def _is_ours(name: str) -> bool:
    return name in OURS or name == f".{PLAN}.tmp" or UNFINISHED.fullmatch(name) is not None


def unfinished_passages(output: Path) -> int | None:
    """How many passages the unfinished build or append of an output has; None if there is none, or it does not say."""
    directory = _directory(Path(os.path.realpath(output)))
    if not (directory / "store").exists():
        return None
    with suppress(OutputError):
        found = read_json(directory / PLAN, error=OutputError, fix=RESTART).get("num_passages")
        return found if type(found) is int else None
    return None


def check_output(output: Path, inputs: Inputs) -> None:
    """Raise OutputError if a store, or the directory in which it is made or changed, is not apart from `inputs`."""
    check_apart(output, inputs)
    if (real := Path(os.path.realpath(output))).name:  # the root has none beside it
        check_apart(_directory(real), inputs)


def check_new(output: Path, *, overwrite: bool) -> None:
    """Raise OutputError, before anything is read, where no store can be made or replaced there.

    A store that is there may be the one that is asked for: whether it is, is for the command to find out.
    """
    if overwrite or kind_of(output) != STORE:
        check_target(output, overwrite=overwrite)


def _directory(output: Path) -> Path:
    return output.with_name(f"{output.name}.partial")


@contextmanager
def work_directory(output: Path) -> Iterator[Work]:
    """Make or reopen the work directory of an output, and hold its lock.

    Raises BusyError if another process is building the same output.
    """
    directory = _directory(output)
    lock = None
    while lock is None:
        lock = _lock(directory)
    try:
        yield Work(directory)
    finally:
        os.close(lock)


def _lock(directory: Path) -> int | None:
    """The locked file's descriptor; None if its owner removed the directory just then."""
    if directory.is_symlink():
        raise OutputError(
            f"directory {directory}", expected="a directory of its own, for the work", found="a link",
            fix="remove it, or name another output",
        )
    directory.mkdir(parents=True, exist_ok=True)
    try:
        lock = os.open(directory / LOCK, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o666)
    except FileNotFoundError:
        return None
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if os.path.samestat(os.fstat(lock), (directory / LOCK).lstat()):
            return lock
    except BlockingIOError:
        os.close(lock)
        raise BusyError(
            f"directory {directory}", expected="no other build of this store under way", found="one",
            fix="wait until it ends, or name another output",
        ) from None
    except FileNotFoundError:
        pass
    os.close(lock)
    return None
