"""Texts of rows as the runtime encodes them, and answers, which the runtime only decodes."""

from __future__ import annotations

from glimmer_export.exporter.checkpoint import Checkpoint
from glimmer_export.runtime.contract import QuestionError, TokenizerError
from glimmer_export.runtime.contract.architecture import ModelShape
from glimmer_export.runtime.text import PlainTokenizer, TextEncoder, read_tokenizer

__all__ = ["RowText"]


class RowText(TextEncoder):
    """Encodes questions and passages as the runtime does, and the answers that a model is to give."""

    def __init__(self, tokenizer: PlainTokenizer, shape: ModelShape) -> None:
        super().__init__(tokenizer, shape)
        self.shape = shape

    @classmethod
    def of(cls, checkpoint: Checkpoint) -> RowText:
        """By the tokenizer of a checkpoint; raises TokenizerError if it has none."""
        config = checkpoint.config
        if checkpoint.tokenizer is None:
            raise TokenizerError(
                str(checkpoint), expected="a tokenizer.json, to encode what it is trained on", found="none",
                fix="copy the tokenizer of the model into the checkpoint",
            )
        subject = f"tokenizer {checkpoint.tokenizer}"
        tokenizer = read_tokenizer(checkpoint.tokenizer, config.vocab_size, subject=subject, fix="copy it again")
        return cls(tokenizer, config.shape)

    @property
    def joins(self) -> bool:
        """Whether the model reads question and passage in one text."""
        return self.shape.question_layout == "joined"

    def answer(self, answer: str) -> list[int]:
        """Token ids of an answer, EOS behind them, cut to max_new_tokens.

        Of an answer that is cut, EOS is lost with the rest, as in FiD's own training: decoding stops there of itself,
        and the model does not learn to end an answer in its middle. Raises QuestionError for one without tokens, and
        for one that cannot be encoded.
        """
        subject = f"answer {answer[:60]!r}"
        ids = self._encode(answer, subject, eos=False)
        if ids == [self.shape.eos_token_id]:
            raise QuestionError(subject, expected="some token", found="none", fix="leave it out")
        return [*ids, self.shape.eos_token_id][: self.shape.max_new_tokens]

    def check_joined(self, question: str, title: str, text: str) -> None:
        """Raise QuestionError if `joined` would: a step that reads a row must not be the first to find out."""
        assert self.shape.input_template is not None
        self._check(self.shape.input_template.format(question=question, title=title, text=text), f"passage {title!r}")
