"""A passage's fields by the names that public collections have for them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

__all__ = ["FIELDS", "passage_fields", "present_fields"]

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
    is a whole page, so where it names the page by `wikipedia_title` alone, its id is the page's. An Atlas passage's
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
