"""The rows of a JSON Lines file, or of one JSON array, read one by one: of the file no more is held than a row."""

from __future__ import annotations

import codecs
from collections.abc import Callable, Iterator
from json import JSONDecodeError
from typing import Any, BinaryIO

from glimmer_export.calibration.text_files import MAX_BLANK_LINES
from glimmer_export.runtime.contract import QuestionFileError
from glimmer_export.runtime.contract.json_text import has_lone_surrogate, parse_at, parse_json

__all__ = ["MAX_ROW_BYTES", "json_rows"]

MAX_ROW_BYTES = 16 << 20
"""Of one row: parsing JSON can take twenty times its size."""
CHUNK_BYTES = 1 << 20
SPACES = " \t\n\r"


def json_rows(
    stream: BinaryIO, subject: str, *, most: Callable[[], int], fix: str
) -> Iterator[tuple[str, Any]]:
    """Every row with the words that name it in an error; blank lines are passed over.

    `most` says, asked again and again, how many bytes it may have come to by then.

    A file that begins with `[` is one array, any other has a row on each line. Raises QuestionFileError: not UTF-8, not
    JSON, a row that is too large or that holds a lone surrogate, or more bytes than that.
    """
    content = _Content(stream, subject, most)
    number = 0
    while line := content.line():
        number += 1
        if line.isspace():
            _check_blank(number, subject)
            continue
        if line.lstrip().startswith(b"["):
            yield from _Array(content, line, subject, number, fix).rows()
            return
        break
    blank = 0
    while line:
        if line.isspace():
            blank += 1
            _check_blank(blank, subject)
        else:
            blank = 0
            name = f"{subject}, line {number}"
            if len(line) > MAX_ROW_BYTES:
                raise _too_large(name)
            yield name, _value(_decoded(line, subject), name, fix)
        line, number = content.line(), number + 1


class _Content:
    """A stream of bytes that may not give more than so many."""

    def __init__(self, stream: BinaryIO, subject: str, most: Callable[[], int]) -> None:
        self._stream, self._subject, self._most, self._given = stream, subject, most, 0

    def line(self) -> bytes:
        """The next line, or as much of it as is more than a row may have; less the mark that says it is UTF-8."""
        content = self._counted(self._stream.readline(MAX_ROW_BYTES + 1))
        if content.startswith(b"PAR1"):
            raise QuestionFileError(
                self._subject, expected="JSON", found="a Parquet file",
                fix="write its rows as JSON lines, as by pandas: `read_parquet(FILE).to_json(OUT, orient='records', "
                "lines=True)`",
            )
        return content.removeprefix(codecs.BOM_UTF8) or content

    def more(self, num_bytes: int) -> bytes:
        """So many bytes, fewer at the end."""
        return self._counted(self._stream.read(num_bytes))

    def _counted(self, content: bytes) -> bytes:
        self._given += len(content)
        if self._given > (most := self._most()):
            raise QuestionFileError(
                self._subject, expected=f"at most {most} bytes, uncompressed", found="more",
                fix="unpack the file if it is sound, or split it",
            )
        return content


class _Array:
    """An array whose elements are parsed one by one, from a piece of the file that holds the next one."""

    def __init__(self, content: _Content, begun: bytes, subject: str, line: int, fix: str) -> None:
        self._content, self._subject, self._fix = content, subject, fix
        self._decoder = codecs.getincrementaldecoder("utf-8")()
        self._text, self._place = self._decode(begun), 0
        self._line = line
        """Of the text's first character."""

    def rows(self) -> Iterator[tuple[str, Any]]:
        """The elements, by their numbers from 1."""
        self._next()
        self._place += 1
        number = 0
        while self._next() != "]":
            if number:
                if self._text[self._place] != ",":
                    raise self._error("Expecting ',' delimiter")
                self._place += 1
                self._next()
            number += 1
            name = f"{self._subject}, row {number}"
            yield name, self._element(name)
        self._place += 1
        if self._skip_spaces():
            raise self._error("Extra data")

    def _next(self) -> str:
        """The next character that is no space, where the place comes to stand."""
        if not self._skip_spaces():
            raise self._error("Expecting ',' delimiter or the array's end")
        return self._text[self._place]

    def _skip_spaces(self) -> bool:
        """Whether anything else comes behind them."""
        while True:
            while self._place < len(self._text):
                if self._text[self._place] not in SPACES:
                    return True
                self._place += 1
            if not self._fill():
                return False

    def _element(self, name: str) -> Any:
        while True:
            reason: str | None = None
            try:
                value, end = parse_at(self._text, self._place)
            except JSONDecodeError as error:
                reason, line = error.msg, self._line + error.lineno - 1
            except ValueError as error:
                raise QuestionFileError(name, expected="JSON", found=str(error), fix=self._fix) from None
            # What ends if the piece does may go on behind it.
            if reason is None and end < len(self._text):
                break
            if len(self._text) - self._place > MAX_ROW_BYTES:
                raise _too_large(name)
            if not self._fill():
                if reason is None:
                    break
                raise self._error(reason, line)
        if end - self._place > MAX_ROW_BYTES:
            raise _too_large(name)
        if has_lone_surrogate(self._text[self._place : end], value):
            raise _not_text(name)
        self._place = end
        return value

    def _fill(self) -> bool:
        """Drop what was parsed and read as much again as is left; whether there was any."""
        self._line += self._text.count("\n", 0, self._place)
        left = self._text[self._place :]
        content = self._content.more(max(CHUNK_BYTES, len(left)))
        self._text, self._place = left + self._decode(content), 0
        return bool(content)

    def _decode(self, content: bytes) -> str:
        try:
            return self._decoder.decode(content, final=not content)
        except UnicodeDecodeError as reason:
            raise _no_utf8(self._subject, reason) from None

    def _error(self, found: str, line: int | None = None) -> QuestionFileError:
        line = line or self._line + self._text.count("\n", 0, self._place)
        return QuestionFileError(self._subject, expected="JSON", found=f"{found}: line {line}", fix=self._fix)


def _check_blank(blank: int, subject: str) -> None:
    if blank > MAX_BLANK_LINES:
        raise QuestionFileError(
            subject, expected="questions", found=f"{blank} blank lines", fix="remove the blank lines"
        )


def _value(text: str, name: str, fix: str) -> Any:
    try:
        value = parse_json(text)
    except ValueError as reason:
        raise QuestionFileError(name, expected="JSON", found=str(reason), fix=fix) from None
    if has_lone_surrogate(text, value):
        raise _not_text(name)
    return value


def _decoded(content: bytes, subject: str) -> str:
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError as reason:
        raise _no_utf8(subject, reason) from None


def _no_utf8(subject: str, reason: UnicodeDecodeError) -> QuestionFileError:
    return QuestionFileError(subject, expected="UTF-8", found=str(reason), fix="convert the file to UTF-8")


def _not_text(name: str) -> QuestionFileError:
    return QuestionFileError(
        name, expected="text that UTF-8 can write", found="a lone surrogate", fix="repair the text"
    )


def _too_large(name: str) -> QuestionFileError:
    return QuestionFileError(
        name, expected=f"at most {MAX_ROW_BYTES} bytes", found="more", fix="put one question in a row"
    )
