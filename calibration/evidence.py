"""KILT's evidence: which Wikipedia pages prove an answer, as its gold rows name them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

__all__ = ["Evidence", "evidence_from_outputs"]

Evidence = frozenset[str | None]
"""Pages that together prove one output; None stands for those that have no `wikipedia_id`."""


def evidence_from_outputs(outputs: Sequence[dict[str, Any]]) -> tuple[Evidence, ...]:
    """The evidence of a row's `output`: one set for each that has a `provenance`, though it be empty.

    Raises ValueError, which says what was expected, for a `provenance` of another type.
    """
    found = []
    for output in outputs:
        provenance = output.get("provenance")
        if provenance is None:
            continue
        if not isinstance(provenance, list) or not all(isinstance(entry, dict) for entry in provenance):
            raise ValueError('"output" whose "provenance" is a list of objects')
        found.append(frozenset(_page(entry) for entry in provenance))
    return tuple(found)


def _page(entry: dict[str, Any]) -> str | None:
    if "wikipedia_id" not in entry:
        return None
    page = entry["wikipedia_id"]
    if page is not None and type(page) is not int and not isinstance(page, str):
        raise ValueError('"output" whose "provenance" has a "wikipedia_id" that is a string or an integer')
    return str(page).strip()  # null is a page too, as it is to KILT's script: one that nobody finds
