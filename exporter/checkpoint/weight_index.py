"""Which files hold a directory's weights: one, or the shards that an index names."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from glimmer_export.runtime.contract import CheckpointError, inside, is_there
from glimmer_export.runtime.contract.records import read_json_value

__all__ = ["weight_paths"]


def weight_paths(directory: Path, *, single: str, index: str) -> list[Path]:
    """`directory/single` if it exists, else every shard of `directory/index`.

    Raises CheckpointError if there is neither, if the index is not one, if it names a file outside the
    directory, and if a shard is missing.
    """
    if is_there(directory / single):
        return [directory / single]
    path = directory / index
    if not is_there(path):
        raise CheckpointError(
            f"checkpoint {directory}", expected=f"{single} or {index}", found="neither",
            fix="copy the weights into the directory",
        )
    expected, fix = 'a JSON object with "weight_map"', "copy the index again"
    data = read_json_value(path, error=CheckpointError, subject=str(path), expected=expected, fix=fix)
    try:
        names = _shard_names(data)
    except (KeyError, AttributeError, TypeError) as error:
        raise CheckpointError(str(path), expected=expected, found=repr(error), fix=fix) from None
    shards = [inside(directory, name, error=CheckpointError, subject=str(path)) for name in sorted(names)]
    for shard in shards:
        if not is_there(shard):
            raise CheckpointError(
                f"checkpoint {directory}", expected=f"the shard {shard.name}", found="no such file",
                fix="copy all shards that the index names",
            )
    return shards


def _shard_names(index: Any) -> set[str]:
    names = set(index["weight_map"].values())
    if not names or not all(isinstance(name, str) for name in names):
        raise TypeError("no file names, or one that is not text")
    return names
