"""What a tokenizer.json can make of a text, told by its structure before it is opened: nobody vouches for it.

A few kilobytes of one can stand for a normaliser whose steps each double a text, for a table that replaces a letter by
a million, or for an expression that searches for hours. A tokenizer that can do more than is stated here is refused.

This is also the only module of the runtime in which what the library tokenizers raises becomes ours. It raises
ValueError for a tokenizer.json that is none, and later Exception itself, none of its subclasses, for whatever it meets,
such as a word without an id in a model without an unknown token; where its Rust gives up, it panics. What a normaliser
of ours raises it drops, or turns into such an Exception: that is raised as it was.
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from types import TracebackType
from typing import Any

from glimmer_export.runtime.charsmap import take_fault
from glimmer_export.runtime.contract import GlimmerError
from glimmer_export.runtime.contract.json_text import parse_json
from glimmer_export.runtime.contract.library_errors import LibraryErrors, first_line, is_panic
from glimmer_export.runtime.tokenizer_regex import LINEAR, search_order

__all__ = ["PLAIN", "TokenizerErrors", "TokenizerLimits", "text_fault", "tokenizer_limits"]

MAX_TOKENIZER_BYTES = 40 << 20
"""The largest that are published have 34 MB (Gemma's); T5's have 2 and 16 MB."""
MAX_TEXT = 1 << 20
"""Characters of a text, by which a passage of a corpus has no more bytes."""
MAX_SQUARE_TEXT = 20_000
"""Characters of a text for a tokenizer that takes the square of its length: some seconds."""
MAX_NORMALIZED = 1 << 20
"""Characters that a text may come to without anyone looking."""
MAX_STEPS = 64
MAX_GROWTH = 8192
"""Characters that one may become, by the worst case of each step: T5's has 72, ALBERT's 7,776; no text comes near."""
MAX_DECODED_GROWTH = 16
"""The same of an answer's pieces."""
UNICODE_GROWTH = 54
"""A compatibility decomposition has up to 18 characters, and a small letter up to 3; a second one adds nothing."""
MAX_PIECE_BYTES = 4096
MAX_UNIGRAM_PIECE_BYTES = 512
"""The search for the best pieces looks as far ahead from each byte of a text as its longest piece is."""
MAX_UNIGRAM_BYTES = 3 << 20
"""Of all pieces: each takes up to 340 bytes of memory. mT5's 250,000 pieces have 2 MB."""
MAX_ADDED_TOKENS, MAX_ADDED_BYTES = 1 << 14, 1 << 20
MAX_TEMPLATE_PIECES = 64
MAX_WORD = 256
"""Characters of a word that WordPiece looks at in all its parts: it takes the cube of them."""
MAX_CHARSMAP_BYTES = 4 << 20
UNICODE = {"BertNormalizer", "Lowercase", "NFC", "NFD", "NFKC", "NFKD", "Nmt", "Strip", "StripAccents"}
KINDS: dict[str, dict[str, int]] = {
    "normalizer": {**dict.fromkeys(UNICODE, 1), "ByteLevel": 2},
    "pre_tokenizer": {
        "BertPreTokenizer": 1, "ByteLevel": 2, "CharDelimiterSplit": 1, "Digits": 1, "FixedLength": 1, "Metaspace": 2,
        "Punctuation": 1, "Split": 1, "UnicodeScripts": 1, "Whitespace": 1, "WhitespaceSplit": 1,
    },
    "decoder": {
        "BPEDecoder": 2, "ByteFallback": 1, "ByteLevel": 2, "CTC": 2, "Fuse": 1, "Metaspace": 2, "Strip": 1,
        "WordPiece": 2,
    },
}  # fmt: skip
"""Characters that one may become in a step of each kind, but for those that say so themselves."""
PARTS = tuple(KINDS)


class TokenizerErrors(LibraryErrors):
    """Around a call of tokenizers: its exceptions by `named`, and those of its classes for a file where it `reads`."""

    def __init__(self, named: Callable[[str], GlimmerError], *, reads: bool = False) -> None:
        super().__init__(_is_own_reading if reads else _is_own, lambda raised: named(first_line(raised)))

    def __exit__(
        self, kind: type[BaseException] | None, raised: BaseException | None, trace: TracebackType | None
    ) -> None:
        if (fault := take_fault()) is not None:
            raise fault
        super().__exit__(kind, raised, trace)


def _is_own(kind: type[BaseException]) -> bool:
    return kind is Exception or is_panic(kind)


def _is_own_reading(kind: type[BaseException]) -> bool:
    return kind is ValueError or _is_own(kind)


@dataclass(frozen=True)
class TokenizerLimits:
    """What a tokenizer does to a text: characters that one may become at most, and how many it takes."""

    growth: int
    max_characters: int


PLAIN = TokenizerLimits(1, MAX_TEXT)
"""Of a tokenizer that normalises nothing."""


def tokenizer_limits(content: bytes) -> TokenizerLimits:
    """The limits of a tokenizer.json; raises ValueError, which says why, for one that must not be opened."""
    if len(content) > MAX_TOKENIZER_BYTES:
        raise ValueError(f"{len(content)} bytes, where {MAX_TOKENIZER_BYTES} are the most")
    data = parse_json(content.decode("utf-8"))
    if not isinstance(data, dict):
        raise ValueError(type(data).__name__)  # noqa: TRY004  # the reader's error is made of one class
    _check_model(data.get("model"))
    _check_added(data.get("added_tokens"))
    _check_template(data.get("post_processor"))
    if (growth := _growth(data, "decoder")) > MAX_DECODED_GROWTH:
        raise ValueError(f"a decoder by which a character may become {growth}, where {MAX_DECODED_GROWTH} are the most")
    growth = _growth(data, "normalizer") * _growth(data, "pre_tokenizer")
    if growth > MAX_GROWTH:
        raise ValueError(f"steps by which one character may become {growth}, where {MAX_GROWTH} are the most")
    order = max(_order(data.get(part)) for part in PARTS)
    return TokenizerLimits(growth, MAX_TEXT if order == LINEAR else MAX_SQUARE_TEXT)


def text_fault(text: str, limits: TokenizerLimits, normalizer: Any) -> tuple[str, str] | None:
    """What is expected of a text's length and what was found, where it must not be encoded; None if it may.

    `normalizer` is the tokenizer's own, or None. Tokens take 150 times the bytes that a text has once it is normalised.
    """
    if len(text) > limits.max_characters:
        return f"at most {limits.max_characters} characters", str(len(text))
    if normalizer is None or len(text) * limits.growth <= MAX_NORMALIZED:
        return None
    size, most = MAX_NORMALIZED // limits.growth, max(MAX_NORMALIZED, 4 * len(text))
    total = 0
    for start in range(0, len(text), size):
        total += len(normalizer.normalize_str(text[start : start + size]))
        if total > most:
            return f"at most {most} characters once it is normalised", "more"
    return None


def _steps(part: Any) -> Iterator[dict[str, Any]]:
    """The steps of a normaliser, a pre-tokenizer, a decoder or a post-processor, sequences taken apart."""
    pending = [part]
    while pending:
        step = pending.pop()
        if not isinstance(step, dict):
            continue
        inner = [steps for name in ("normalizers", "pretokenizers", "decoders", "processors")
                 if isinstance(steps := step.get(name), list)]  # fmt: skip
        if step.get("type") == "Sequence":
            pending += [one for steps in inner for one in reversed(steps)]
        else:
            yield step


def _growth(data: dict[str, Any], part: str) -> int:
    growth, unicode = 1, False
    for number, step in enumerate(_steps(data.get(part))):
        kind = step.get("type")
        if number >= MAX_STEPS:
            raise ValueError(f"a {part} of more than {MAX_STEPS} steps")
        if kind == "Replace":
            growth *= _replacement_growth(step)
        elif kind == "Prepend" and part == "normalizer":
            growth *= 1 + len(_text(step.get("prepend")))
        elif kind == "Precompiled" and part == "normalizer":
            growth *= _charsmap_growth(_text(step.get("precompiled_charsmap")))
        elif (factor := KINDS[part].get(str(kind))) is not None:
            growth *= factor
            unicode = unicode or kind in UNICODE
        else:
            raise ValueError(f"a {part} of the unknown kind {str(kind)[:40]!r}")
        if growth > MAX_GROWTH:
            raise ValueError(f"a {part} by which one character may become {growth}, where {MAX_GROWTH} are the most")
    return growth * (UNICODE_GROWTH if unicode else 1)


def _replacement_growth(step: dict[str, Any]) -> int:
    """By an expression, between any two characters: it may find nothing there and replace that."""
    content, pattern = len(_text(step.get("content"))), step.get("pattern")
    found = len(_text(pattern.get("String"))) if isinstance(pattern, dict) and "String" in pattern else 0
    if not content:
        return 1
    return -(-content // found) if found else 1 + content


def _charsmap_growth(table: str) -> int:
    """The longest replacement of sentencepiece's table: behind a trie, whose size stands before it."""
    if len(table) > MAX_CHARSMAP_BYTES * 4 // 3:
        raise ValueError(f"a charsmap of more than {MAX_CHARSMAP_BYTES} bytes")
    content = base64.b64decode(table)
    replacements = content[4 + int.from_bytes(content[:4], "little") :]
    return max(1, *(len(piece.decode("utf-8", "replace")) for piece in replacements.split(b"\0")))


def _order(part: Any) -> int:
    """The highest order of the expressions that a part searches texts by."""
    patterns = [pattern for step in _steps(part) if isinstance(pattern := step.get("pattern"), dict)]
    return max((search_order(_text(pattern["Regex"])) for pattern in patterns if "Regex" in pattern), default=LINEAR)


def _check_model(model: Any) -> None:
    if not isinstance(model, dict):
        return  # the library says so
    if (longest := model.get("max_input_chars_per_word")) is not None and not (
        type(longest) is int and 0 <= longest <= MAX_WORD
    ):
        raise ValueError(f"max_input_chars_per_word {str(longest)[:20]}, where {MAX_WORD} are the most")
    vocabulary = model.get("vocab")
    if isinstance(vocabulary, dict):
        _check_pieces(vocabulary, MAX_PIECE_BYTES)
    elif isinstance(vocabulary, list):
        pieces = [entry[0] for entry in vocabulary if isinstance(entry, list) and entry and isinstance(entry[0], str)]
        if (total := _check_pieces(pieces, MAX_UNIGRAM_PIECE_BYTES)) > MAX_UNIGRAM_BYTES:
            raise ValueError(f"pieces of {total} bytes together, where {MAX_UNIGRAM_BYTES} are the most")


def _check_pieces(pieces: Collection[str], most: int) -> int:
    """Bytes of all of them."""
    longest = _num_bytes(max(pieces, key=len, default=""))
    if longest > most:
        raise ValueError(f"a piece of {longest} bytes, where {most} are the most")
    return _num_bytes("".join(pieces))


def _num_bytes(text: str) -> int:
    return len(text.encode("utf-8", "surrogatepass"))


def _check_added(added: Any) -> None:
    if not isinstance(added, list):
        return
    contents = [_text(token.get("content")) for token in added if isinstance(token, dict)]
    if len(added) > MAX_ADDED_TOKENS or _check_pieces(contents, MAX_PIECE_BYTES) > MAX_ADDED_BYTES:
        raise ValueError(
            f"{len(added)} added tokens, where {MAX_ADDED_TOKENS} of {MAX_ADDED_BYTES} bytes together are the most"
        )


def _check_template(post_processor: Any) -> None:
    """What is put around a text, or repeats it."""
    pieces = 0
    for step in _steps(post_processor):
        for name in ("single", "pair"):
            sequence = step.get(name)
            pieces = max(pieces, len(sequence) if isinstance(sequence, list) else 0)
        special = step.get("special_tokens")
        for token in special.values() if isinstance(special, dict) else ():
            ids = token.get("ids") if isinstance(token, dict) else None
            pieces = max(pieces, len(ids) if isinstance(ids, list) else 0)
    if pieces > MAX_TEMPLATE_PIECES:
        raise ValueError(f"a template of {pieces} pieces, where {MAX_TEMPLATE_PIECES} are the most")


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError(f"a {type(value).__name__} where text is meant")  # noqa: TRY004  # as above
    return value
