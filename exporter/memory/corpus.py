"""Read a corpus: one JSON object a line with `id`, `text` and optionally `title`; other keys are ignored."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import chain, zip_longest
from pathlib import Path
from typing import Any

from runtime.contract import CorpusError
from runtime.contract.text_schema import is_id
from runtime.store import Passage

__all__ = ["Corpus"]

MAX_LINE_BYTES = 64 << 20


@dataclass(frozen=True)
class Corpus:
    """A corpus file that was read once from end to end, and whose every line can be stored.

    `part_sha256` has a digest for every `part_size` passages, so that no passage is used that was not checked.
    """

    path: Path
    sha256: str
    num_passages: int
    part_size: int
    part_sha256: tuple[str, ...]
    part_bytes: tuple[int, ...]

    @classmethod
    def scan(cls, path: str | Path, *, part_size: int) -> Corpus:
        """Check every line before any work is done on one; keeps only the ids.

        Raises CorpusError with the line's number: not UTF-8, not a JSON object, an id that is missing, neither a
        64-bit integer nor a string, or seen before, a text that is empty, a string with a lone surrogate. Also where
        there is no passage at all. Blank lines are skipped.
        """
        path = Path(path)
        whole, parts, sizes = hashlib.sha256(), [], []
        seen: dict[int | str | None, int] = {}
        for part in _parts(path, part_size):
            for number, passage in part.passages:
                if seen.setdefault(passage.id, number) != number:
                    raise CorpusError(
                        f"corpus {path}, line {number}", expected="an id of its own",
                        found=f"{passage.id!r}, the id of line {seen[passage.id]}",
                        fix="remove or rename one of the two",
                    )
            whole.update(part.content)
            parts.append(hashlib.sha256(part.content).hexdigest())
            sizes.append(len(part.content))
        if not seen:
            raise CorpusError(f"corpus {path}", expected="at least one passage", found="none", fix="name another file")
        return cls(path, whole.hexdigest(), len(seen), part_size, tuple(parts), tuple(sizes))

    def parts(self) -> Iterator[list[Passage]]:
        """The passages in file order, `part_size` at a time; raises CorpusError where they are not what was scanned."""
        for part, digest in zip_longest(_parts(self.path, self.part_size), self.part_sha256):
            if part is None or hashlib.sha256(part.content).hexdigest() != digest:
                raise self._changed()
            yield [passage for _, passage in part.passages]

    def part(self, index: int) -> list[Passage]:
        """The passages of one part, without reading those before it; raises CorpusError as `parts`."""
        start, size = sum(self.part_bytes[:index]), self.part_bytes[index]
        try:
            with self.path.open("rb") as stream:
                stream.seek(start)
                content = stream.read(size)
        except OSError as reason:
            raise _unreadable(self.path, reason) from None
        if hashlib.sha256(content).hexdigest() != self.part_sha256[index]:
            raise self._changed()
        return [_passage(line, f"corpus {self.path}") for line in content.split(b"\n") if line and not line.isspace()]

    def _changed(self) -> CorpusError:
        return CorpusError(
            f"corpus {self.path}", expected="its content when the build began", found="other content",
            fix="leave the file alone while a store is built from it, and start again",
        )

    def passages(self) -> Iterator[Passage]:
        """The passages one by one, as `parts`."""
        return chain.from_iterable(self.parts())


@dataclass
class _Part:
    """Successive lines of the file: their bytes, and the passages with their line numbers."""

    content: bytearray = field(default_factory=bytearray)
    passages: list[tuple[int, Passage]] = field(default_factory=list)


def _parts(path: Path, size: int) -> Iterator[_Part]:
    """The file in parts of `size` passages; blank lines belong to the part before them."""
    part = _Part()
    for number, line in _lines(path):
        if len(part.passages) == size and not line.isspace():
            yield part
            part = _Part()
        part.content += line
        if not line.isspace():
            part.passages.append((number, _passage(line, f"corpus {path}, line {number}")))
    if part.content:
        yield part


def _lines(path: Path) -> Iterator[tuple[int, bytes]]:
    """Line numbers from 1, and lines with their line ends, as bytes: only a line feed ends a line."""
    if not path.is_file():  # a pipe cannot be read twice
        raise CorpusError(f"corpus {path}", expected="a file", found="none", fix="name a JSONL file of passages")
    try:
        with path.open("rb") as stream:
            number = 0
            while line := stream.readline(MAX_LINE_BYTES + 1):
                number += 1
                if len(line) > MAX_LINE_BYTES:
                    raise CorpusError(
                        f"corpus {path}, line {number}", expected=f"at most {MAX_LINE_BYTES} bytes", found="more",
                        fix="put one passage on a line",
                    )
                yield number, line
    except OSError as reason:
        raise _unreadable(path, reason) from None


def _unreadable(path: Path, reason: OSError) -> CorpusError:
    return CorpusError(f"corpus {path}", expected="a readable file", found=str(reason), fix="check the file")


def _passage(line: bytes, subject: str) -> Passage:
    fix = "repair the line"
    try:
        data = json.loads(line.decode("utf-8"))
    except UnicodeDecodeError as reason:
        raise CorpusError(subject, expected="UTF-8", found=str(reason), fix="convert the file to UTF-8") from None
    except (ValueError, RecursionError) as reason:
        raise CorpusError(subject, expected="a JSON object", found=str(reason), fix=fix) from None
    if not isinstance(data, dict):
        raise CorpusError(subject, expected="a JSON object", found=type(data).__name__, fix=fix)
    identifier, title, text = data.get("id"), data.get("title", ""), data.get("text")
    if not isinstance(identifier, str) and not is_id(identifier):
        raise CorpusError(
            subject, expected='an "id" that is a string or an integer of 64 bits', found=_shown(data, "id"), fix=fix
        )
    if not isinstance(title, str):
        raise CorpusError(subject, expected='a "title" that is a string, or none', found=_shown(data, "title"), fix=fix)
    if not isinstance(text, str) or not text.strip():
        raise CorpusError(subject, expected='a "text" that is not empty', found=_shown(data, "text"), fix=fix)
    for name, value in (("id", identifier), ("title", title), ("text", text)):
        if isinstance(value, str) and not _is_unicode(value):
            raise CorpusError(subject, expected=f'a "{name}" that UTF-8 can write', found="a lone surrogate", fix=fix)
    return Passage(identifier, title, text)


def _shown(data: dict[str, Any], key: str) -> str:
    return repr(data[key])[:80] if key in data else f'no "{key}"'


def _is_unicode(value: str) -> bool:
    try:
        value.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True
