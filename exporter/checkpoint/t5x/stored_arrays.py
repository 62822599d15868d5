"""Arrays that tensorstore wrote: zarr (2 and 3) in folders, or in the one database of Orbax's OCDBT layout."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from runtime.contract import CheckpointError, MissingExtraError, check_regular, inside, is_there

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["OCDBT", "StoredArray", "array_keys", "open_array"]

OCDBT = "manifest.ocdbt"
DRIVERS = {".zarray": "zarr", "zarr.json": "zarr3"}
"""The file that describes an array -> tensorstore's driver for its format."""
COPY_AGAIN = "copy the checkpoint again from its source"
DTYPES = ("float32", "float16", "bfloat16")
SOURCE_NOTES = re.compile(r"\s*\[(?:source locations|tensorstore_spec|kv_operation)=.*", re.DOTALL)


class StoredArray:
    """One opened array: its metadata are read and checked, its content is not."""

    def __init__(self, store: Any, subject: str) -> None:
        self._store, self._subject = store, subject
        self.shape: tuple[int, ...] = tuple(store.shape)

    def tensor(self) -> Tensor:
        """The whole array; raises CheckpointError for another dtype than a model's, and where a chunk is damaged."""
        import numpy as np
        import torch

        dtype = self._store.dtype.name
        if dtype not in DTYPES:
            raise CheckpointError(
                self._subject, expected=" or ".join(DTYPES), found=dtype, fix="save the weights in one of these"
            )
        try:
            content = self._store.read().result()
        except Exception as error:  # noqa: BLE001 - tensorstore raises many classes
            raise CheckpointError(
                self._subject, expected="every chunk of the array, whole", found=_reason(error),
                fix=COPY_AGAIN,
            ) from None
        if dtype == "bfloat16":  # which numpy lacks
            return torch.from_numpy(content.view(np.int16)).view(torch.bfloat16)
        return torch.from_numpy(content)


def array_keys(directory: Path) -> dict[str, str]:
    """The arrays that a directory holds: key -> tensorstore's driver.

    Raises CheckpointError where an OCDBT database cannot be read, MissingExtraError without tensorstore.
    """
    if is_there(directory / OCDBT):
        ts = _tensorstore()
        _check_files(directory)
        try:
            listed = ts.KvStore.open(_ocdbt(directory)).result().list().result()
        except Exception as error:  # noqa: BLE001 - tensorstore raises many classes
            raise CheckpointError(
                str(directory / OCDBT), expected="a whole OCDBT database, as Orbax writes it", found=_reason(error),
                fix="copy the whole directory again, ocdbt.process_* included",
            ) from None
        names = [name.decode("utf-8", "replace") for name in listed]
    else:
        names = [f"{path.parent.name}/{path.name}" for marker in DRIVERS for path in directory.glob(f"*/{marker}")]
    keys = (name.rpartition("/") for name in sorted(names))
    return {key: DRIVERS[marker] for key, _, marker in keys if marker in DRIVERS and key}


def open_array(directory: Path, key: str, driver: str) -> StoredArray:
    """Open the array `key` of the directory, whatever path a file of the checkpoint may state for it.

    Raises CheckpointError where the key leads outside, where there is no such array, and for metadata that are damaged
    or declare chunks larger than the array itself, which would be allocated to read it.
    """
    ts = _tensorstore()
    subject = f"{directory}, array {key}"
    kvstore: dict[str, Any] = {"driver": "file", "path": f"{directory}/{key}/"}
    if is_there(directory / OCDBT):
        kvstore = _ocdbt(directory) | {"path": f"{key}/"}
    else:
        _check_files(inside(directory, key, error=CheckpointError, subject=subject))
    try:
        # Without the last option a chunk that is not there would be read as zeros.
        store = ts.open({"driver": driver, "kvstore": kvstore, "fill_missing_data_reads": False}, read=True).result()
        chunk = store.chunk_layout.write_chunk.shape
    except Exception as error:  # noqa: BLE001 - tensorstore raises many classes
        raise CheckpointError(
            subject, expected="a zarr array, as tensorstore writes it", found=_reason(error),
            fix=COPY_AGAIN,
        ) from None
    if chunk is not None and any(size > max(1, whole) for size, whole in zip(chunk, store.shape, strict=True)):
        raise CheckpointError(
            subject, expected=f"chunks within its shape {list(store.shape)}", found=str(list(chunk)),
            fix="do not use this file; get it again from its source",
        )
    return StoredArray(store, subject)


def _check_files(directory: Path) -> None:
    """Raise CheckpointError where one is no regular file: tensorstore opens whatever stands there."""
    for folder, _, names in os.walk(directory):
        for name in names:
            path = Path(folder) / name
            check_regular(path, error=CheckpointError, subject=str(path), fix=COPY_AGAIN)


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


def _reason(error: Exception) -> str:
    """What tensorstore says, less where in its own code it says so."""
    text = SOURCE_NOTES.sub("", str(error)).strip() or type(error).__name__
    return text if len(text) <= 300 else f"{text[:300]}..."
