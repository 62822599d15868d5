"""What callers pass to the runtime, checked by type and range if it comes in: the one place."""

from __future__ import annotations

import numbers
import operator
import os
import reprlib
from collections.abc import Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from pathlib import Path
from typing import Any

from glimmer_export.runtime.contract import GlimmerError, OptionError, QuestionError
from glimmer_export.runtime.contract.manifest import MAX_PASSAGES

__all__ = [
    "MAX_PASSAGES",
    "MAX_THREADS",
    "as_index",
    "described",
    "flag",
    "items",
    "one_of",
    "path_of",
    "question_text",
    "share",
    "threads_of",
    "whole_number",
    "words",
]

MAX_THREADS = 512
"""The most threads of one graph run: ONNX Runtime starts as many for every graph, and no machine has more cores."""
MAX_WHOLE_NUMBER = (1 << 63) - 1
DESCRIBED = 80
"""Characters of a value in a message."""
PLAIN = (bool, bytes, int, str, type(None))
"""Types that the words of a value say by themselves."""


_SHORT = reprlib.Repr()
_SHORT.maxstring = _SHORT.maxother = DESCRIBED


def described(value: object) -> str:
    """A value for a message: in a few words, whatever it is, with its type if the words do not say it."""
    try:
        words = _SHORT.repr(value)
    except Exception:  # noqa: BLE001 - a caller's object may raise anything as it describes itself
        words = "something"
    if len(words) > DESCRIBED:
        words = f"{words[:DESCRIBED]}..."
    return words if type(value) in PLAIN else f"{words} ({type(value).__name__})"


def whole_number(name: str, value: object, *, least: int, most: int = MAX_WHOLE_NUMBER) -> int:
    """A whole number, numpy's too; raises OptionError for anything else (a bool is not one) and outside the range."""
    number = as_index(value)
    if number is None or not least <= number <= most:
        expected = f"a whole number from {least}" + ("" if most == MAX_WHOLE_NUMBER else f" to {most}")
        raise OptionError(name, expected=expected, found=described(value), fix="choose one of these")
    return number


def share(name: str, value: object) -> float:
    """A number above 0 and up to 1, numpy's too; raises OptionError for anything else, a bool or NaN among it."""
    if not isinstance(value, bool) and isinstance(value, numbers.Real) and 0 < float(value) <= 1:
        return float(value)
    raise OptionError(name, expected="a number above 0, at most 1", found=described(value), fix="choose one of these")


def as_index(value: object) -> int | None:
    """A whole number as Python's own int; None for anything else, a bool among it."""
    if type(value) is int:
        return value
    if isinstance(value, bool):
        return None
    try:
        return operator.index(value)  # type: ignore[arg-type]
    except TypeError:
        return None


def threads_of(value: object) -> int | None:
    """The CPU threads of one graph run, None for the default; raises OptionError."""
    return None if value is None else whole_number("threads", value, least=1, most=MAX_THREADS)


def flag(name: str, value: object) -> bool:
    """True or False, numpy's too; raises OptionError for anything else."""
    if isinstance(value, bool):
        return value
    if type(value).__module__ == "numpy" and type(value).__name__ in ("bool", "bool_"):
        return bool(value)
    raise OptionError(name, expected="True or False", found=described(value), fix="choose one of these")


def one_of(name: str, value: object, choices: Sequence[str]) -> str:
    """One of several names; raises OptionError for anything else."""
    if not isinstance(value, str) or value not in choices:
        raise OptionError(
            name, expected=f"one of {', '.join(choices)}", found=described(value), fix="choose one of these"
        )
    return str(value)


def path_of(name: str, value: object) -> Path:
    """A path given as a str or an os.PathLike; raises OptionError for anything else, and for what no path can be."""
    found = None
    if isinstance(value, (str, os.PathLike)):
        try:
            found = os.fspath(value)
        except TypeError:
            found = None
    if not isinstance(found, str) or not found or "\0" in found:
        raise OptionError(
            name, expected="a path, as a str or a pathlib.Path", found=described(value), fix="give the directory's path"
        )
    return Path(found)


def question_text(value: object) -> str:
    """A question; raises QuestionError for what is no text."""
    if not isinstance(value, str):
        raise QuestionError("question", expected="text, as a str", found=described(value), fix="ask it in words")
    return str(value)


def words(question: object) -> str:
    """A question as it was asked; what is no text, in a few words."""
    return str(question) if isinstance(question, str) else described(question)


def items(name: str, value: object, *, of: str, error: type[GlimmerError] = OptionError) -> list[Any]:
    """What a list, a tuple, an array or a generator holds, in its order.

    Raises `error` for what is no such thing, and for a text (whose items are letters), a mapping or a set (which have
    no order).
    """
    if isinstance(value, (str, bytes, bytearray, memoryview, Mapping, AbstractSet)) or not isinstance(value, Iterable):
        raise error(name, expected=f"a list of {of}", found=described(value), fix="put what it is into a list")
    if getattr(value, "ndim", 1) == 0:  # an array of no dimension says that it can be iterated over, and cannot
        raise error(name, expected=f"a list of {of}", found=described(value), fix="put what it is into a list")
    return list(value)
