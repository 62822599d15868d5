"""Text to tokens: template, tokens, EOS, and nothing that a tokenizer.json would add of its own."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest

from glimmer_export.runtime.contract import ModelShape, QuestionError
from glimmer_export.runtime.text import TextEncoder
from tests.bundle_factory import VOCABULARY, make_bundle

EOS, UNKNOWN = 1, 2


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory) -> Path:
    return make_bundle(tmp_path_factory.mktemp("text") / "bundle") / "tokenizer.json"


@pytest.fixture(scope="module")
def shape(tokenizer) -> ModelShape:
    """question_length 12, passage_length 24."""
    model = json.loads((tokenizer.parent / "manifest.json").read_text(encoding="utf-8"))["model"]
    return ModelShape(**model)


def encoder(tokenizer: Path, shape: ModelShape, **changes: object) -> TextEncoder:
    return TextEncoder.open(tokenizer, dataclasses.replace(shape, **changes))


def ids(text: str) -> list[int]:
    return [*(VOCABULARY.get(word, UNKNOWN) for word in text.split()), EOS]


def test_a_question_ends_with_eos(tokenizer, shape):
    text = encoder(tokenizer, shape)
    assert text.question("w3 w4") == ids("w3 w4")
    assert text.question("  w3   strange ") == ids("w3 strange")


def test_templates_are_filled_in(tokenizer, shape):
    text = encoder(tokenizer, shape, question_template="w1 {question} w2", passage_template="w9 {title} w8 {text}")
    assert text.question("w3") == ids("w1 w3 w2")
    assert text.passage("w4", "w5") == (ids("w9 w4 w8 w5"), False)


@pytest.mark.parametrize(("length", "cut"), [(1, False), (20, False), (21, True), (500, True)])
def test_question_and_passage_in_one_text(tokenizer, shape, length, cut):
    """One limit for both, EOS included; a passage of 24 tokens has room for 23 words, the question's among them."""
    changes = {"question_layout": "joined", "input_template": "w1 {question} {title} {text}"}
    words = (["w3", "w4"] * length)[:length]
    filled = f"w1 w9 w7 {' '.join(words)}".split()
    found = encoder(tokenizer, shape, **changes).joined("w9", "w7", " ".join(words) + "  ")
    assert found == (ids(" ".join(filled[:23])), cut)


def test_braces_in_a_question_are_text(tokenizer, shape):
    assert encoder(tokenizer, shape).question("{question} w3 {0}") == [UNKNOWN, VOCABULARY["w3"], UNKNOWN, EOS]


@pytest.mark.parametrize(("length", "cut"), [(1, False), (23, False), (24, True), (500, True)])
def test_a_passage_is_cut_and_still_ends_with_eos(tokenizer, shape, length, cut):
    words = (["w3", "w4"] * length)[:length]
    found, was_cut = encoder(tokenizer, shape, passage_template="{text}").passage("w7", " ".join(words))
    assert was_cut == cut
    assert found == ids(" ".join(words[:23]))


def test_the_longest_question(tokenizer, shape):
    text = encoder(tokenizer, shape)
    assert len(text.question("w1 " * 11)) == 12
    with pytest.raises(QuestionError, match="at most 12 tokens, EOS included, found 13"):
        text.question("w1 " * 12)


@pytest.mark.parametrize("question", ["", " ", "\n\t", "\ud800"])
def test_what_is_no_question(tokenizer, shape, question):
    with pytest.raises(QuestionError):
        encoder(tokenizer, shape).question(question)


def test_truncation_padding_and_special_tokens_of_the_file_are_ignored(tokenizer, shape, tmp_path):
    content = json.loads(tokenizer.read_text(encoding="utf-8"))
    content["truncation"] = {"direction": "Right", "max_length": 2, "strategy": "LongestFirst", "stride": 0}
    content["padding"] = {
        "strategy": {"Fixed": 9}, "direction": "Right", "pad_to_multiple_of": None, "pad_id": 0, "pad_type_id": 0,
        "pad_token": "<pad>",
    }
    content["post_processor"] = {
        "type": "TemplateProcessing", "pair": [{"Sequence": {"id": "A", "type_id": 0}}],
        "single": [{"Sequence": {"id": "A", "type_id": 0}}, {"SpecialToken": {"id": "</s>", "type_id": 0}}],
        "special_tokens": {"</s>": {"id": "</s>", "ids": [1], "tokens": ["</s>"]}},
    }
    (tmp_path / "tokenizer.json").write_text(json.dumps(content), encoding="utf-8")
    assert encoder(tmp_path / "tokenizer.json", shape).question("w3 w4 w5") == ids("w3 w4 w5")


def test_special_tokens_are_left_out_of_an_answer(tokenizer, shape, tmp_path):
    content = json.loads(tokenizer.read_text(encoding="utf-8"))
    content["added_tokens"] = [
        {"id": 0, "content": "<pad>", "single_word": False, "lstrip": False, "rstrip": False, "normalized": False,
         "special": True}
    ]
    (tmp_path / "tokenizer.json").write_text(json.dumps(content), encoding="utf-8")
    text = encoder(tmp_path / "tokenizer.json", shape)
    assert text.decode([0, VOCABULARY["w3"], 0, VOCABULARY["w4"]]) == "w3 w4"
    assert text.decode([]) == ""
