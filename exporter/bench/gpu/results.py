"""All parts in one file: a tar that is whole after every step, as few files come back from where a GPU is."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Iterable
from pathlib import Path

from glimmer_export.exporter.bench.gpu.bars import summary_of
from glimmer_export.exporter.bench.gpu.runner import Part, finite
from glimmer_export.exporter.files.publish import replace_file

__all__ = ["SUMMARY", "parts_of", "unpack_results", "write_results"]

SUMMARY = "summary.json"
MOST_OF_A_LOG = 1 << 20
"""Bytes of a log's end that are kept."""


def parts_of(folder: Path, names: Iterable[str]) -> dict[str, Part]:
    """The parts that were begun, in the order of the names."""
    return {name: Part.open(folder, name) for name in names if (folder / f"{name}.json").is_file()}


def write_results(folder: Path, names: Iterable[str], archive: Path) -> None:
    """Put the summary beside the parts, and all of it into the archive in one go."""
    content = json.dumps(finite(summary_of(parts_of(folder, names))), indent=1) + "\n"
    replace_file(folder / SUMMARY, content.encode())
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:xz") as tar:
        for path in sorted((*folder.glob("*.json"), *folder.glob("*.log"))):
            data = path.read_bytes()[-MOST_OF_A_LOG:] if path.suffix == ".log" else path.read_bytes()
            entry = tarfile.TarInfo(path.name)
            entry.size = len(data)
            tar.addfile(entry, io.BytesIO(data))
    archive.parent.mkdir(parents=True, exist_ok=True)
    replace_file(archive, packed.getvalue())


def unpack_results(archive: Path, folder: Path) -> None:
    """Bring back what an archive holds, unless the folder has parts of its own already."""
    folder.mkdir(parents=True, exist_ok=True)
    if any(folder.glob("*.json")):
        return
    with tarfile.open(archive, "r:xz") as tar:
        tar.extractall(folder, filter="data")
