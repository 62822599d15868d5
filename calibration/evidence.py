"""KILT's evidence: which Wikipedia pages prove an answer, as its gold rows name them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

__all__ = ["Evidence", "evidence_from_outputs", "page_name"]

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


def page_name(value: object) -> str | None:
    """The name of a passage's page, as KILT compares names: a string without white space around it; None for none.

    Raises ValueError for what is neither a string nor an integer.
    """
    if value is not None and type(value) is not int and not isinstance(value, str):
        raise ValueError('a "wikipedia_id" that is a string or an integer, or none')
    return None if value is None else str(value).strip() or None


def _page(entry: dict[str, Any]) -> str | None:
    if "wikipedia_id" not in entry:
        return None
    try:
        page_name(entry["wikipedia_id"])
    except ValueError as reason:
        raise ValueError(f'"output" whose "provenance" has {reason}') from None
    # To KILT's script null and white space are pages too, which nobody finds.
    return str(entry["wikipedia_id"]).strip()
