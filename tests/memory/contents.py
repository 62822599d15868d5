"""What a store says of itself, to compare stores by."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from glimmer_export.runtime.bundle import Bundle
from glimmer_export.runtime.store import MemoryStore

__all__ = ["contents", "live_numbers", "open_contents", "search_ids", "shard_digests"]


def live_numbers(store: MemoryStore) -> list[int]:
    """The numbers of the passages that are there, rising."""
    numbers = []
    for number in range(store.manifest.num_numbers):
        try:
            store.input_ids(number)
        except IndexError:
            continue
        numbers.append(number)
    return numbers


def contents(store: MemoryStore) -> list[tuple[Any, ...]]:
    """Id, title, text, token ids and memory of every passage that is there, in the order of numbers."""
    rows = []
    for number in live_numbers(store):
        passage = store.passage(number)
        assert store.numbers([passage.id]) == [number]
        memory = {name: values.tobytes() for name, values in store.memory(number).tensors.items()}
        rows.append((passage.id, passage.title, passage.text, store.input_ids(number).tolist(), memory))
    return rows


def open_contents(path: Path, bundle: Bundle) -> list[tuple[Any, ...]]:
    """`contents` of a store on disk, all of whose digests are checked."""
    with MemoryStore.open(path, bundle) as store:
        rows = contents(store)
        assert store.num_passages == len(rows)
    return rows


def search_ids(store: MemoryStore, question: str, top_k: int = 100) -> list[tuple[int | str | None, float]]:
    """The ids that a search finds, with their scores rounded."""
    return [(store.passage(hit.number).id, round(hit.score, 9)) for hit in store.search(question, top_k)]


def shard_digests(path: Path) -> list[str]:
    """Digests of a store's shards, as its manifest names them."""
    manifest = json.loads((path / "manifest.json").read_text())
    return [shard["file"]["sha256"] for shard in manifest["shards"]]
