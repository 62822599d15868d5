"""Answers as tokens, and texts that are refused."""

from __future__ import annotations

from dataclasses import replace

import pytest

from glimmer_export.exporter.training.texts import RowText
from glimmer_export.runtime.contract import QuestionError, TokenizerError
from glimmer_export.runtime.text import TextEncoder
from tests.bundle_factory import VOCABULARY

EOS = VOCABULARY["</s>"]


def test_an_answer_ends_in_eos(text):
    assert text.answer(" w3 w4 ") == [VOCABULARY["w3"], VOCABULARY["w4"], EOS]


def test_an_answer_that_is_cut_loses_eos(text):
    assert text.shape.max_new_tokens == 6
    words = [f"w{number}" for number in range(8)]
    whole = [VOCABULARY[word] for word in words]
    assert text.answer(" ".join(words[:5])) == [*whole[:5], EOS]
    assert text.answer(" ".join(words[:6])) == whole[:6]
    assert text.answer(" ".join(words)) == whole[:6]


@pytest.mark.parametrize("answer", ["", "w1 \ud800", "w" * (1 << 21)])
def test_an_answer_that_cannot_be_encoded(text, answer):
    with pytest.raises(QuestionError):
        text.answer(answer)


def test_the_rest_is_the_runtimes(text, checkpoint):
    runtime = TextEncoder.open(checkpoint.tokenizer, checkpoint.config.shape)
    assert text.question("w1 w2?") == runtime.question("w1 w2?")
    assert text.passage("w1", "w2 " * 30) == runtime.passage("w1", "w2 " * 30)


def test_a_joined_text_is_refused_before_it_is_read(joined_text):
    joined_text.check_joined("w1", "w2", "w3")
    for question, title, text in (("w1", "w2\udfff", "w3"), ("w1", "", "w" * (1 << 21))):
        with pytest.raises(QuestionError):
            joined_text.check_joined(question, title, text)
        with pytest.raises(QuestionError):
            joined_text.joined(question, title, text)


def test_a_checkpoint_without_a_tokenizer_is_named(checkpoint):
    with pytest.raises(TokenizerError, match=r"checkpoint .*: expected a tokenizer.json"):
        RowText.of(replace(checkpoint, tokenizer=None))
