"""Damage to what JSON and YAML hold: other types, huge and odd values, keys gone, unknown or twice, other names."""

from __future__ import annotations

import json
from collections.abc import Iterator
from random import Random
from typing import Any

__all__ = ["ODD_TEXTS", "damage_json", "damage_value", "odd_value", "to_json"]

ODD_TEXTS = (
    "", " ", "\0", "\x1b[31m", "a" * 300, "a" * 70_000, "\ud800", "\udcff", "é\u0301", "\u202e", "\ufeff", "💥" * 50,
    "%s", "{text}", "{0.__class__}", "{", "[bold]", ":cat:", "../victim", "../../victim", "/proc/version",
    "..", ".", "a/../../b",    "C:\\a", "a\\b", "~", "-1", "1e999", "NaN", "<unk>", "fp16",
    "sha256", "(" * 500, "(a*)*b", "\\", "\n\n",
)
ODD_NUMBERS: tuple[Any, ...] = (
    0, -1, 1, 2, 255, 65_536, 2**31 - 1, 2**31, 2**32, 2**53 + 1, 2**63 - 1, 2**63, 2**64, -(2**63), -(2**63) - 1,
    10**30, 10**400, 0.5, -0.0, 1e-320, 1e308, float("nan"), float("inf"), float("-inf"),
)
DEEP = "\0deep\0"
"""Stands for a value that nests deeper than Python's parser goes, until it is written."""
TWICE = "\0twice\0"
"""Before a key that stands beside itself, until it is written."""


def odd_value(random: Random) -> Any:
    """A value that hardly any field expects."""
    kind = random.randrange(12)
    if kind < 4:
        return random.choice(ODD_NUMBERS)
    if kind < 8:
        return random.choice(ODD_TEXTS)
    return random.choice((
        None, True, False, [], {}, [[]], [None], {"": ""}, [0] * 1000, {"a": {"a": {"a": []}}}, DEEP, [1, "a", None],
        {"path": "../victim", "bytes": 0, "sha256": "0" * 64}, {"type": "Sequence"}, [["a", 0.0]],
    ))


def damage_value(value: Any, random: Random) -> Any:
    """The value with one to three of its parts changed; what is given is changed itself."""
    holder = [value]
    for _ in range(random.choice((1, 1, 1, 2, 3))):
        places = list(_places(holder))
        if not places:  # the value itself was taken away
            return odd_value(random)
        place, key = random.choice(places[1:] or places) if random.random() < 0.97 else places[0]
        _damage(place, key, random)
    return holder[0] if holder else None


def damage_json(content: bytes, random: Random) -> bytes | None:
    """A JSON text, or lines of them, with values changed; None where it is neither."""
    try:
        return to_json(damage_value(json.loads(content), random), random)
    except ValueError:
        pass
    lines = content.splitlines()
    number = random.randrange(len(lines)) if lines else 0
    try:
        lines[number] = to_json(damage_value(json.loads(lines[number]), random), random)
    except (ValueError, IndexError):
        return None
    return b"\n".join(lines) + b"\n"


def to_json(value: Any, random: Random) -> bytes:
    """JSON as Python writes it, NaN and lone surrogates in it; with what stands for a deep value written out."""
    text = json.dumps(value, ensure_ascii=random.random() < 0.5)
    depth = random.choice((100, 2000, 200_000))
    text = text.replace(json.dumps(DEEP), "[" * depth + "]" * depth).replace(json.dumps(TWICE)[1:-1], "")
    return text.encode("utf-8", "surrogatepass")


def _places(value: Any) -> Iterator[tuple[Any, Any]]:
    """Every part of a value, by what holds it; of long lists the first ones."""
    keys = list(value) if isinstance(value, dict) else range(min(len(value), 12)) if isinstance(value, list) else ()
    for key in keys:
        yield value, key
        yield from _places(value[key])


def _damage(holder: Any, key: Any, random: Random) -> None:
    kind = random.randrange(10)
    is_object, old = isinstance(holder, dict), holder[key]
    if kind == 0:
        del holder[key]
    elif kind == 1 and is_object:
        holder[random.choice(("unknown", "", "__class__", "a" * 300, "\ud800"))] = odd_value(random)
    elif kind == 2 and is_object:
        holder[f"{TWICE}{key}"] = random.choice((old, odd_value(random)))
    elif kind == 3 and is_object:
        holder[f"{key}s"] = holder.pop(key)
    elif kind == 4 and not is_object:
        holder.insert(key, random.choice((old, odd_value(random))))
    elif kind == 5 and isinstance(old, (int, float)) and not isinstance(old, bool):
        holder[key] = random.choice((old + 1, old - 1, -old, old * 1000, float(min(old, 2**1000)), str(old), [old]))
    elif kind == 6 and isinstance(old, str):
        holder[key] = random.choice((old[:-1], old + "x", old.upper(), f"../{old}", f"./{old}", f"/{old}", old * 40))
    elif kind == 7 and isinstance(old, list) and old:
        holder[key] = random.choice((old[::-1], old * 2, old[1:], old[:1] * 3000))
    else:
        holder[key] = odd_value(random)
