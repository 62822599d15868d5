"""The tokenizer of a new checkpoint: found beside the weights or named by the user, always as a `tokenizer.json`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from runtime.contract import MissingExtraError, TokenizerError

__all__ = ["FAST", "SENTENCEPIECE", "find_tokenizer", "open_sentencepiece"]

FAST, SENTENCEPIECE = "tokenizer.json", "spiece.model"
NUM_SENTINELS = 100
"""T5's `<extra_id_0>` to `<extra_id_99>`, which its sentencepiece model does not hold."""


def find_tokenizer(source: Path | None, explicit: Path | None) -> bytes | None:
    """Content of the `tokenizer.json` to write, None where there is no tokenizer.

    `explicit` wins; a name that ends in `.model` is a sentencepiece model, anything else a tokenizer.json. Otherwise
    the `tokenizer.json` of the directory `source` is taken, or its `spiece.model`.

    Raises TokenizerError where a file is missing or unreadable; what a tokenizer.json holds is checked when a
    checkpoint is written.
    """
    beside = [source / name for name in (FAST, SENTENCEPIECE)] if source else []
    path = explicit or next((candidate for candidate in beside if candidate.exists()), None)
    if path is None:
        return None
    try:
        content = path.read_bytes()
    except OSError as error:
        raise TokenizerError(
            f"tokenizer {path}", expected=f"a {FAST} or {SENTENCEPIECE}", found=error.strerror or str(error),
            fix="name an existing file",
        ) from None
    return _from_sentencepiece(path) if path.suffix == ".model" else content


def open_sentencepiece(path: Path) -> Any:
    """The sentencepiece model itself; raises MissingExtraError without the library, TokenizerError for another file."""
    try:
        from sentencepiece import SentencePieceProcessor
    except ImportError as error:
        raise MissingExtraError(
            f"reading {path}", expected="sentencepiece", found=str(error), fix="install glimmer-export[export]"
        ) from None
    try:
        return SentencePieceProcessor(model_proto=path.read_bytes())
    except Exception as error:  # noqa: BLE001 - the library raises several
        raise TokenizerError(
            f"tokenizer {path}", expected="a sentencepiece model", found=str(error) or type(error).__name__,
            fix="copy it again",
        ) from None


def _from_sentencepiece(path: Path) -> bytes:
    """Convert T5's sentencepiece model, by transformers' own slow-to-fast conversion."""
    try:
        import google.protobuf  # noqa: F401 - transformers needs it to convert, and says so only in a long text
        import sentencepiece  # noqa: F401
        from transformers import T5Tokenizer
        from transformers.convert_slow_tokenizer import convert_slow_tokenizer
    except ImportError as error:
        raise MissingExtraError(
            f"converting {path}", expected="sentencepiece, protobuf and transformers", found=str(error),
            fix="install glimmer-export[export]",
        ) from None
    try:
        # legacy=True is the tokenizer T5 was trained with and published as: a word after a sentinel keeps its space.
        slow = T5Tokenizer(vocab_file=str(path), extra_ids=NUM_SENTINELS, legacy=True)
        fast = convert_slow_tokenizer(slow)
        fast.add_special_tokens(slow.all_special_tokens)
    except Exception as error:  # noqa: BLE001 - three libraries, each with its own
        raise TokenizerError(
            f"tokenizer {path}", expected="a sentencepiece model", found=f"{type(error).__name__}: {error}",
            fix="copy it again",
        ) from None
    content: str = fast.to_str()
    return content.encode("utf-8")
