"""The tokenizer of a new checkpoint."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tokenizers import Tokenizer

from glimmer_export.exporter.checkpoint.tokenizer import find_tokenizer, without_special_tokens
from glimmer_export.runtime.contract import TokenizerError


def texts(shared_data: Path) -> list[str]:
    """Every 20th passage and all questions of one file: real text."""
    passages = [json.loads(line) for line in (shared_data / "qa" / "corpus.jsonl").read_text("utf-8").splitlines()]
    rows = [json.loads(line) for line in (shared_data / "qa" / "nq.dev.k20.jsonl").read_text("utf-8").splitlines()]
    return [f"{row['title']} {row['text']}" for row in passages[::20]] + [row["question"] for row in rows]


def test_converted_sentencepiece_agrees_with_the_published_tokenizer(shared_data: Path) -> None:
    """Token by token, but for one difference: the published file keeps white space at a text's end as a token.

    T5's sentencepiece model drops it there, so the converted one is the nearer to what T5 was trained with.
    """
    folder = shared_data / "t5_tokenizer"
    content = find_tokenizer(None, folder / "spiece.model")
    assert content is not None
    converted, published = Tokenizer.from_buffer(content), Tokenizer.from_file(str(folder / "tokenizer.json"))
    assert converted.get_vocab() == published.get_vocab()
    assert converted.get_added_tokens_decoder().keys() == published.get_added_tokens_decoder().keys()
    trailing = 0
    for text in [*texts(shared_data), "", "a  b", "\ttab\n x", "日本語 ﬁ ß", "<extra_id_0>", "<extra_id_99> x"]:
        found, expected = converted.encode(text).ids, published.encode(text.rstrip()).ids
        assert found == expected, text
        trailing += found != published.encode(text).ids
    assert trailing  # the real text has such cases, so the difference is tested


def test_beside_the_weights(shared_data: Path, tmp_path: Path) -> None:
    (tmp_path / "spiece.model").symlink_to(shared_data / "t5_tokenizer" / "spiece.model")
    converted = find_tokenizer(tmp_path, None)
    assert converted is not None
    (tmp_path / "tokenizer.json").write_bytes(b'{"its": "own"}')
    assert find_tokenizer(tmp_path, None) == b'{"its": "own"}'
    (tmp_path / "other.json").write_bytes(b'{"explicit": 1}')
    assert find_tokenizer(tmp_path, tmp_path / "other.json") == b'{"explicit": 1}'


def test_none(tmp_path: Path) -> None:
    assert find_tokenizer(tmp_path, None) is None
    assert find_tokenizer(None, None) is None


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(TokenizerError, match=r"absent\.json: expected .*, found none; name an existing file"):
        find_tokenizer(tmp_path, tmp_path / "absent.json")


@pytest.mark.parametrize("content", [b"", b"not a model", b"\x00" * 64])
def test_damaged_sentencepiece(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "spiece.model"
    path.write_bytes(content)
    with pytest.raises(TokenizerError, match=r"spiece\.model: expected a sentencepiece model"):
        find_tokenizer(None, path)

def test_a_tokenizer_that_utf8_cannot_hold_is_left_for_the_writer_to_name() -> None:
    content = b'{"post_processor": {"type": "Sequence"}, "model": {"vocab": {"\\ud800": 0}}}'
    assert without_special_tokens(content) == content
    whole = content.replace(b"\\ud800", b"\\ud83d\\ude00")
    assert json.loads(without_special_tokens(whole)) == {**json.loads(whole), "post_processor": None}
