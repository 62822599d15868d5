"""What the process that starts a build tells Ray's driver, and the driver the workers."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

from glimmer_export.exporter.memory.corpus import Corpus
from glimmer_export.exporter.memory.plan import BuildPlan
from glimmer_export.exporter.memory.work import Work
from glimmer_export.runtime.contract import BundleManifest

__all__ = ["AUTO", "RayTask", "SharedJob", "attempts_directory", "library_versions"]

AUTO = "auto"
"""The address of the cluster that this machine is of."""


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
