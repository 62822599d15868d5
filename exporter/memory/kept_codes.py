"""What codes of vectors were made of and is in no store yet: making them goes on where it was stopped.

    STORE.codes.partial/KEY.part    SHA-256 in hex, a line, and the bytes of a quantiser, or of a segment's codes

KEY is a digest of all that decides the bytes, so that what was kept of other vectors is never taken; the digest within
is of KEY and the bytes, so that a part under another's name is not either. Who writes there holds the lock of the
store's changes.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

from glimmer_export.exporter.files.whole_file import replace_file, write_errors
from glimmer_export.runtime.contract import OutputError
from glimmer_export.runtime.contract.files import read_file

__all__ = ["KeptCodes", "codes_folder"]

DIGEST_BYTES = 64


def codes_folder(store: Path) -> Path:
    """Where what was made of a store's codes is kept."""
    real = Path(os.path.realpath(store))
    return real.with_name(f"{real.name}.codes.partial")


class KeptCodes:
    """Those of one store; the folder is made with the first that is kept."""

    def __init__(self, store: Path) -> None:
        """Raises OutputError where the folder is a link."""
        self._folder = codes_folder(store)
        if self._folder.is_symlink():
            raise OutputError(
                f"directory {self._folder}", expected="a directory of its own, for the work", found="a link",
                fix="remove it",
            )

    def content(self, decided_by: list[object], limit_bytes: int, make: Callable[[], bytes]) -> bytes:
        """The bytes that `decided_by`, whose JSON is their key, decides: as they were kept, or made and kept now.

        What is there is of `limit_bytes` at most, and has its digest; else it is made again. Raises OutputError where
        it cannot be kept, and what `make` raises.
        """
        key = hashlib.sha256(json.dumps(decided_by).encode()).hexdigest()
        path = self._folder / f"{key}.part"
        try:
            stated, _, content = read_file(path, limit_bytes + DIGEST_BYTES + 1).partition(b"\n")
        except OSError:
            stated = content = b""
        if stated != _stated(key, content):
            content = make()
            with write_errors(self._folder):
                self._folder.mkdir(exist_ok=True)
                replace_file(path, _stated(key, content) + b"\n" + content)
        return content

    def remove(self) -> None:
        """Remove it: the codes are in the store."""
        shutil.rmtree(self._folder, ignore_errors=True)


def _stated(key: str, content: bytes) -> bytes:
    return hashlib.sha256(key.encode() + content).hexdigest().encode()
