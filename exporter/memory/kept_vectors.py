"""Vectors that were encoded and are in no store yet: an index that was stopped goes on behind them.

    STORE.vectors.partial/plan.json     VectorsPlan
    STORE.vectors.partial/00003.part    SHA-256 in hex, a line, and the fourth part's vectors, (passages, dimension)
                                        float32; the digest is of these, behind that of the passages that they are of

Who writes there holds the lock of the store's changes.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from glimmer_export.exporter.files.whole_file import replace_file, write_errors
from glimmer_export.runtime.backends import Array
from glimmer_export.runtime.contract import OutputError, is_there, record_to_json
from glimmer_export.runtime.contract.files import read_file
from glimmer_export.runtime.contract.records import read_json, record_from_json
from glimmer_export.runtime.contract.vector_layout import EncoderSettings
from glimmer_export.runtime.passage_texts import Passage

__all__ = ["KeptVectors", "VectorsPlan", "kept_folder"]

PLAN = "plan.json"
PART_PASSAGES = 1 << 14
"""What a killed index loses at most, and one more: some minutes of two cores."""
DIGEST_BYTES = 64
MAX_DIMENSION = 1 << 16


@dataclass(frozen=True)
class VectorsPlan:
    """What decides a passage's vector: digests of the encoder's files, its settings, and how many are encoded in a run.

    What passages there are is not here: each part says whose vectors it has.
    """

    encoder_sha256: tuple[str, ...]
    settings: EncoderSettings
    batch_size: int


def kept_folder(store: Path) -> Path:
    """Where a store's unfinished vectors are."""
    real = Path(os.path.realpath(store))
    return real.with_name(f"{real.name}.vectors.partial")


class KeptVectors:
    """Those of one plan; the folder is made with the first part."""

    def __init__(self, store: Path, plan: VectorsPlan) -> None:
        """Raises OutputError where the folder is a link, or has vectors of another plan."""
        self._folder, self._plan = kept_folder(store), plan
        if self._folder.is_symlink():
            raise OutputError(
                f"directory {self._folder}", expected="a directory of its own, for the work", found="a link",
                fix="remove it",
            )
        path = self._folder / PLAN
        if not is_there(path):
            return
        fix = f"index as it was begun, or remove {self._folder}"
        data = read_json(path, error=OutputError, fix=fix)
        earlier = record_from_json(VectorsPlan, data, error=OutputError, subject=str(path), fix=fix)
        if earlier != plan:
            name = next(name for name, own in vars(plan).items() if own != getattr(earlier, name))
            raise OutputError(
                f"unfinished vectors {self._folder}", expected=f"{name} {getattr(plan, name)}, as asked for",
                found=str(getattr(earlier, name)), fix=fix,
            )

    def rows(
        self, numbers: Sequence[int], passages_of: Callable[[Sequence[int]], Sequence[Passage]],
        encode: Callable[[Iterable[Sequence[Passage]]], Iterator[Array]], at_once: int,
    ) -> Iterator[Array]:
        """Chunks (rows, dimension) float32 of `numbers` in their order: those that are kept, others from `encode`.

        `encode` gives a chunk for each `at_once` passages. Raises what both raise, and OutputError where a part cannot
        be written.
        """
        size = -(-PART_PASSAGES // at_once) * at_once
        for index, start in enumerate(range(0, len(numbers), size)):
            passages, path = passages_of(numbers[start : start + size]), self._folder / f"{index:05d}.part"
            whose = _digest_of(passages)
            if (kept := _read(path, len(passages), whose)) is not None:
                yield kept
                continue
            chunks = []
            for chunk in encode(passages[at : at + at_once] for at in range(0, len(passages), at_once)):
                chunks.append(chunk)
                yield chunk
            values = np.concatenate(chunks).astype("<f4", copy=False).tobytes()
            self._keep(path, _stated(whose, values) + b"\n" + values)

    def remove(self) -> None:
        """Remove it: the vectors are in the store."""
        shutil.rmtree(self._folder, ignore_errors=True)

    def _keep(self, path: Path, content: bytes) -> None:
        with write_errors(self._folder):
            self._folder.mkdir(exist_ok=True)
        if not is_there(self._folder / PLAN):
            replace_file(self._folder / PLAN, record_to_json(self._plan).encode())
        replace_file(path, content)


def _read(path: Path, rows: int, whose: bytes) -> Array | None:
    """A part's vectors (rows, dimension); None if there is none, of others, or it is not what was written."""
    try:
        content = read_file(path, DIGEST_BYTES + 1 + 4 * rows * MAX_DIMENSION)
    except OSError:
        return None
    stated, values = content[:DIGEST_BYTES], content[DIGEST_BYTES + 1 :]
    if not values or len(values) % (4 * rows) or _stated(whose, values) != stated:
        return None
    return np.frombuffer(values, "<f4").reshape(rows, -1)


def _stated(whose: bytes, values: bytes) -> bytes:
    return hashlib.sha256(whose + values).hexdigest().encode()


def _digest_of(passages: Sequence[Passage]) -> bytes:
    digest = hashlib.sha256()
    for passage in passages:
        digest.update(json.dumps([passage.title, passage.text]).encode())
    return digest.digest()
