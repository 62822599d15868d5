"""Standard output and standard error as they are: full, closed, of another encoding, or a pipe that nobody reads."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, TextIO

__all__ = ["StandardOutputError", "open_closed_streams", "standard_streams"]

WIDTHS = range(20, 10_001)
"""Columns and lines that a terminal may be said to have: lines are folded at them, or padded up to them."""
SIZES = ("COLUMNS", "LINES", "TERMINAL_WIDTH")
"""Variables with a terminal's size. rich and typer take what they say, were it nothing."""


class StandardOutputError(Exception):
    """Standard output takes no more. No OSError: what libraries make of those on a pipe is not what we do."""

    def __init__(self, number: int) -> None:
        super().__init__(os.strerror(number))
        self.errno = number


class _Output(io.FileIO):
    """Standard output, whose errors are told from those of other files."""

    def write(self, data: Any) -> int:
        try:
            return super().write(data)
        except OSError as error:
            raise StandardOutputError(error.errno or 0) from error


class _Errors(io.FileIO):
    """Standard error: where it takes nothing, nothing can be said about it, and the exit code says the rest."""

    def write(self, data: Any) -> int:
        with suppress(OSError):
            return super().write(data)
        return len(memoryview(data).cast("B"))


def open_closed_streams() -> None:
    """Take the places of streams that are closed: the next file to be opened, a store's say, would be printed into."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            # Standard output is opened so that writing to it fails, as it does if it is closed.
            os.open(os.devnull, os.O_WRONLY if number == 2 else os.O_RDONLY)


@contextmanager
def standard_streams() -> Iterator[None]:
    """Print through streams that raise StandardOutputError, or nothing; at the end all is printed, or it is raised.

    What stdout's encoding has no character for is printed as an escape, as on stderr. A size of the terminal that is
    none is forgotten.
    """
    for name in SIZES:
        text = os.environ.get(name, "")
        if text and not (text.isdecimal() and int(text[:9]) in WIDTHS and len(text) < 9):
            del os.environ[name]
    if sys.stdin is None:
        sys.stdin = open(0, encoding="utf-8", closefd=False)  # noqa: SIM115 - as long as the process
    if sys.stdout is None or sys.stdout is sys.__stdout__:
        sys.stdout = _stream(_Output(1, "w", closefd=False), sys.stdout)
    elif isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")
    if sys.stderr is None or sys.stderr is sys.__stderr__:
        sys.stderr = _stream(_Errors(2, "w", closefd=False), sys.stderr, line_buffering=True)
    try:
        yield
        sys.stdout.flush()
    except SystemExit:
        sys.stdout.flush()
        raise


def _stream(raw: io.FileIO, old: TextIO | None, *, line_buffering: bool = False) -> io.TextIOWrapper:
    """A stream as Python has made `old`, if it has made one."""
    encoding, write_through = "utf-8", False
    if isinstance(old, io.TextIOWrapper):
        with suppress(OSError):
            old.flush()
        encoding, write_through = old.encoding, old.write_through
        line_buffering = line_buffering or bool(old.line_buffering)
    return io.TextIOWrapper(
        io.BufferedWriter(raw), encoding=encoding, errors="backslashreplace", line_buffering=line_buffering,
        write_through=write_through,
    )
