"""The parameters of a T5X checkpoint by name, whichever of its layouts the directory has."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from glimmer_export.exporter.checkpoint.t5x.msgpack_file import InlineArray, read_msgpack
from glimmer_export.exporter.checkpoint.t5x.stored_arrays import OCDBT, StoredArray, array_keys, check_sizes, open_array
from glimmer_export.runtime.contract import CheckpointError, is_there

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["T5xArrays"]

MSGPACK = "checkpoint"
ITEMS = ("", "state", "default")
"""Where below the directory of a step the parameters lie: T5X's own layout, T5X with Orbax, Orbax alone."""


class T5xArrays:
    """The arrays of the tree `target`; the optimizer's state is left alone.

    Opening reads names and shapes. Paths that the checkpoint states are not followed: an array is looked for in the
    directory, under its own name with dots. Raises CheckpointError if the directory has none of the layouts, where
    a file is damaged, and if an array that the tree names is not there; MissingExtraError without tensorstore.
    """

    def __init__(self, directory: Path) -> None:
        self._root = root = _find_root(directory)
        stored = array_keys(root)
        self._arrays: dict[str, InlineArray | StoredArray] = {}
        for names, key, inline in _entries(root, stored):
            if inline is not None:
                self._arrays["/".join(names)] = inline
                continue
            if key not in stored:
                raise CheckpointError(
                    f"T5X checkpoint {root}", expected=f"the array {key}, which its tree names", found="none",
                    fix="copy the whole directory again",
                )
            self._arrays["/".join(names)] = open_array(root, key, stored[key])
        if not self._arrays:
            found = ", ".join(sorted({key.partition(".")[0] for key in stored})) or "nothing"
            raise CheckpointError(
                f"T5X checkpoint {root}", expected="parameters below `target`", found=found,
                fix="save the train state as T5X does, with its parameters in `target`",
            )

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Shape of each array, by its name below `target`, with slashes."""
        return {name: array.shape for name, array in self._arrays.items()}

    def check_sizes(self) -> None:
        """Raise CheckpointError if arrays state far more values than the checkpoint's files can hold."""
        check_sizes(self._root, [array for array in self._arrays.values() if isinstance(array, StoredArray)])

    def tensor(self, name: str) -> Tensor:
        """One array, in the dtype it was stored in and in memory of its own."""
        return self._arrays[name].tensor()


def _find_root(directory: Path) -> Path:
    for item in ITEMS:
        root = directory / item
        if _holds(root, MSGPACK) or _holds(root, OCDBT) or array_keys(root):
            return root
    steps = sorted(path.name for path in directory.glob("*") if path.is_dir())
    raise CheckpointError(
        f"T5X checkpoint {directory}", expected=f"a file {MSGPACK} or {OCDBT}, or folders with .zarray or zarr.json",
        found=f"none, but {', '.join(steps[:4])}" if steps else "none of them",
        fix="name the directory of one step, such as checkpoint_1000000",
    )


def _entries(root: Path, stored: dict[str, str]) -> list[tuple[tuple[str, ...], str, InlineArray | None]]:
    """Every array of `target`: its names below it, its key if it is stored apart, the array if it is not."""
    if _holds(root, MSGPACK):
        return [(names[1:], ".".join(names), inline) for names, inline in read_msgpack(root / MSGPACK).items()]
    listed = [(key.removeprefix("optimizer.").split("."), key) for key in stored]
    return [(tuple(names[1:]), key, None) for names, key in listed if names[0] == "target" and len(names) > 1]


def _holds(root: Path, name: str) -> bool:
    """Whether there is something of that name that is no folder."""
    return is_there(root / name) and not (root / name).is_dir()
