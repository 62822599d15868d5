"""What is told of answers before their batch is done: each one's text as it grows, and the answer when its row ends."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

from glimmer_export.runtime.answer import Answer
from glimmer_export.runtime.candidates import Row
from glimmer_export.runtime.decode import Reading
from glimmer_export.runtime.text import TextEncoder

__all__ = ["GrowingText", "OnAnswer", "OnToken", "Progress"]

OnToken = Callable[[int, str], None]
"""Given the place of a question among those asked, and what its answer has grown by."""
OnAnswer = Callable[[int, Answer], None]
"""Given the place of a question among those asked, and its answer."""
BYTE = re.compile(r"<0x[0-9A-Fa-f]{2}>")
"""A token that is one byte of a character, as tokenizers made of sentencepiece models have them."""
REPLACEMENT = "\N{REPLACEMENT CHARACTER}"
"""What a decoder writes for bytes that are not a whole character, or not yet."""


class GrowingText:
    """The text of tokens that come one after the other, in parts that joined are exactly the text of all of them.

    Decoders put spaces between tokens and characters together of bytes, so that each part is what the text of all
    tokens so far has more than the one before, without what a further token may still change.
    """

    def __init__(self, text: TextEncoder) -> None:
        self._text = text
        self._told = ""

    def add(self, tokens: Sequence[int]) -> str:
        """What is new in the text of `tokens`, all that there are so far; "" if that is not certain yet."""
        if BYTE.fullmatch(self._text.piece(tokens[-1]) or ""):
            return ""
        return self._new(self._text.decode(list(tokens)).rstrip(REPLACEMENT).rstrip())

    def end(self, text: str) -> str:
        """What of the whole text has not been told."""
        return self._new(text)

    def _new(self, text: str) -> str:
        if not text.startswith(self._told):
            return ""
        new, self._told = text[len(self._told) :], text
        return new


class Progress:
    """Tells of the rows of one batch; `answer` makes a row's answer of its reading, and is called once a row."""

    def __init__(
        self, text: TextEncoder, answer: Callable[[Row, Reading], Answer], on_token: OnToken | None,
        on_answer: OnAnswer | None,
    ) -> None:
        self._encoder, self._answer = text, answer
        self._on_token, self._on_answer = on_token, on_answer
        self._texts: dict[int, GrowingText] = {}

    def step(self, rows: Sequence[Row], place: int, reading: Reading, ended: bool) -> None:  # noqa: FBT001  # OnStep
        """The row at a place among `rows` has a further token, or has ended."""
        row = rows[place]
        answer = self._answer(row, reading) if ended else None
        if self._on_token is not None:
            growing = self._texts.setdefault(row.index, GrowingText(self._encoder))
            new = growing.add(reading.tokens) if answer is None else growing.end(answer.answer or "")
            if new:
                self._on_token(row.index, new)
        if self._on_answer is not None and answer is not None:
            self._on_answer(row.index, answer)
