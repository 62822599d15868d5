"""A worker on Ray: loads the memory encoder once, then encodes the shards that it is given."""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from glimmer_export.exporter.durable import move
from glimmer_export.exporter.memory.runners.job import ShardEncoder
from glimmer_export.exporter.memory.runners.outcome import failed, finished
from glimmer_export.exporter.memory.runners.ray_task import SharedJob, attempts_directory, library_versions
from glimmer_export.exporter.memory.work import ShardRecord
from glimmer_export.exporter.whole_file import write_errors
from glimmer_export.runtime.bundle import Bundle
from glimmer_export.runtime.contract import BackendError, BundleError, GlimmerError, OutputError, shard_name

__all__ = ["ShardActor"]

MAX_ATTEMPTS = 4
"""Workers that may die over one shard before the shard is held to be the cause. Ray itself would go on for ever."""


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
                found="another", fix="keep it on storage that every machine of the cluster has, and start again",
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
