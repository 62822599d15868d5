"""How long a tokenizer.json's regular expression may search: told by its structure, as nobody vouches for it.

The tokenizers library searches by backtracking (Oniguruma). A repetition that something must follow (`a+b`) is tried
from each place of a text and given up one character at a time, so that it takes the square of the text's length; two of
them take the cube, and repetitions in one another (`(a+)+`) double with each character.
"""

from __future__ import annotations

from dataclasses import dataclass

from glimmer_export.runtime.charsmap import OUTER_SPACES

__all__ = ["LINEAR", "SQUARE", "search_order"]

LINEAR, SQUARE = 1, 2
MAX_LENGTH, MAX_GROUPS = 4096, 16
MAX_WAYS = 512
"""In which the optional parts and alternatives of an expression may be combined."""
MAX_REPEATED = 64
FEW = 8
"""Times more than its least that a part may be repeated without being taken to be repeated without end."""
QUANTIFIERS = "?*+{"
REFUSED_GROUPS = ("(?~", "(?(", "(?{", "(*", "(?P=", "(?P>", "(?&", "(?R")
ASSERTING = ("(?=", "(?!", "(?<=", "(?<!")
REFUSED_ESCAPES = "123456789kgXyYR"
ANCHORS = "bBAzZG"


@dataclass(frozen=True)
class _Part:
    """What a part of an expression costs: repetitions that may be given up (`open`) and others, and ways to match."""

    open: int = 0
    closed: int = 0
    ways: int = 1
    may_be_empty: bool = False
    varies: bool = False
    """Whether it has alternatives or repetitions."""


def search_order(pattern: str) -> int:
    """The power of a text's length that a search takes at most: LINEAR or SQUARE.

    Raises ValueError for an expression that may take more, and for what is not known to take no more.
    """
    if len(pattern) > MAX_LENGTH:
        raise ValueError(f"a regular expression of {len(pattern)} characters")
    reader = _Reader(pattern)
    if pattern == OUTER_SPACES:  # which is read as another
        return LINEAR
    whole = reader.alternatives(0)
    if reader.place < len(pattern):
        raise ValueError(f"the regular expression {pattern[:60]!r}, which closes a group that it does not open")
    if whole.open > 1:
        raise reader.refused("which may take the cube of a text's length")
    return LINEAR + whole.open


class _Reader:
    def __init__(self, pattern: str) -> None:
        self._pattern, self.place = pattern, 0

    def refused(self, why: str) -> ValueError:
        return ValueError(f"the regular expression {self._pattern[:60]!r}, {why}")

    def alternatives(self, depth: int) -> _Part:
        """Branches up to the end of the group or the expression."""
        if depth > MAX_GROUPS:
            raise self.refused("whose groups nest too deep")
        branches = [self._branch(depth)]
        while self._take("|"):
            branches.append(self._branch(depth))
        return _Part(
            max(branch.open for branch in branches), max(branch.closed for branch in branches),
            self._ways(sum(branch.ways for branch in branches)), any(branch.may_be_empty for branch in branches),
            len(branches) > 1 or any(branch.varies for branch in branches),
        )

    def _branch(self, depth: int) -> _Part:
        parts: list[_Part] = []
        while self.place < len(self._pattern) and self._pattern[self.place] not in "|)":
            part = self._quantified(self._atom(depth))
            if part is not None:
                parts.append(part)
        opened = closed = 0
        ways = 1
        followed = False
        for part in reversed(parts):
            opened += part.open + (part.closed if followed else 0)
            closed += 0 if followed else part.closed
            ways = self._ways(ways * part.ways)
            followed = followed or not part.may_be_empty
        return _Part(
            opened, closed, ways, all(part.may_be_empty for part in parts), any(part.varies for part in parts)
        )

    def _ways(self, ways: int) -> int:
        if ways > MAX_WAYS:
            raise self.refused(f"which has more than {MAX_WAYS} ways to match")
        return ways

    def _quantified(self, atom: _Part | None) -> _Part | None:
        """The atom with what repeats it; None for what is nothing by itself, such as a comment."""
        bounds = self._quantifier()
        if bounds is None:
            return atom
        if self.place < len(self._pattern) and self._pattern[self.place] in "?+":
            self.place += 1  # reluctant or possessive
        if self._quantifier() is not None:
            raise self.refused("which repeats a repetition")
        least, most = bounds
        if atom is None:
            raise self.refused("which repeats nothing")
        if most == 1:
            return _Part(atom.open, atom.closed, self._ways(atom.ways + (least == 0)), least == 0 or atom.may_be_empty,
                         varies=True)  # fmt: skip
        if atom.varies or atom.may_be_empty:
            raise self.refused("which repeats what has repetitions or alternatives, or may be empty")
        if least > MAX_REPEATED:
            raise self.refused(f"which repeats something {least} times")
        if most is None or most - least > FEW:
            return _Part(0, 1, 1, may_be_empty=least == 0, varies=True)
        return _Part(0, 0, self._ways(most - least + 1), may_be_empty=least == 0, varies=True)

    def _quantifier(self) -> tuple[int, int | None] | None:
        """Least and most repetitions of the quantifier that stands here, None if there is none."""
        if self.place >= len(self._pattern) or self._pattern[self.place] not in QUANTIFIERS:
            return None
        mark = self._pattern[self.place]
        if mark != "{":
            self.place += 1
            return {"?": (0, 1), "*": (0, None), "+": (1, None)}[mark]
        end = self._pattern.find("}", self.place)
        least, comma, most = self._pattern[self.place + 1 : max(end, 0)].partition(",")
        numbers = [number for number in (least, most) if number]
        if end < 0 or not numbers or not all(number.isdecimal() and len(number) < 6 for number in numbers):
            return None  # it stands for itself
        self.place = end + 1
        first = int(least or 0)
        return (first, first) if not comma else (first, int(most) if most else None)

    def _atom(self, depth: int) -> _Part | None:
        character = self._pattern[self.place]
        if character == "(":
            return self._group(depth)
        if character == "[":
            self._set()
            return _Part()
        if character == "\\":
            return self._escape()
        self.place += 1
        return _Part()  # an anchor too: it has to be there

    def _group(self, depth: int) -> _Part | None:
        rest = self._pattern[self.place : self.place + 4]
        if rest.startswith("(?#"):
            end = self._pattern.find(")", self.place)
            self.place = end + 1 if end >= 0 else len(self._pattern)
            return None
        if rest.startswith(REFUSED_GROUPS):
            raise self.refused(f"which has {rest[:3]}")
        asserting = rest.startswith(ASSERTING)
        self.place += 1
        if self._take("?"):
            if asserting:
                self.place += 2 if rest.startswith("(?<") else 1
            elif self._take(">"):
                pass
            elif rest.startswith(("(?<", "(?P<", "(?'")):
                end = self._pattern.find("'" if rest.startswith("(?'") else ">", self.place + 1)
                self.place = end + 1 if end >= 0 else len(self._pattern)
            else:  # options, for a group or for what is left of this one
                while self.place < len(self._pattern) and self._pattern[self.place] not in ":)":
                    self.place += 1
                if self.place < len(self._pattern) and self._pattern[self.place] == ")":
                    self.place += 1
                    return None
                self.place += 1
        inner = self.alternatives(depth + 1)
        if not self._take(")"):
            raise self.refused("which does not close a group")
        if asserting:
            return _Part(inner.open + inner.closed, 0, inner.ways, may_be_empty=False, varies=True)
        return inner

    def _set(self) -> None:
        """A set of characters in brackets, which may hold others."""
        depth, first = 0, True
        while self.place < len(self._pattern):
            character = self._pattern[self.place]
            self.place += 2 if character == "\\" else 1
            if character == "[":
                depth, first = depth + 1, True
                self._take("^")
                continue
            if character == "]" and not first:
                depth -= 1
                if not depth:
                    return
            first = False
        raise self.refused("which does not close a set")

    def _escape(self) -> _Part:
        escaped = self._pattern[self.place + 1 : self.place + 2]
        if not escaped or escaped in REFUSED_ESCAPES:
            raise self.refused(f"which has \\{escaped}")
        self.place += 2
        if escaped in "pPxuo" and self._take("{"):
            end = self._pattern.find("}", self.place)
            self.place = end + 1 if end >= 0 else len(self._pattern)
        return _Part()

    def _take(self, text: str) -> bool:
        taken = self._pattern.startswith(text, self.place)
        self.place += len(text) if taken else 0
        return taken
