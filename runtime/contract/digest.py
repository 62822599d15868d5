"""Digests: what binds a file to a manifest, and a store to a checkpoint."""

from __future__ import annotations

import hashlib
from pathlib import Path

from glimmer_export.runtime.contract.files import open_file

__all__ = ["file_digest"]

BLOCK_BYTES = 1 << 20


def file_digest(path: Path) -> str:
    """SHA-256 of a regular file's bytes, in hexadecimal. Raises OSError."""
    digest = hashlib.sha256()
    with open_file(path) as stream:
        while block := stream.read(BLOCK_BYTES):
            digest.update(block)
    return digest.hexdigest()
