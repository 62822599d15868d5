"""Rows of shards copied into a new shard, whatever tensors the codec has, a few passages at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from glimmer_export.exporter.memory.shard_file import ShardFile
from glimmer_export.runtime.contract import StoreError
from glimmer_export.runtime.contract.shard_layout import shard_tensors
from glimmer_export.runtime.safetensors_file import SafetensorsFile

__all__ = ["Run", "copy_rows", "live_runs", "token_counts"]

PASSAGES_AT_ONCE = 64
OFFSETS = "offsets"


@dataclass(frozen=True)
class Run:
    """Passages `start` to `stop` of the shard `path`, by their rows there."""

    path: Path
    start: int
    stop: int

    @property
    def num_passages(self) -> int:
        """How many passages the run has."""
        return self.stop - self.start


def live_runs(path: Path, num_passages: int, dead: NDArray[np.int64]) -> Iterator[Run]:
    """The runs of a shard between its `dead` rows (n,), which rise."""
    start = 0
    for row in [*dead.tolist(), num_passages]:
        if row > start:
            yield Run(path, start, row)
        start = row + 1


def token_counts(run: Run) -> NDArray[np.int64]:
    """How many tokens each passage of a run has, (passages,) int64."""
    return np.diff(_bounds(run))


def copy_rows(
    path: Path, runs: Sequence[Run], *, d_model: int, codec: str | None, advance: Callable[[int], None]
) -> tuple[int, int]:
    """Write the shard `path` from runs of others, which have the same tensors; returns its passages and tokens.

    `advance` is told how many passages come to be copied.
    """
    bounds = [_bounds(run) for run in runs]
    lengths = np.concatenate([np.diff(offsets) for offsets in bounds])
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    tensors = shard_tensors(len(lengths), int(offsets[-1]), d_model, codec)
    kinds, row = _kinds(d_model, codec), 0
    with ShardFile(path, tensors) as shard:
        shard.write(OFFSETS, 0, offsets)
        for run, source in zip(runs, bounds, strict=True):
            _copy_run(shard, run, source, kinds, row=row, token=int(offsets[row]), advance=advance)
            row += run.num_passages
    return len(lengths), int(offsets[-1])


def _copy_run(
    shard: ShardFile, run: Run, source: NDArray[np.int64], kinds: dict[str, bool], *,
    row: int, token: int, advance: Callable[[int], None],
) -> None:
    """Copy a run, whose tokens lie at `source` (passages + 1,), to `row` and `token` of the new shard."""
    opened = _opened(run)
    for first in range(0, run.num_passages, PASSAGES_AT_ONCE):
        last = min(first + PASSAGES_AT_ONCE, run.num_passages)
        for name, per_token in kinds.items():
            if per_token:
                values = opened.rows(name, int(source[first]), int(source[last]))
                shard.write(name, token + int(source[first] - source[0]), values)
            else:
                shard.write(name, row + first, opened.rows(name, run.start + first, run.start + last))
        advance(last - first)


def _bounds(run: Run) -> NDArray[np.int64]:
    """Where the tokens of a run's passages lie in its shard, (passages + 1,) int64."""
    found: NDArray[np.int64] = _opened(run).rows(OFFSETS, run.start, run.stop + 1)
    return found


def _opened(run: Run) -> SafetensorsFile:
    def refused(reason: str) -> StoreError:
        return StoreError(
            f"shard {run.path}", expected="a whole safetensors file", found=reason,
            fix="see `glimmer-export memory verify`",
        )

    return SafetensorsFile(run.path, refused)


def _kinds(d_model: int, codec: str | None) -> dict[str, bool]:
    """The tensors beside the offsets, and whether each has an entry a token; else it has one a passage."""
    passages, tokens = 1, 3  # told apart by their number, from the offsets too
    tensors = shard_tensors(passages, tokens, d_model, codec)
    return {tensor.name: tensor.shape[0] == tokens for tensor in tensors if tensor.name != OFFSETS}
