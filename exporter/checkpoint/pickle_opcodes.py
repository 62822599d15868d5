"""What a pickle would make, told by its opcodes before any is run.

A tuple of a tuple twice, of a tuple twice, has forty opcodes and a million million parts, all of which are visited to
make it a key; one that nests a million deep ends the process.
"""

from __future__ import annotations

import io
import pickletools
import warnings
from collections.abc import Iterator

__all__ = ["UnfitPickleError", "check_pickles"]

MAX_OPCODES = 1 << 19
"""A tensor takes some forty."""
MAX_PARTS = 1 << 20
"""Of one tuple, those of its tuples counted as often as they stand there: what rebuilds a tensor has twenty."""
MAX_KEY_PARTS = 1 << 24
"""Of all that is made a key, or handed to a class."""
MAX_DEPTH = 100
MARK = (-1, -1)
TUPLES = {"TUPLE", "TUPLE1", "TUPLE2", "TUPLE3"}
CONTAINERS = {"APPEND", "APPENDS", "SETITEM", "SETITEMS", "ADDITEMS", "BUILD"}
"""Opcodes that fill what is on the stack already."""
PAIRS = {"SETITEM", "SETITEMS", "DICT"}
CALLS = {"REDUCE", "NEWOBJ", "ADDITEMS", "FROZENSET"}

Value = tuple[int, int]
"""Parts, and how deep they nest."""


class UnfitPickleError(ValueError):
    """A pickle that is none, or whose values would take without end; `expected` says what it may have."""

    def __init__(self, expected: str, found: str) -> None:
        super().__init__(found)
        self.expected = expected


def check_pickles(content: bytes, *, most: int) -> None:
    """Walk at most so many pickles, one behind the other; raises UnfitPickleError."""
    stream = io.BytesIO(content)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Python's, of escapes in a text that it reads and we do not
        for _ in range(most):
            if stream.tell() == len(content):
                return
            _check_pickle(stream)


def _check_pickle(stream: io.BytesIO) -> None:
    machine = _Machine()
    for number, (opcode, argument) in enumerate(_opcodes(stream)):
        if number >= MAX_OPCODES:
            raise UnfitPickleError(f"a pickle of at most {MAX_OPCODES} opcodes", "more")
        machine.take(opcode, argument)


def _opcodes(stream: io.BytesIO) -> Iterator[tuple[pickletools.OpcodeInfo, object]]:
    walk = pickletools.genops(stream)
    while True:
        try:
            found = next(walk, None)
        except ValueError as reason:
            raise _damaged(str(reason)) from None
        if found is None:
            return
        yield found[0], found[1]


class _Machine:
    """The stack and the memo, with the size of each value in its place."""

    def __init__(self) -> None:
        self._stack: list[Value] = []
        self._memo: dict[object, Value] = {}
        self._key_parts = 0

    def take(self, opcode: pickletools.OpcodeInfo, argument: object) -> None:
        """Do what an opcode does to them."""
        name = opcode.name
        if name in ("PUT", "BINPUT", "LONG_BINPUT", "MEMOIZE"):
            self._memo[len(self._memo) if name == "MEMOIZE" else argument] = self._last()
        elif name in ("GET", "BINGET", "LONG_BINGET"):
            self._stack.append(self._memo.get(argument, (1, 1)))
        elif name == "DUP":
            self._stack.append(self._last())
        elif name == "MARK":
            self._stack.append(MARK)
        else:
            taken = self._taken(opcode)
            if opcode.stack_after:
                self._stack.append(self._made(name, taken))

    def _last(self) -> Value:
        if not self._stack or self._stack[-1] == MARK:
            raise _damaged("an empty stack")
        return self._stack[-1]

    def _taken(self, opcode: pickletools.OpcodeInfo) -> list[Value]:
        before = opcode.stack_before
        taken: list[Value] = []
        if pickletools.stackslice in before:
            while self._stack and self._stack[-1] != MARK:
                taken.append(self._stack.pop())
            if not self._stack:
                raise _damaged("no mark")
            self._stack.pop()
            before = before[: before.index(pickletools.markobject)]
        for _ in before:
            self._last()  # is there one
            taken.append(self._stack.pop())
        return taken[::-1]

    def _made(self, name: str, taken: list[Value]) -> Value:
        parts = 1 + sum(value[0] for value in taken)
        if name in CONTAINERS:  # the first nests no deeper for being filled
            depth = max([taken[0][1], *(value[1] + 1 for value in taken[1:])])
        else:
            depth = 1 + max((value[1] for value in taken), default=0)
        if depth > MAX_DEPTH:
            raise UnfitPickleError(f"values that nest {MAX_DEPTH} deep at most", "deeper ones")
        if name in TUPLES and parts > MAX_PARTS:
            raise UnfitPickleError(f"tuples of at most {MAX_PARTS} parts", "one of more, in itself again and again")
        if name in PAIRS:
            keys = taken[0 if name == "DICT" else 1 :: 2]
            self._key_parts += sum(value[0] for value in keys)
        elif name in CALLS:
            self._key_parts += sum(value[0] for value in taken[1:])
        if self._key_parts > MAX_KEY_PARTS:
            raise UnfitPickleError(f"keys of at most {MAX_KEY_PARTS} parts", "more")
        return min(parts, MAX_PARTS + 1), depth


def _damaged(found: str) -> UnfitPickleError:
    return UnfitPickleError("a whole file of tensors, as torch.save writes it", found)
