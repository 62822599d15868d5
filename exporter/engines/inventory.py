"""What engines a bundle holds, and which of them can be used as they are."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from glimmer_export.runtime.bundle import verify_file
from glimmer_export.runtime.contract import (
    ENGINES,
    BundleError,
    BundleManifest,
    EngineEntry,
    EngineKey,
    EngineRecord,
    ShapeRange,
    graph_digest,
    read_engine_record,
)

__all__ = ["Wanted", "bundle_engines", "other_versions", "stale", "usable_engines"]

Wanted = Mapping[str, tuple[str, tuple[dict[str, ShapeRange], ...]]]
"""By graph: its digest and its optimization profiles."""


def bundle_engines(bundle: Path) -> dict[str, EngineRecord | BundleError]:
    """By directory below engines/, the record of the engines there, or what is wrong with it."""
    found: dict[str, EngineRecord | BundleError] = {}
    folder = bundle / ENGINES
    for directory in sorted(folder.iterdir()) if folder.is_dir() else ():
        if directory.is_dir() and not directory.name.startswith("."):
            try:
                found[directory.name] = read_engine_record(directory)
            except BundleError as error:
                found[directory.name] = error
    return found


def stale(record: EngineRecord, manifest: BundleManifest) -> list[str]:
    """The graphs of a bundle that a record has no engine for, or one of another graph."""
    return [
        name for name, graph in manifest.graphs.items()
        if name not in record.engines or record.engines[name].graph_sha256 != graph_digest(graph)
    ]


def other_versions(bundle: Path, key: EngineKey) -> list[str]:
    """Directories of engines for the same device by another version of the library, which serve that version alone."""
    return [
        name for name, record in bundle_engines(bundle).items()
        if isinstance(record, EngineRecord) and record.key != key and replace(record.key, version=key.version) == key
    ]


def usable_engines(directory: Path, wanted: Wanted) -> tuple[dict[str, EngineEntry], dict[str, str]]:
    """The undamaged engines of a directory that are of the wanted graphs and profiles, and why the others are not."""
    if not directory.exists():
        return {}, {}
    try:
        record = read_engine_record(directory)
    except BundleError as error:
        return {}, dict.fromkeys(wanted, str(error))
    usable: dict[str, EngineEntry] = {}
    others: dict[str, str] = {}
    for name, (digest, profiles) in wanted.items():
        entry = record.engines.get(name)
        if entry is None:
            continue
        if entry.graph_sha256 != digest:
            others[name] = "its graph has changed"
        elif entry.profiles != profiles:
            others[name] = f"its optimization profiles were others (built for {record.target})"
        else:
            try:
                verify_file(directory, entry.file, error=BundleError, subject="engine", fix="")
                usable[name] = entry
            except BundleError as error:
                others[name] = f"it is damaged: expected {error.expected}, found {error.found}"
    return usable, others
