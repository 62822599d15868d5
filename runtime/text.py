"""Text to token ids and back, by the bundle's own tokenizer and templates."""

from __future__ import annotations

from pathlib import Path

from tokenizers import Tokenizer

from runtime.contract import BundleError, ModelShape, QuestionError, TokenizerError
from runtime.contract.templates import TEMPLATES, template_fault

__all__ = ["TextEncoder", "read_tokenizer"]

class TextEncoder:
    """Encodes questions and passages as the model was trained on them: template, tokens, EOS.

    Special tokens come from the model's shape alone, so a tokenizer's own post-processing, truncation and padding are
    not used. Safe from several threads.
    """

    def __init__(self, tokenizer: Tokenizer, shape: ModelShape) -> None:
        tokenizer.no_truncation()
        tokenizer.no_padding()
        self._tokenizer = tokenizer
        self._shape = shape

    @classmethod
    def open(cls, path: Path, shape: ModelShape) -> TextEncoder:
        """Read a tokenizer.json.

        Raises TokenizerError where it is unreadable or larger than the vocabulary, BundleError where the shape's
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
        """Token ids of a question, EOS last, at most question_length.

        Raises QuestionError where it is empty, too long, or not text that can be encoded.
        """
        subject = f"question {question[:60]!r}"
        if not question.strip():
            raise QuestionError(subject, expected="some text", found="none", fix="ask something")
        ids = self._encode(self._shape.question_template.format(question=question).strip(), subject)
        if len(ids) > self._shape.question_length:
            raise QuestionError(
                subject, expected=f"at most {self._shape.question_length} tokens, EOS included", found=f"{len(ids)}",
                fix="shorten the question, or train and export with a greater question_length",
            )
        return ids

    def passage(self, title: str, text: str) -> tuple[list[int], bool]:
        """Token ids of a passage, EOS last, cut to passage_length, and whether it was cut."""
        return self._passage(self._shape.passage_template.format(title=title, text=text), title)

    def joined(self, question: str, title: str, text: str) -> tuple[list[int], bool]:
        """Token ids of question and passage in one text, by the model's input_template; as `passage` otherwise."""
        assert self._shape.input_template is not None
        return self._passage(self._shape.input_template.format(question=question, title=title, text=text), title)

    def _passage(self, filled: str, title: str) -> tuple[list[int], bool]:
        ids = self._encode(filled.strip(), f"passage {title[:60]!r}")
        limit = self._shape.passage_length
        return (ids, False) if len(ids) <= limit else ([*ids[: limit - 1], self._shape.eos_token_id], True)

    def decode(self, ids: list[int]) -> str:
        """The text of answer tokens, special tokens left out."""
        decoded: str = self._tokenizer.decode(ids, skip_special_tokens=True)
        return decoded.strip()

    def _encode(self, text: str, subject: str) -> list[int]:
        try:
            ids: list[int] = self._tokenizer.encode(text, add_special_tokens=False).ids
        except (UnicodeEncodeError, TypeError):  # a lone surrogate
            raise QuestionError(
                subject, expected="text that UTF-8 can write", found="a lone surrogate", fix="repair the text"
            ) from None
        return [*ids, self._shape.eos_token_id]


def read_tokenizer(source: Path | bytes, vocab_size: int, *, subject: str, fix: str) -> Tokenizer:
    """Open a tokenizer.json, or its content; `subject` and `fix` are those of its errors.

    Raises TokenizerError where it cannot be read, or can give an id that the embedding has no row for.
    """
    try:
        tokenizer = Tokenizer.from_buffer(source if isinstance(source, bytes) else source.read_bytes())
    except Exception as error:  # noqa: BLE001 - tokenizers raises no other
        raise TokenizerError(subject, expected="a tokenizer.json", found=str(error), fix=fix) from None
    highest = max(tokenizer.get_vocab(with_added_tokens=True).values(), default=-1)
    if highest >= vocab_size:
        raise TokenizerError(
            subject, expected=f"ids below the embedding's {vocab_size} rows", found=f"an id {highest}", fix=fix
        )
    return tokenizer
