"""What a path is of, for errors that say so: a store if a bundle is wanted is no damaged bundle."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

from glimmer_export.runtime.contract.errors import GlimmerError
from glimmer_export.runtime.contract.files import ABSENT, is_there, read_file
from glimmer_export.runtime.contract.json_text import parse_json

__all__ = [
    "BUNDLE", "CHECKPOINT", "FORMATS", "STORE", "T5", "error_of_kind", "kind_of", "refuse_ours", "require_kind",
]  # fmt: skip

E = TypeVar("E", bound=GlimmerError)
BUNDLE, STORE, CHECKPOINT, T5 = "a bundle", "a memory store", "a checkpoint", "a T5 checkpoint"
VECTORS, ENGINES, RANGES, PARITY = "an index of vectors", "a bundle's engines", "a table of ranges", "a parity record"
FORMATS = {
    "glimmer-bundle": BUNDLE, "glimmer-store": STORE, "glimmer-vectors": VECTORS, "glimmer-engines": ENGINES,
    "glimmer-ranges": RANGES, "glimmer-parity": PARITY,
}
"""What the field `format` says, of a file or of the one that stands for its folder."""
ENCODER, OTHERS = "a sentence encoder", "a Hugging Face model"
FILE, FOLDER, NOTHING = "a file", "another folder", "nothing of that name"
MAX_BYTES = 64 << 20
MARKS = {BUNDLE: ("graphs", "graphs"), STORE: ("shards", "shards")}
"""A field that the manifest of one has and of the other has not, and a folder beside it."""
PARTS = {"engines.json": ENGINES, "ranges.json": RANGES, "parity.json": PARITY, "encoder.json": ENCODER}
"""What has these names of its own; a file of before there was a field `format` is known by it."""
MARKS[VECTORS] = ("embeddings", "encoder")
NAME = {
    BUNDLE: "name the folder that `glimmer-export export` or `quantize` wrote",
    STORE: "name the folder that `glimmer-export memory build` wrote",
    CHECKPOINT: "name a directory written by `glimmer-export init`, `convert` or `train`",
    T5: "name a directory in Hugging Face's layout, as `save_pretrained` writes it",
}
NEXT = {
    BUNDLE: "`glimmer-export inspect {path}` shows what a bundle holds",
    STORE: "`glimmer-export memory verify {path}` looks at a store",
    CHECKPOINT: "`glimmer-export export {path} -o BUNDLE` makes a bundle of a checkpoint",
    T5: "`glimmer-export init --from-t5 {path} -o CHECKPOINT` makes a checkpoint of a T5",
    VECTORS: "name the store that it lies in",
    ENGINES: "name the bundle that they lie in",
    RANGES: "name the bundle that it lies in",
    PARITY: "name the bundle that it lies in",
    ENCODER: "`glimmer-export memory index STORE --encoder {path}` makes an index of vectors with it",
    OTHERS: "only a T5 can be read, by `glimmer-export init --from-t5` or `convert`",
    FILE: "it is a folder, and no file",
    FOLDER: "this one has neither manifest.json nor config.json",
    NOTHING: "check the path",
}


def error_of_kind(damage: E, path: Path, wanted: str) -> E:
    """The error to raise where reading what is `wanted` at a path failed by `damage`.

    It says what is there instead, and what that is for, if that can be told; else it is `damage` itself.
    """
    try:
        require_kind(path, wanted, error=type(damage))
    except type(damage) as other:
        return other
    return damage


def require_kind(path: Path, wanted: str, *, error: type[GlimmerError]) -> None:
    """Raise `error` if what is at a path is told to be of another kind than `wanted`."""
    found = kind_of(path)
    if found not in (None, wanted):
        fix = f"{NAME[wanted]}; {NEXT[found].format(path=path)}"
        if found == OTHERS:
            found = f"{OTHERS} of the type {_object(path / 'config.json').get('model_type')!r:.60}"
        raise error(str(path), expected=wanted, found=found, fix=fix)


def refuse_ours(paths: Iterable[Path], *, expected: str, error: type[GlimmerError], subject: str, fix: str) -> None:
    """Raise `error` for a path that is a bundle, a store or a checkpoint, where what others wrote is expected."""
    for path in paths:
        found = kind_of(path)
        if found in (BUNDLE, STORE, CHECKPOINT):
            raise error(
                f"{subject} {path}", expected=expected, found=found, fix=f"{fix}; {NEXT[found].format(path=path)}"
            )


def kind_of(path: Path) -> str | None:
    """One of the constants of this module; None if the system does not let it be told.

    By what the manifest or the config says; if that is gone or damaged, by the folders that stand beside it.
    """
    try:
        mode = path.stat().st_mode
    except OSError as reason:
        return NOTHING if reason.errno in ABSENT else None
    except ValueError:
        return None
    if not stat.S_ISDIR(mode):
        return _kind_of_file(path) if stat.S_ISREG(mode) and path.suffix == ".json" else FILE
    # What may not be entered cannot be told, nor what the system refuses otherwise.
    return _kind_of_folder(path) if os.access(path, os.R_OK | os.X_OK) else None


def _kind_of_folder(path: Path) -> str | None:
    manifest = _object(path / "manifest.json")
    if named := _named(manifest):
        return named
    for kind, (field, folder) in MARKS.items():
        if field in manifest or (not manifest and is_there(path / folder)):
            return kind
    if is_there(path / "manifest.json"):
        return None
    for name, kind in PARTS.items():
        if is_there(path / name):
            return kind
    if is_there(path / "config.json"):
        model = _object(path / "config.json").get("model_type")
        return {"glimmer": CHECKPOINT, "t5": T5}.get(str(model), OTHERS if isinstance(model, str) else None)
    return FOLDER


def _kind_of_file(path: Path) -> str:
    return _named(_object(path)) or PARTS.get(path.name, FILE)


def _named(data: dict[str, Any]) -> str | None:
    """The kind that a file's field `format` names."""
    named = data.get("format")
    return FORMATS.get(named) if isinstance(named, str) else None


def _object(path: Path) -> dict[str, Any]:
    """What a JSON file says; nothing if it cannot be read."""
    with suppress(OSError, ValueError):
        data = parse_json(read_file(path, MAX_BYTES).decode("utf-8"))
        if isinstance(data, dict):
            return data
    return {}
