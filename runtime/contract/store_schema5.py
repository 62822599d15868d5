"""A store's manifest of schema 5, as today's: there each segment was of texts and of their index together."""

from __future__ import annotations

from typing import Any

__all__ = ["SCHEMA_5", "as_schema_6"]

SCHEMA_5 = 5
SHARED = ("first", "num_numbers", "num_passages")
"""Fields that a segment had for its texts and its index."""


def as_schema_6(data: dict[str, Any]) -> dict[str, Any]:
    """A parsed manifest of schema 5 with the fields of schema 6, but for its number; what is none is left as it is."""
    segments = data.get("segments")
    if not isinstance(segments, list) or "texts" in data:
        return data
    if not all(isinstance(segment, dict) and "files" not in segment for segment in segments):
        return data
    texts, indexes = [], []
    for segment in segments:
        shared = {name: segment[name] for name in SHARED if name in segment}
        rest = {name: value for name, value in segment.items() if name not in (*SHARED, "texts", "index")}
        if "texts" in segment:
            texts.append({**shared, "file": segment["texts"]})
        if segment.get("index") or rest.get("documents") or _engine(data) != "fts5":
            indexes.append({**shared, **rest, "files": segment.get("index", [])})
    return {**data, "texts": texts, "segments": indexes}


def _engine(data: dict[str, Any]) -> object:
    index = data.get("index")
    return index.get("engine") if isinstance(index, dict) else None
