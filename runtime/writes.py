"""What changes the store that a server answers from: the build side's, which whoever starts the server hands to it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from glimmer_export.runtime.passage_texts import Passage

__all__ = ["MAX_WRITTEN", "Writer", "Written"]

MAX_WRITTEN = 1000
"""Passages, or ids, of one write."""


@dataclass(frozen=True)
class Written:
    """What one write made of the store, which has `passages` now. `already_complete`: its last change was this one.

    `added` passages came, some of them in the places of `replaced` ones, or `deleted` ones went; `truncated` of those
    that came were longer than the passage length.
    """

    generation: int
    passages: int
    added: int = 0
    replaced: int = 0
    deleted: int = 0
    truncated: int = 0
    already_complete: bool = False
    warnings: tuple[str, ...] = ()


class Writer(Protocol):
    """Changes one store, one change at a time; killed at any moment, the store is as before the change or after it."""

    def put(self, passages: Sequence[Passage], *, replace: bool) -> Written:
        """Add passages, each with an id of its own; `replace` lets them take the places of their ids.

        Raises TakenIdError for an id that is there without `replace`, CorpusError for another passage that cannot be
        stored, BusyError if another process changes the store, OutputError for a disk that is full, StoreError.
        """
        ...

    def delete(self, ids: Sequence[int | str]) -> Written:
        """Delete passages; raises PassageError for an id that the store does not hold, and as `put`."""
        ...

    def close(self) -> None:
        """Let go of what was loaded for it."""
        ...
