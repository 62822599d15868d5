"""Who encodes the shards of a build: this process, or workers on Ray."""

from glimmer_export.exporter.memory.runners.choice import choose_runner
from glimmer_export.exporter.memory.runners.job import (
    KeptRunner,
    LocalRunner,
    Runner,
    ShardJob,
    memory_encoder,
    open_planned,
)
from glimmer_export.exporter.memory.runners.ray_runner import RayRunner

__all__ = [
    "KeptRunner", "LocalRunner", "RayRunner", "Runner", "ShardJob", "choose_runner", "memory_encoder", "open_planned",
]  # fmt: skip
