"""Ray's driver and its workers. Run as a module: a pickled RayTask on stdin, a line on stdout for each shard.

It stops Ray and ends when the work is done, at the first error of a worker, or when its stdin is closed.
"""

from __future__ import annotations

import os
import pickle
import platform
import shutil
import signal
import socket
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from glimmer_export.exporter.files.whole_file import move, write_errors
from glimmer_export.exporter.memory.runners.job import ShardEncoder
from glimmer_export.exporter.memory.runners.ray_runner import (
    AUTO,
    RayTask,
    SharedJob,
    attempts_directory,
    failed,
    finished,
    is_failure,
    library_versions,
)
from glimmer_export.exporter.memory.work import ShardRecord
from glimmer_export.runtime.bundle import Bundle
from glimmer_export.runtime.contract import (
    BackendError,
    BundleError,
    GlimmerError,
    OptionError,
    OutputError,
    shard_name,
)
from glimmer_export.runtime.contract.library_errors import LibraryErrors, first_line

__all__ = ["ShardActor", "main"]

MAX_ATTEMPTS = 4
"""Workers that may die over one shard before the shard is held to be the cause. Ray itself would go on for ever."""
ANSWER_SECONDS = 10
OBJECT_STORE_BYTES = 80 << 20
"""Near the least that Ray takes: indices and records are all that passes through it."""


class ShardActor:
    """What Ray Data calls with shard indices; Ray starts it anew where its process died, and gives it the shard again.

    A shard is written in a directory of the process's own and moved into the store whole, so that two processes may
    have the same one: the network may have cut off the first, which then goes on. Both write the same bytes.
    """

    def __init__(self, job: SharedJob) -> None:
        self._job = job
        self._encoder: ShardEncoder | None = None
        self._directory = job.work.workers / f"{platform.node()}-{os.getpid()}"

    def __call__(self, batch: Mapping[str, Any]) -> dict[str, list[str]]:
        """{"index": shard indices} -> {"outcome": a line each}."""
        return {"outcome": [self._outcome(int(index)) for index in batch["index"]]}

    def _outcome(self, index: int) -> str:
        # An exception would come back in Ray's words and only after its retries.
        try:
            with write_errors(self._job.work.directory):
                return finished(index, self._build(index))
        except GlimmerError as error:
            return failed(error)

    def _build(self, index: int) -> ShardRecord:
        job = self._job
        if self._encoder is None:
            self._encoder = self._open()
        attempts = attempts_directory(job.work) / f"{index:05d}"
        _count_attempt(attempts, index)
        shard = self._directory / shard_name(index)
        shard.parent.mkdir(parents=True, exist_ok=True)
        record = self._encoder.encode(self._directory, index, job.corpus.part(index), advance=lambda _: None)
        move(shard, job.work.store / shard_name(index))
        attempts.unlink(missing_ok=True)
        return record

    def _open(self) -> ShardEncoder:
        job, here = self._job, platform.node()
        if not attempts_directory(job.work).is_dir():
            raise OutputError(
                f"directory {job.work.directory}", expected=f"storage that machine {here} shares", found="none there",
                fix="write the store to a path that every machine of the cluster has",
            )
        if (versions := library_versions()) != job.versions:
            raise BackendError(
                f"machine {here}", expected=f"{_shown(job.versions)}, as where the build was started",
                found=_shown(versions), fix="install the same constraints.txt on every machine",
            )
        bundle = Bundle.open(job.bundle)
        if bundle.manifest != job.manifest:
            raise BundleError(
                f"{bundle}, on machine {here}", expected="the bundle with which the build was started",
                found="one with another manifest",
                fix="keep it on storage that every machine of the cluster has, and start again",
            )
        return ShardEncoder(job.work.store, job.plan, bundle, threads=job.threads)


def _count_attempt(path: Path, index: int) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW, 0o666)
    with os.fdopen(descriptor, "ab") as stream:
        stream.write(b".")
        attempt = stream.tell()
    if attempt > MAX_ATTEMPTS:
        raise BackendError(
            f"shard {index}", expected="a worker to finish it", found=f"{MAX_ATTEMPTS} workers that died over it",
            fix="see to the machine's memory: fewer --ray-actors, or a smaller --batch-tokens",
        )


def _shown(versions: Mapping[str, str]) -> str:
    return ", ".join(f"{name} {number}" for name, number in versions.items())


def main() -> None:
    """Run the task on stdin."""
    results = os.fdopen(os.dup(sys.stdout.fileno()), "w", buffering=1, encoding="utf-8")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # Ray reports on stdout
    _stop_on_terminate()
    task: RayTask = pickle.load(sys.stdin.buffer)  # noqa: S301 - from the process that started this one
    threading.Thread(target=_terminate_at_end_of_input, daemon=True).start()
    try:
        with _connected(task) as ray:
            for line in _outcomes(ray, task):
                results.write(line + "\n")
                if is_failure(line):
                    break
    except GlimmerError as error:
        results.write(failed(error) + "\n")


def _outcomes(ray: Any, task: RayTask) -> Iterator[str]:
    """Shard indices, a block each, through a pool of actors; no task of Ray's own that would need a CPU beside them."""
    threads, actors = task.job.threads, task.actors
    if actors is None:
        actors = max(1, int(ray.cluster_resources().get("CPU", 0) // threads))
    shards = ray.data.from_items([{"index": index} for index in task.missing], override_num_blocks=len(task.missing))
    outcomes = shards.map_batches(
        ShardActor,
        fn_constructor_args=(task.job,),
        batch_size=1,
        num_cpus=threads,
        # A queue at each worker would leave some idle at the end, and lose more with one that dies.
        compute=ray.data.ActorPoolStrategy(size=min(actors, len(task.missing)), max_tasks_in_flight_per_actor=1),
    )
    for block in outcomes.iter_batches(batch_size=None, prefetch_batches=0, batch_format="numpy"):
        yield from map(str, block["outcome"])


@contextmanager
def _connected(task: RayTask) -> Iterator[Any]:
    """Ray, connected to the task's cluster or started here, and stopped in the end."""
    import ray
    import ray.data

    try:
        if task.address is None:
            workers = task.actors or max(1, len(os.sched_getaffinity(0)) // task.job.threads)
            ray.init(
                address="local", num_cpus=workers * task.job.threads, include_dashboard=False,
                object_store_memory=OBJECT_STORE_BYTES, log_to_driver=False, _temp_dir=str(task.directory),
            )
        else:
            _connect(ray, task.address)
            _check_cpus(ray, task.job.threads)
        _stop_on_terminate()
        yield ray
    finally:
        ray.shutdown()
        shutil.rmtree(task.directory, ignore_errors=True)  # here too: the process that made it may be gone


def _connect(ray: Any, address: str) -> None:
    def refused(error: BaseException) -> BackendError:
        return BackendError(
            f"Ray at {address}", expected="a cluster that answers, of this version of Ray", found=first_line(error),
            fix="see `ray status` there; `ray start --head` starts one, and its token must be here too",
        )

    with LibraryErrors(_is_rays, refused):
        if address != AUTO:
            host, _, port = address.rpartition(":")
            socket.create_connection((host, int(port)), timeout=ANSWER_SECONDS).close()  # Ray itself tries for minutes
        ray.init(address=address, log_to_driver=False)


def _is_rays(kind: type[BaseException]) -> bool:
    """Ray connects by its own code, by gRPC's and by the system: a refusal is of theirs, or one of these."""
    theirs = kind.__module__.partition(".")[0] in ("grpc", "ray")
    return theirs or issubclass(kind, (AssertionError, OSError, RuntimeError, ValueError))


def _check_cpus(ray: Any, threads: int) -> None:
    """A worker that fits on no machine would be waited for without end."""
    most = max((node["Resources"].get("CPU", 0) for node in ray.nodes() if node["Alive"]), default=0)
    if most < threads:
        raise OptionError(
            "option --threads", expected=f"at most the {most:g} CPUs of the cluster's largest machine",
            found=str(threads), fix="lower it, or start a machine that has them",
        )


def _stop_on_terminate() -> None:
    """Let SIGTERM raise, so that Ray is stopped on the way out; set again where Ray has put a handler of its own."""

    def stop(*_: object) -> None:
        sys.exit(1)

    signal.signal(signal.SIGTERM, stop)


def _terminate_at_end_of_input() -> None:
    """The process that started this one has closed the pipe, or is gone."""
    while os.read(sys.stdin.fileno(), 1):  # not through the buffer, whose lock the interpreter's end would wait for
        pass
    os.kill(os.getpid(), signal.SIGTERM)


if __name__ == "__main__":
    # By its own name: workers import it as that, and what Ray pickles of `__main__` would be a copy of it.
    from glimmer_export.exporter.memory.runners.ray_driver import main

    main()
