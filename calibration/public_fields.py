"""Fields of public collections: a passage's, by all the names that it goes by, and KILT's evidence for an answer."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

__all__ = [
    "FIELDS", "Evidence", "evidence_from_outputs", "evidence_score", "page_name", "passage_fields", "present_fields",
]  # fmt: skip

FIELDS = {
    "id": ("id", "_id"),
    "title": ("title", "wikipedia_title"),
    "text": ("text", "contents"),
}
"""Our field, and the names under which it is looked for, in this order.

`_id`: BEIR, and KILT's knowledge source, whose titles are `wikipedia_title`. `contents`: Pyserini.
"""


def passage_fields(row: Mapping[str, Any]) -> dict[str, Any]:
    """`id`, `title`, `text` and `wikipedia_id` of a row, so far as it has them; nothing is checked. Null is absent.

    A text that is a list of paragraphs, as in KILT's knowledge source, becomes one, a paragraph a line; such a record
    is a whole page, so if it names the page by `wikipedia_title` alone, its id is the page's. An Atlas passage's
    `section` follows its title, as Atlas itself has it.
    """
    found = {
        field: next(row[name] for name in names if row.get(name) is not None)
        for field, names in FIELDS.items()
        if any(row.get(name) is not None for name in names)
    }
    text = found.get("text")
    if isinstance(text, list) and text and all(isinstance(paragraph, str) for paragraph in text):
        found["text"] = "\n".join(paragraph.strip("\n") for paragraph in text)
    title, section = found.get("title"), row.get("section")
    if isinstance(title, str) and isinstance(section, str) and section and not title.endswith(f": {section}"):
        found["title"] = f"{title}: {section}"
    page = row.get("wikipedia_id")
    if page is None and "wikipedia_title" in row and isinstance(row.get("text"), list):
        page = found.get("id")
    if page is not None:
        found["wikipedia_id"] = page
    return found


def present_fields(row: Mapping[str, Any]) -> str:
    """The names of a row's fields that are not null, for an error about one that it lacks."""
    names = [name for name, value in row.items() if value is not None]
    return ", ".join(f'"{name[:40]}"' for name in names[:12]) or "no fields"


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


def evidence_score(outputs: Sequence[dict[str, Any]]) -> float | None:
    """The best `bleu_score` of a row's provenance, 0 to 1: how well KILT found the evidence in its own Wikipedia.

    Entries without one were not found by comparing texts, and count as exact; None if there is no entry. Raises
    ValueError as `evidence_from_outputs`, for a score that is no number.
    """
    entries = [entry for output in outputs for entry in output.get("provenance") or ()]
    scores = [1.0 if entry.get("bleu_score") is None else entry["bleu_score"] for entry in entries]
    if not all(type(score) in (int, float) and math.isfinite(score) for score in scores):
        raise ValueError('"output" whose "provenance" has a "bleu_score" that is a number')
    return max(map(float, scores), default=None)


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
