"""Arrays that tensorstore wrote: zarr (2 and 3) in folders, or in the one database of Orbax's OCDBT layout."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from glimmer_export.runtime.contract import CheckpointError, MissingExtraError, check_regular, inside, is_there
from glimmer_export.runtime.contract.json_text import parse_json
from glimmer_export.runtime.contract.library_errors import LibraryErrors

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["OCDBT", "StoredArray", "array_keys", "check_sizes", "open_array"]

OCDBT = "manifest.ocdbt"
DRIVERS = {".zarray": "zarr", "zarr.json": "zarr3"}
"""The file that describes an array -> tensorstore's driver for its format."""
ARRAY = "a zarr array, as tensorstore writes it"
COPY_AGAIN = "copy the checkpoint again from its source"
ITEM_BYTES = {"float32": 4, "float16": 2, "bfloat16": 2}
MAX_UNPACKED_RATIO = 32
"""Weights come to twice their packed size, and to a few times where many of them are equal."""
MIN_UNPACKED_BYTES = 256 << 20
"""Arrays that come to no more are no bomb, however small their files are."""
MAX_METADATA_BYTES = 16 << 20
"""Of what describes an array, or lists a database's parts; chunks of few values may have as much beside them."""
RAISED = (ValueError, IndexError, KeyError, MemoryError, NotImplementedError, OSError)
SOURCE_NOTES = re.compile(r"\s*\[(?:source locations|tensorstore_spec|kv_operation)=.*", re.DOTALL)


class StoredArray:
    """One opened array: its metadata are read and checked, its content is not."""

    def __init__(self, store: Any, subject: str) -> None:
        self._store, self._subject = store, subject
        self.shape: tuple[int, ...] = tuple(store.shape)
        self.num_bytes = math.prod(self.shape) * ITEM_BYTES.get(store.dtype.name, 1)

    def tensor(self) -> Tensor:
        """The whole array; raises CheckpointError for another dtype than a model's, and if a chunk is damaged."""
        import numpy as np
        import torch

        dtype = self._store.dtype.name
        if dtype not in ITEM_BYTES:
            raise CheckpointError(
                self._subject, expected=" or ".join(ITEM_BYTES), found=dtype, fix="save the weights in one of these"
            )
        with _tensorstore_errors(self._subject, "every chunk of the array, whole", COPY_AGAIN):
            content = self._store.read().result()
        if dtype == "bfloat16":  # which numpy lacks
            return torch.from_numpy(content.view(np.int16)).view(torch.bfloat16)
        return torch.from_numpy(content)


def array_keys(directory: Path) -> dict[str, str]:
    """The arrays that a directory holds: key -> tensorstore's driver.

    Raises CheckpointError if an OCDBT database cannot be read, MissingExtraError without tensorstore.
    """
    if is_there(directory / OCDBT):
        ts = _tensorstore()
        _check_files(directory)
        with _tensorstore_errors(
            str(directory / OCDBT), "a whole OCDBT database, as Orbax writes it",
            "copy the whole directory again, ocdbt.process_* included",
        ):
            listed = ts.KvStore.open(_ocdbt(directory)).result().list().result()
        names = [name.decode("utf-8", "replace") for name in listed]
    else:
        names = [f"{path.parent.name}/{path.name}" for marker in DRIVERS for path in directory.glob(f"*/{marker}")]
    keys = (name.rpartition("/") for name in sorted(names))
    return {key: DRIVERS[marker] for key, _, marker in keys if marker in DRIVERS and key}


def open_array(directory: Path, key: str, driver: str) -> StoredArray:
    """Open the array `key` of the directory, whatever path a file of the checkpoint may state for it.

    Raises CheckpointError if the key leads outside, if there is no such array, and for metadata that are damaged
    or declare chunks larger than the array itself, which would be allocated to read it.
    """
    ts = _tensorstore()
    subject = f"{directory}, array {key}"
    kvstore: dict[str, Any] = {"driver": "file", "path": f"{directory}/{key}/"}
    if is_there(directory / OCDBT):
        kvstore = _ocdbt(directory) | {"path": f"{key}/"}
    else:
        _check_files(inside(directory, key, error=CheckpointError, subject=subject))
    with _tensorstore_errors(subject, ARRAY, COPY_AGAIN):
        marker = next(name for name, its in DRIVERS.items() if its == driver)
        described = ts.KvStore.open(kvstore).result().read(marker).result().value
    try:
        parse_json(described.decode())  # where brackets nest deep, tensorstore's own parser ends the process
    except ValueError as error:
        raise CheckpointError(subject, expected=ARRAY, found=f"{marker}: {error}", fix=COPY_AGAIN) from None
    with _tensorstore_errors(subject, ARRAY, COPY_AGAIN):
        # Without the last option a chunk that is not there would be read as zeros.
        store = ts.open({"driver": driver, "kvstore": kvstore, "fill_missing_data_reads": False}, read=True).result()
        chunk = store.chunk_layout.write_chunk.shape
    if chunk is not None and any(size > max(1, whole) for size, whole in zip(chunk, store.shape, strict=True)):
        raise CheckpointError(
            subject, expected=f"chunks within its shape {list(store.shape)}", found=str(list(chunk)),
            fix="do not use this file; get it again from its source",
        )
    if not is_there(directory / OCDBT):
        content = math.prod(chunk or store.shape) * store.dtype.numpy_dtype.itemsize
        for path in (directory / key).rglob("*"):
            _check_size(path, max(MAX_METADATA_BYTES, 2 * content))
    return StoredArray(store, subject)


def check_sizes(root: Path, arrays: Iterable[StoredArray]) -> None:
    """Raise CheckpointError if arrays state far more values than the checkpoint's files can hold."""
    held = sum(path.stat().st_size for path in root.rglob("*") if path.is_file())
    stated, most = sum(array.num_bytes for array in arrays), max(MIN_UNPACKED_BYTES, MAX_UNPACKED_RATIO * held)
    if stated > most:
        raise CheckpointError(
            f"T5X checkpoint {root}", expected=f"arrays of at most {most} bytes in files of {held}",
            found=str(stated), fix="copy the whole directory again, or do not use it",
        )


def _check_files(directory: Path) -> None:
    """Raise CheckpointError if one is no regular file: tensorstore opens whatever stands there."""
    for folder, _, names in os.walk(directory):
        for name in names:
            path = Path(folder) / name
            check_regular(path, error=CheckpointError, subject=str(path), fix=COPY_AGAIN)
            if name in (*DRIVERS, OCDBT):
                _check_size(path, MAX_METADATA_BYTES)


def _check_size(path: Path, most: int) -> None:
    """Raise CheckpointError for a file that is larger than what it holds can be: tensorstore reads it whole."""
    if path.is_file() and (size := path.stat().st_size) > most:
        raise CheckpointError(str(path), expected=f"at most {most} bytes", found=str(size), fix=COPY_AGAIN)


def _ocdbt(directory: Path) -> dict[str, Any]:
    return {"driver": "ocdbt", "base": {"driver": "file", "path": f"{directory}/"}}


def _tensorstore() -> Any:
    try:
        import tensorstore
    except ImportError as error:
        raise MissingExtraError(
            "reading a T5X checkpoint", expected="tensorstore", found=str(error), fix="install glimmer-export[t5x]"
        ) from None
    return tensorstore


def _tensorstore_errors(subject: str, expected: str, fix: str) -> LibraryErrors:
    """For a call of tensorstore, whose statuses come as ValueError, but for some few."""
    return LibraryErrors(
        lambda kind: issubclass(kind, RAISED),
        lambda error: CheckpointError(subject, expected=expected, found=_reason(error), fix=fix),
    )


def _reason(error: BaseException) -> str:
    """What tensorstore says, less where in its own code it says so."""
    text = SOURCE_NOTES.sub("", str(error)).strip() or type(error).__name__
    return text if len(text) <= 300 else f"{text[:300]}..."
