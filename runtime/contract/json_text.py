"""JSON of a file that nobody vouches for: what has no end, and what Python alone takes for JSON, is a ValueError."""

from __future__ import annotations

import json
import math
from typing import Any

__all__ = ["has_lone_surrogate", "parse_at", "parse_json"]

MAX_DEPTH = 64
"""Of lists and objects in one another: what is parsed is walked later too, and Python's stack ends at some hundreds."""
MAX_CONTAINERS = 1 << 22
"""Lists and objects: an empty one takes two bytes of a file and 72 of memory."""
INTEGER_BITS = 64
DECODER = json.JSONDecoder()


def parse_json(text: str, *, strict: bool = False) -> Any:
    """The value of a JSON text.

    Raises ValueError, which says why: no JSON, values that nest too deep or are too many, an integer of thousands of
    digits. `strict` is for files of our own formats: a key that stands twice in one object, a number that is not
    finite, an integer of more than 64 bits, and a string with a lone surrogate, which nothing can write or index, are
    errors too.
    """
    containers = text.count("[") + text.count("{")
    if containers > MAX_CONTAINERS:
        raise ValueError(f"more than {MAX_CONTAINERS} lists and objects")
    try:
        if strict:
            value = json.loads(
                text, object_pairs_hook=_object, parse_constant=_refuse, parse_float=_finite, parse_int=_integer
            )
        else:
            value = json.loads(text)
    except RecursionError:
        raise ValueError(f"values that nest deeper than {MAX_DEPTH}") from None
    if containers > MAX_DEPTH:
        _check_depth(value)
    if strict and has_lone_surrogate(text, value):
        raise ValueError("a lone surrogate")
    return value


def parse_at(text: str, place: int) -> tuple[Any, int]:
    """The value that begins at a place of a text, and where it ends; raises ValueError as `parse_json`."""
    try:
        value, end = DECODER.raw_decode(text, place)
    except RecursionError:
        raise ValueError(f"values that nest deeper than {MAX_DEPTH}") from None
    containers = text.count("[", place, end) + text.count("{", place, end)
    if containers > MAX_DEPTH:
        _check_depth(value)
    return value, end


def has_lone_surrogate(text: str, value: Any) -> bool:
    """Whether a string of a parsed JSON text, or a key, has one half of a pair of surrogates alone."""
    if "\\ud" not in text and "\\uD" not in text:
        return False
    pending = [value]
    while pending:
        item = pending.pop()
        if isinstance(item, str):
            try:
                item.encode("utf-8")
            except UnicodeEncodeError:
                return True
        elif isinstance(item, dict):
            pending += [*item, *item.values()]
        elif isinstance(item, list):
            pending += item
    return False


def _check_depth(value: Any) -> None:
    level = [value]
    for _ in range(MAX_DEPTH + 1):
        level = [
            inner for item in level if isinstance(item, (dict, list))
            for inner in (item.values() if isinstance(item, dict) else item) if isinstance(inner, (dict, list))
        ]
        if not level:
            return
    raise ValueError(f"values that nest deeper than {MAX_DEPTH}")


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) != len(pairs):
        keys = [key for key, _ in pairs]
        raise ValueError(f"the key {next(key for key in made if keys.count(key) > 1)!r} twice in one object")
    return made


def _refuse(name: str) -> float:
    raise ValueError(f"{name}, which is no number in JSON")


def _integer(digits: str) -> int:
    if (number := int(digits)).bit_length() >= INTEGER_BITS:
        raise ValueError(f"the integer {digits[:20]}..., of more than {INTEGER_BITS} bits")
    return number


def _finite(digits: str) -> float:
    if not math.isfinite(number := float(digits)):
        raise ValueError(f"the number {digits[:20]}, which is larger than a float64 holds")
    return number
