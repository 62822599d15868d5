"""Workers on Ray Data: on a Ray that is started for the build on this machine, or on a cluster.

Ray's driver is another process, told by a `RayTask` what to do; how a shard went comes back as a line of JSON.
"""

from __future__ import annotations

import dataclasses
import json
import os
import pickle
import re
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import IO, Any

from glimmer_export.exporter.memory.corpus import Corpus
from glimmer_export.exporter.memory.encode import BuildPlan
from glimmer_export.exporter.memory.runners.job import Finished, ShardJob
from glimmer_export.exporter.memory.work import ShardRecord, Work
from glimmer_export.runtime.codecs import CODECS
from glimmer_export.runtime.contract import (
    BackendError,
    BundleManifest,
    GlimmerError,
    MissingExtraError,
    OptionError,
    StoreError,
    errors,
)
from glimmer_export.runtime.contract.records import record_from_json

__all__ = [
    "AUTO", "RayRunner", "RayTask", "SharedJob", "attempts_directory", "failed", "finished", "is_failure",
    "library_versions", "read_outcome",
]  # fmt: skip

AUTO = "auto"
"""The address of the cluster that this machine is of."""
ERROR_PARTS = ("subject", "expected", "found", "fix")
STOP_SECONDS = 60
"""What Ray is given to stop its processes before its driver is killed, and they with it."""
QUIET = {"RAY_DATA_DISABLE_PROGRESS_BARS": "1"}
ON_LOOPBACK = {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"}
"""Ray's way to say that one machine is all: it then binds every port to 127.0.0.1."""
SHORT = "/tmp"  # noqa: S108 - a directory of random name is made in it
"""Where Ray's sockets lie, whose paths may have 107 bytes: $TMPDIR is often too long for them."""
ADDRESS = r"[^/\s]+:\d{1,5}"
LOG_BYTES = 20_000


@dataclass(frozen=True)
class SharedJob:
    """A ShardJob as another machine sees it: by absolute paths of storage that both have, and what must be there."""

    work: Work
    plan: BuildPlan
    bundle: Path
    manifest: BundleManifest
    corpus: Corpus
    threads: int
    versions: dict[str, str]


@dataclass(frozen=True)
class RayTask:
    """Shards to encode, on which Ray, by how many workers: None as in RayRunner.

    A Ray that is started for the task keeps its files in `directory`.
    """

    job: SharedJob
    missing: tuple[int, ...]
    address: str | None
    actors: int | None
    directory: Path


def attempts_directory(work: Work) -> Path:
    """Where every shard under way has a file, of one byte for each worker that began it."""
    return work.workers / "attempts"


def library_versions() -> dict[str, str]:
    """Versions, in this process, of the libraries that decide a shard's bytes."""
    try:
        from onnxruntime import __version__ as onnxruntime_version
    except ImportError:
        onnxruntime_version = "none"
    return {"onnxruntime": onnxruntime_version, "numpy": version("numpy"), "tokenizers": version("tokenizers")}


def finished(index: int, record: ShardRecord) -> str:
    """The line for a shard that is in place."""
    return json.dumps({"index": index, "record": dataclasses.asdict(record)})


def failed(error: GlimmerError) -> str:
    """The line for a named error."""
    return json.dumps({"error": type(error).__name__, **{part: getattr(error, part) for part in ERROR_PARTS}})


def is_failure(line: str) -> bool:
    """Whether the line tells of an error."""
    return "error" in json.loads(line)


def read_outcome(line: str) -> tuple[int, ShardRecord]:
    """A shard's index and record; raises the error that the line tells of, as it was raised there."""
    data: dict[str, Any] = json.loads(line)
    if "error" in data:
        kind: type[GlimmerError] = getattr(errors, data["error"])
        subject, expected, found, fix = (data[part] for part in ERROR_PARTS)
        raise kind(subject, expected=expected, found=found, fix=fix)
    record = record_from_json(ShardRecord, data["record"], error=StoreError, subject="record", fix="start again")
    return data["index"], record


@dataclass(frozen=True)
class RayRunner:
    """Encodes by `actors` workers, each with a graph of its own and as many CPUs as the job has threads, or one.

    `address` is the host:port of a cluster, or "auto" for the one that this machine is of; None starts a Ray here for
    this build alone: on the loopback interface, with a token of its own, without dashboard and usage statistics.
    Bundle, corpus and output must be at the same paths on every machine. `actors` None: as many as CPUs allow.

    Ray's driver is a process apart: Ray prints to standard output, takes signals over and leaves threads behind.

    Raises MissingExtraError without Ray, OptionError for an address that it does not take.
    """

    address: str | None = None
    actors: int | None = None

    def __post_init__(self) -> None:
        for package in ("ray", "pyarrow", "pandas"):
            if find_spec(package) is None:
                raise MissingExtraError(
                    f"package {package}", expected="it installed for builds on Ray", found="none",
                    fix='install its extra: pip install "glimmer-export[ray]"',
                )
        if self.address not in (None, AUTO) and not re.fullmatch(ADDRESS, self.address):
            raise OptionError(
                "option --ray-address", expected="host:port, or auto", found=self.address,
                fix="start the build on a machine of the cluster",
            )

    def run(self, job: ShardJob, missing: Sequence[int], *, advance: Callable[[int], None]) -> Finished:
        """Encode in any order; a shard whose worker died is given to another.

        Raises OptionError and BackendError for a cluster that cannot be used, OptionError for a codec that was
        registered in this process alone, and what a worker raised. Ray is stopped whatever happens, and its workers
        with it.
        """
        if (codec := job.plan.codec) is not None and not CODECS[codec].is_own:
            raise OptionError(
                f"codec {codec}", expected="one of glimmer-export's own, which every worker has",
                found="one registered in this process", fix="build the store without Ray (runner=None)",
            )
        failure = None
        with (
            _workers_directory(job.work),
            tempfile.TemporaryDirectory(prefix="glimmer-ray-", dir=SHORT, ignore_cleanup_errors=True) as directory,
            tempfile.TemporaryFile() as log,
            self._driver(log) as driver,
        ):
            _send(driver, RayTask(_shared(job), tuple(missing), self.address, self.actors, Path(directory)))
            assert driver.stdout is not None
            for line in map(bytes.decode, driver.stdout):
                if is_failure(line):
                    failure = line  # the driver stops Ray now, and then ends
                    continue
                index, record = read_outcome(line)
                advance(job.plan.shard_passages(index))
                yield index, record
            status = driver.wait()
            if failure is not None:  # whatever Ray's end was like after it
                read_outcome(failure)
            if status < 0:
                raise BackendError(
                    "Ray's driver", expected="a process that ends by itself", found=f"one killed by signal {-status}",
                    fix="see to the machine's memory, and run the command again: it goes on where it stopped",
                )
            if status > 0:
                raise RuntimeError(f"Ray's driver failed:\n{_tail(log)}")

    @contextmanager
    def _driver(self, log: IO[bytes]) -> Iterator[subprocess.Popen[bytes]]:
        """The process of `ray_driver`, in a session of its own: Ctrl-C is for us, who then stop it."""
        environment = {**os.environ, **QUIET}
        if self.address is None:
            # Whoever can speak to Ray can run code as its user: other users of this machine reach its ports too.
            environment |= {**ON_LOOPBACK, "RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}
        driver = subprocess.Popen(
            [sys.executable, "-m", "glimmer_export.exporter.memory.runners.ray_driver"], stdin=subprocess.PIPE,
            stdout=subprocess.PIPE, stderr=log, env=environment, start_new_session=True,
        )  # fmt: skip
        assert driver.stdin is not None
        assert driver.stdout is not None
        try:
            yield driver
        finally:
            with suppress(BrokenPipeError):
                driver.stdin.close()  # what tells it to stop
            try:
                driver.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                driver.kill()
                driver.wait()
            if driver.returncode < 0:  # its servers end with it, and their agents half a minute later
                with suppress(ProcessLookupError):
                    os.killpg(driver.pid, signal.SIGKILL)
            driver.stdout.close()


def _shared(job: ShardJob) -> SharedJob:
    source = job.corpus.source
    return SharedJob(
        work=Work(job.work.directory.absolute()),
        plan=job.plan,
        bundle=job.bundle.directory.absolute(),
        manifest=job.bundle.manifest,
        corpus=replace(job.corpus, source=replace(source, path=tuple(path.absolute() for path in source.paths))),
        threads=job.threads or 1,
        versions=library_versions(),
    )


@contextmanager
def _workers_directory(work: Work) -> Iterator[None]:
    """An empty directory for the workers, removed with what those that died have left in it."""
    shutil.rmtree(work.workers, ignore_errors=True)
    attempts_directory(work).mkdir(parents=True)
    try:
        yield
    finally:
        shutil.rmtree(work.workers, ignore_errors=True)


def _send(driver: subprocess.Popen[bytes], task: RayTask) -> None:
    """Pickled, as Ray's own messages within its cluster are: by this user for this user's processes.

    Nothing that stands in a bundle, a corpus or a store is ever unpickled.
    """
    assert driver.stdin is not None
    with suppress(BrokenPipeError):  # it has ended: its exit code will tell
        driver.stdin.write(pickle.dumps(task))
        driver.stdin.flush()


def _tail(log: IO[bytes]) -> str:
    log.seek(max(0, log.seek(0, os.SEEK_END) - LOG_BYTES))
    return log.read().decode(errors="replace")
