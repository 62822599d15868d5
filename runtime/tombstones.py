"""The numbers of a store's deleted passages."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from glimmer_export.runtime.array_files import fault_of_rising, read_arrays
from glimmer_export.runtime.contract import StoreError, StoreManifest, read_limited
from glimmer_export.runtime.contract.store_mending import mending

__all__ = ["TOMBSTONES", "live_end", "read_tombstones"]

TOMBSTONES = "numbers"
"""The name of the file's one tensor."""
HEADER_BYTES = 1 << 12
"""More than the header of one tensor takes."""


def read_tombstones(directory: Path, manifest: StoreManifest) -> NDArray[np.int64]:
    """Numbers (num_tombstones,) int64, rising; raises StoreError where the file holds anything else."""
    if manifest.tombstones is None:
        return np.zeros(0, np.int64)
    path = directory / manifest.tombstones.path
    fix = mending(directory, manifest, manifest.tombstones.path)

    def refused(reason: str) -> StoreError:
        return StoreError(str(path), expected="a safetensors file", found=reason, fix=fix)

    limit = manifest.num_tombstones * np.dtype(np.int64).itemsize + HEADER_BYTES
    content = read_limited(path, limit_bytes=limit, error=StoreError, subject=str(path), fix=fix)
    numbers = read_arrays(content, refused).get(TOMBSTONES)
    if numbers is None:
        fault: str | None = f"no array {TOMBSTONES}"
    elif not numbers.size or numbers.dtype != np.int64 or numbers.shape != (manifest.num_tombstones,):
        fault = f"{numbers.dtype} {list(numbers.shape)}"
    else:
        fault = fault_of_rising(numbers, least=0, most=manifest.num_numbers - 1)
    if numbers is None or fault is not None:
        raise StoreError(
            str(path), expected=f"{manifest.num_tombstones} numbers that rise, below {manifest.num_numbers}",
            found=str(fault), fix=fix,
        )
    return numbers


def live_end(num_numbers: int, tombstones: NDArray[np.int64]) -> int:
    """One more than the highest number below `num_numbers` that is not deleted; 0 where every one is."""
    following = tombstones[::-1] == np.arange(num_numbers - 1, num_numbers - 1 - len(tombstones), -1)
    return num_numbers - (len(tombstones) if following.all() else int(following.argmin()))
