"""Sentencepiece's normalisation of text, by the table that a tokenizer.json carries (`precompiled_charsmap`).

The tokenizers library reads the table too, but by grapheme: of a letter with several marks, and of a mark behind a
character that the table replaces, it drops what is left over (decomposed Vietnamese loses its tones). Sentencepiece
(Kudo and Richardson 2018) replaces the longest sequence that the table has at each place, and drops nothing.
"""

from __future__ import annotations

import base64
import json
import re
import threading
from typing import Any

import numpy as np
import numpy.typing as npt
from tokenizers import NormalizedString, Regex, normalizers

__all__ = ["OUTER_SPACES", "Charsmap", "sentencepiece_normalizer", "take_fault"]

ANY, NOT_PLAIN = re.compile(r"(?s)."), re.compile(r"[^ -~]")
PLAIN = range(ord(" "), ord("~") + 1)
LABEL, HAS_LEAF, VALUE = (1 << 31) | 0xFF, 1 << 8, (1 << 31) - 1
SPACES = " \u2581"
"""What sentencepiece takes for white space once a text is normalised: the second is how it writes the first."""
OUTER_SPACES = rf"\A[{SPACES}]+|[{SPACES}]+\z"
"""What sentencepiece drops of a text, as checkpoints have it since there are any."""
OUTER_SPACES_ONCE = rf"\A[{SPACES}]+|(?<![{SPACES}])[{SPACES}]+\z"
"""The same, looked for once in each run of spaces: a million of them inside a text took hours."""
_raised = threading.local()
"""What `Charsmap.normalize` raised in this thread: the library that calls it drops that, and the text stays."""


def sentencepiece_normalizer(normalizer: Any) -> Any | None:
    """The same normaliser with sentencepiece's reading of its table, and quick at spaces; None if it has neither.

    `normalizer` is a tokenizer's own (None, or of `tokenizers.normalizers`). Raises ValueError for a damaged table.
    """
    if normalizer is None:
        return None
    parts = _parts(json.loads(normalizer.__getstate__()))
    if not any(part["type"] == "Precompiled" or _drops_outer_spaces(part) for part in parts):
        return None
    return normalizers.Sequence([_read(part) for part in parts])


def take_fault() -> BaseException | None:
    """What a normaliser of this module has raised in this thread since the last call, None for nothing."""
    fault: BaseException | None = getattr(_raised, "fault", None)
    _raised.fault = None
    return fault


class Charsmap:
    """A table of sequences of characters and what replaces each.

    The table is the size of a trie in bytes (uint32, little-endian), that trie, a double array (Yata et al. 2007) over
    UTF-8, and the replacements, each ended by a zero byte. Raises ValueError if it is cut off, or if a sequence
    has no replacement in UTF-8.
    """

    def __init__(self, table: bytes) -> None:
        size = int.from_bytes(table[:4], "little")
        if size % 4 or not 4 <= size <= len(table) - 5 or table[-1]:
            raise ValueError(f"a charsmap of {len(table)} bytes whose trie has {size}")
        units = np.frombuffer(table, "<u4", size // 4, 4).astype(np.int64)
        self._replacements = table[4 + size :]
        _check_values(units, self._replacements)
        self._units: list[int] = units.tolist()
        self._candidates = NOT_PLAIN if self._spares_plain_text() else ANY

    def __call__(self, text: str) -> str:
        """Text with each sequence of the table replaced, the longest at each place."""
        pieces: list[str] = []
        done = place = 0
        while found := self._candidates.search(text, place):
            # A sequence may begin with one plain letter, in front of a mark.
            place = max(place, found.start() - 1)
            matched, replacement = self._longest(text, place)
            if matched:
                pieces += [text[done:place], replacement]
                done = place = place + matched
            else:
                place += 1
        return "".join([*pieces, text[done:]])

    def normalize(self, normalized: NormalizedString) -> None:
        """The same in place, as the tokenizers library calls a normaliser of ours."""
        try:
            text = normalized.normalized
            if (replaced := self(text)) != text:
                normalized.replace(text, replaced)
        except BaseException as fault:
            _raised.fault = fault
            raise

    def _longest(self, text: str, place: int) -> tuple[int, str]:
        """How many characters from `place` on the table replaces, and by what; 0 and nothing if it has none."""
        matched, replacement = 0, ""
        node, unit = _offset(self._units[0]), 0
        for end in range(place, len(text)):
            for byte in text[end].encode("utf-8"):
                found = self._unit(node, byte)
                if found is None:
                    return matched, replacement
                unit = found
                node ^= byte ^ _offset(unit)
            if unit & HAS_LEAF:
                matched, replacement = end + 1 - place, self._replacement(self._units[node] & VALUE)
        return matched, replacement

    def _unit(self, node: int, byte: int) -> int | None:
        """The trie's unit behind `node` by this byte, None if it has none."""
        place = node ^ byte
        if place < len(self._units) and self._units[place] & LABEL == byte:
            return self._units[place]
        return None

    def _replacement(self, start: int) -> str:
        return self._replacements[start : self._replacements.index(b"\0", start)].decode("utf-8")

    def _spares_plain_text(self) -> bool:
        """Whether no sequence is printable ASCII alone, or begins with two such characters: most text is left alone."""
        root = _offset(self._units[0])
        for first in PLAIN:
            unit = self._unit(root, first)
            if unit is not None:
                node = root ^ first ^ _offset(unit)
                if unit & HAS_LEAF or any(self._unit(node, second) is not None for second in PLAIN):
                    return False
        return True


def _check_values(units: npt.NDArray[np.int64], replacements: bytes) -> None:
    """Raise ValueError if a unit's value, the start of its replacement, is not valid: text would find out later."""
    replacements.decode("utf-8")
    leaves = np.flatnonzero((units & HAS_LEAF != 0) & (units <= VALUE))
    leaves = leaves[leaves > 0]  # the root stands for no sequence
    places = leaves ^ ((units[leaves] >> 10) << ((units[leaves] & (1 << 9)) >> 6))
    if (places >= len(units)).any() or (units[places] <= VALUE).any():
        raise ValueError("a charsmap whose trie leads nowhere")
    starts = units[places] & VALUE
    content = np.frombuffer(replacements, np.uint8)
    if (starts >= len(content)).any() or (content[starts] & 0xC0 == 0x80).any():
        raise ValueError("a charsmap whose replacements are no text")


def _offset(unit: int) -> int:
    return (unit >> 10) << ((unit & (1 << 9)) >> 6)


def _parts(state: dict[str, Any]) -> list[dict[str, Any]]:
    if state["type"] != "Sequence":
        return [state]
    return [part for inner in state["normalizers"] for part in _parts(inner)]


def _drops_outer_spaces(part: dict[str, Any]) -> bool:
    return bool(part["type"] == "Replace" and part["pattern"] == {"Regex": OUTER_SPACES} and not part["content"])


def _read(part: dict[str, Any]) -> Any:
    if _drops_outer_spaces(part):
        return normalizers.Replace(Regex(OUTER_SPACES_ONCE), "")
    if part["type"] == "Precompiled":
        return normalizers.Normalizer.custom(Charsmap(base64.b64decode(part["precompiled_charsmap"])))
    read = normalizers.Sequence([])
    read.__setstate__(json.dumps(part).encode())
    return read
