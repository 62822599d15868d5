"""Text to token ids and back, by the bundle's own tokenizer and templates."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

from tokenizers import Encoding, Tokenizer

from glimmer_export.runtime.charsmap import SPACES, sentencepiece_normalizer
from glimmer_export.runtime.contract import (
    BundleError,
    GlimmerError,
    ModelShape,
    QuestionError,
    TokenizerError,
    read_limited,
)
from glimmer_export.runtime.contract.files import MAX_TOKENIZER_BYTES
from glimmer_export.runtime.contract.templates import TEMPLATES, template_fault
from glimmer_export.runtime.tokenizer_limits import (
    PLAIN,
    TokenizerErrors,
    TokenizerLimits,
    text_fault,
    tokenizer_limits,
)

__all__ = ["PlainTokenizer", "TextEncoder", "read_tokenizer", "read_tokenizer_file"]


LONE_SURROGATE = re.compile("[\ud800-\udfff]")


class PlainTokenizer:
    """A tokenizer that reads text alone: no special tokens are put around it, nothing is cut off or padded.

    White space around it is dropped. A tokenizer that was made of a sentencepiece model normalises text as that does,
    and white space is what is a space then (a zero-width space or a byte order mark too). Takes over the tokenizer that
    it is given. Safe from several threads. Raises ValueError if the tokenizer's table for normalising is damaged.

    `limits` are what its file says that it may do to a text. `named` makes the error of what the library says where it
    cannot encode one, as without an unknown token.
    """

    def __init__(
        self, tokenizer: Tokenizer, limits: TokenizerLimits = PLAIN,
        named: Callable[[str], GlimmerError] | None = None,
    ) -> None:
        self._limits = limits
        self._errors = TokenizerErrors(named or _unusable)
        tokenizer.no_truncation()
        tokenizer.no_padding()
        splits = tokenizer.pre_tokenizer
        self._is_sentencepiece = splits is not None and b"Metaspace" in splits.__getstate__()
        if self._is_sentencepiece and (normalizer := sentencepiece_normalizer(tokenizer.normalizer)) is not None:
            tokenizer.normalizer = normalizer
        self._normalizer = tokenizer.normalizer
        self._tokenizer = tokenizer

    def encode(self, text: str) -> Encoding:
        """Tokens and ids of a text, which has no lone surrogate; raises TokenizerError if the model has none."""
        with self._errors:
            return self._tokenizer.encode(self._stripped(text), add_special_tokens=False)

    def length_fault(self, text: str) -> tuple[str, str] | None:
        """What is expected of a text's length and what was found, where it must not be encoded; None if it may."""
        with self._errors:
            return text_fault(text, self._limits, self._normalizer)

    def decode(self, ids: list[int]) -> str:
        """The text of tokens, special tokens left out; raises TokenizerError if the library has none."""
        with self._errors:
            decoded: str = self._tokenizer.decode(ids, skip_special_tokens=True)
        return decoded

    def piece(self, number: int) -> str | None:
        """The token of an id, None if there is none."""
        piece: str | None = self._tokenizer.id_to_token(number)
        return piece

    @property
    def highest_id(self) -> int:
        """The highest id of a token, -1 without any."""
        return max(self._tokenizer.get_vocab(with_added_tokens=True).values(), default=-1)

    def _stripped(self, text: str) -> str:
        if not self._is_sentencepiece:
            return text.strip()
        first, last = 0, len(text)
        while first < last and self._is_space(text[first]):
            first += 1
        while first < last and self._is_space(text[last - 1]):
            last -= 1
        return text[first:last]

    def _is_space(self, character: str) -> bool:
        with self._errors:
            normalized = character if self._normalizer is None else self._normalizer.normalize_str(character)
        return not normalized.strip(SPACES)


class TextEncoder:
    """Encodes questions and passages as the model was trained on them: template, tokens, EOS.

    Special tokens come from the model's shape alone, so a tokenizer's own post-processing, truncation and padding are
    not used. Safe from several threads.
    """

    def __init__(self, tokenizer: PlainTokenizer, shape: ModelShape) -> None:
        self._tokenizer = tokenizer
        self._shape = shape

    @classmethod
    def open(cls, path: Path, shape: ModelShape) -> TextEncoder:
        """Read a tokenizer.json.

        Raises TokenizerError if it is unreadable or larger than the vocabulary, BundleError if the shape's
        templates are none.
        """
        for name, fields in TEMPLATES.items():
            if template_fault(name, template := getattr(shape, name)):
                raise BundleError(
                    f"bundle {path.parent}, {name}", expected=f"plain fields of {', '.join(fields)}",
                    found=repr(template), fix="export the bundle again with `glimmer-export export`",
                )
        return cls(read_tokenizer(path, shape.vocab_size, subject=str(path), fix="copy the bundle again"), shape)

    def question(self, question: str) -> list[int]:
        """Token ids of a question, with EOS if the model has `question_eos`, at most question_length.

        Raises QuestionError if it is empty, too long, or not text that can be encoded.
        """
        subject = f"question {question[:60]!r}"
        if not question.strip():
            raise QuestionError(subject, expected="some text", found="none", fix="ask something")
        filled = self._shape.question_template.format(question=question)
        ids = self._encode(filled, subject, eos=self._shape.question_eos)
        if len(ids) > self._shape.question_length:
            raise QuestionError(
                subject, expected=f"at most {self._shape.question_length} tokens, EOS included", found=f"{len(ids)}",
                fix="shorten the question, or train and export with a greater question_length",
            )
        return ids

    def passage(self, title: str, text: str) -> tuple[list[int], bool]:
        """Token ids of a passage, with EOS if the model has `passage_eos`, cut to passage_length; whether cut."""
        return self._passage(self._shape.passage_template.format(title=title, text=text), title)

    def joined(self, question: str, title: str, text: str) -> tuple[list[int], bool]:
        """Token ids of question and passage in one text, by the model's input_template; otherwise as `passage`."""
        assert self._shape.input_template is not None
        return self._passage(self._shape.input_template.format(question=question, title=title, text=text), title)

    def _passage(self, filled: str, title: str) -> tuple[list[int], bool]:
        eos, limit = self._shape.passage_eos, self._shape.passage_length
        ids = self._encode(filled, f"passage {title[:60]!r}", eos=eos)
        if len(ids) <= limit:
            return ids, False
        return [*ids[: limit - 1], self._shape.eos_token_id] if eos else ids[:limit], True

    def decode(self, ids: list[int]) -> str:
        """The text of answer tokens, special tokens left out."""
        return self._tokenizer.decode(ids).strip()

    def piece(self, number: int) -> str | None:
        """The token of an id, None if there is none."""
        return self._tokenizer.piece(number)

    def _check(self, text: str, subject: str) -> None:
        """Raise QuestionError for a text that must not be encoded."""
        if LONE_SURROGATE.search(text):
            raise QuestionError(
                subject, expected="text that UTF-8 can write", found="a lone surrogate", fix="repair the text"
            )
        if (fault := self._tokenizer.length_fault(text)) is not None:
            raise QuestionError(subject, expected=fault[0], found=fault[1], fix="shorten the text")

    def _encode(self, text: str, subject: str, *, eos: bool) -> list[int]:
        self._check(text, subject)
        ids: list[int] = self._tokenizer.encode(text).ids
        # A text of no tokens is EOS all the same: nothing can be read of nothing.
        return [*ids, self._shape.eos_token_id] if eos or not ids else ids


def read_tokenizer_file(path: Path, *, subject: str, fix: str) -> bytes:
    """The content of a tokenizer.json, which is not looked at; raises TokenizerError."""
    return read_limited(
        path, limit_bytes=MAX_TOKENIZER_BYTES, error=TokenizerError, subject=subject, fix=fix,
        expected="a tokenizer.json",
    )


def read_tokenizer(source: Path | bytes, vocab_size: int, *, subject: str, fix: str) -> PlainTokenizer:
    """Open a tokenizer.json, or its content; `subject` and `fix` are those of its errors.

    Raises TokenizerError if it cannot be read, or can give an id that the embedding has no row for.
    """
    content = source if isinstance(source, bytes) else read_tokenizer_file(source, subject=subject, fix=fix)

    def damaged(reason: str) -> TokenizerError:
        return TokenizerError(subject, expected="a tokenizer.json", found=reason, fix=fix)

    def unusable(reason: str) -> TokenizerError:
        return TokenizerError(subject, expected="a tokenizer that takes any text", found=reason, fix=fix)

    try:
        limits = tokenizer_limits(content)
    except ValueError as reason:
        raise damaged(str(reason)) from None
    with TokenizerErrors(damaged, reads=True):
        read = Tokenizer.from_buffer(content)
    try:
        tokenizer = PlainTokenizer(read, limits, unusable)
    except ValueError as reason:  # its table for normalising is damaged
        raise damaged(str(reason)) from None
    if tokenizer.highest_id >= vocab_size:
        raise TokenizerError(
            subject, expected=f"ids below the embedding's {vocab_size} rows", found=f"an id {tokenizer.highest_id}",
            fix=fix,
        )
    return tokenizer


def _unusable(reason: str) -> TokenizerError:
    return TokenizerError("tokenizer", expected="one that takes any text", found=reason, fix="copy it again")
